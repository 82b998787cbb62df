"""The floor of a prediction: an empty FastAPI route, one MGET of three values, one run of the same graph. Nothing else.

No validation beyond the route's, no features, no log: the least that a service built of these three libraries costs.
Run by ``ops.benchmarks.serving`` with FLOOR_REDIS and FLOOR_ONNX in the environment.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import redis.asyncio
from fastapi import FastAPI
from pydantic import BaseModel

INPUTS = int(os.environ.get("FLOOR_INPUTS", "38"))

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["FLOOR_ONNX"], options, providers=["CPUExecutionProvider"])
store = redis.asyncio.Redis.from_url(os.environ["FLOOR_REDIS"])
app = FastAPI()


class Request(BaseModel):
    card: int
    merchant: str
    device: str
    amount: float


@app.post("/predict")
async def predict(request: Request) -> dict[str, float]:
    values = await store.mget(f"c:{request.card}", f"m:{request.merchant}", f"d:{request.device}")
    row = np.frombuffer(b"".join(value[:52] for value in values), np.float32)[:INPUTS].reshape(1, -1)
    return {"prediction": float(session.run(["output"], {"numeric": row})[0][0, 0])}
