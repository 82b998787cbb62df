"""BentoML: the same graph behind an endpoint; the features come with the request."""

import os

import bentoml
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1


@bentoml.service(workers=1, traffic={"timeout": 30}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Risk:
    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(
            os.environ["PEER_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"numeric": x.astype(np.float32)})[0]
