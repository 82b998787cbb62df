"""What the Python contenders share: where things are, how a payment is decoded, and results on their way to Redis.

It runs in the environments of the peers, so it imports nothing of the product. The variables are set by ``rig.py``.
"""

from __future__ import annotations

import io
import json
import os
import struct
import time
from typing import Any

import fastavro
import redis

KAFKA = os.environ["PEER_KAFKA"]
TOPIC = os.environ["PEER_TOPIC"]
GROUP = os.environ["PEER_GROUP"]
STATE = os.environ["PEER_STATE"]
HOPPING = os.environ["PEER_WHAT"] == "hopping"
SCHEMA = fastavro.parse_schema(json.loads(os.environ["PEER_SCHEMA"]))
WINDOWS_US = [tuple(map(int, window.split("/"))) for window in os.environ["PEER_WINDOWS"].split(",")]
"""(length, slide) of each; tumbling windows slide by their length."""
OVERLAPPING = [length // slide if HOPPING else 1 for length, slide in WINDOWS_US]

# librdkafka waits a second before it asks again for a partition whose queue was full: five times slower.
CONSUMER = {"fetch.queue.backoff.ms": 2}

_AT_MOST, _EVERY_S = 1000, 0.01
_PACK = struct.Struct(">q4d").pack


def decode(datum: bytes) -> dict[str, Any]:
    """A payment as a record; its time stays whole microseconds."""
    return fastavro.schemaless_reader(io.BytesIO(datum), SCHEMA, None)  # type: ignore[return-value]


class Results:
    """Windows on their way to Redis, in pipelines that say how many events they account for."""

    def __init__(self) -> None:
        host, port = os.environ["PEER_REDIS"].split(":")
        self._pipe = redis.Redis(host, int(port)).pipeline(transaction=False)
        self._events = 0
        self._sent = time.monotonic()

    def put(self, card: str, window: int, start_us: int, count: float, total: float, least: float, most: float) -> None:
        self._pipe.set(f"{card}:{window}", _PACK(start_us, count, total, least, most))
        if len(self._pipe) >= _AT_MOST:
            self.flush()

    def counted(self, more: int) -> None:
        self._events += more

    def flush(self) -> None:
        if self._events or len(self._pipe):
            self._pipe.incrby("events", self._events)
            self._pipe.execute()
            self._events = 0
        self._sent = time.monotonic()

    def flush_if_due(self) -> None:
        if time.monotonic() - self._sent > _EVERY_S:
            self.flush()
