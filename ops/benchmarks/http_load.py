"""A small HTTP/1.1 load generator for one host, in a process of its own, so that it does not share the server's interpreter.

Closed loop: each connection sends its next request when the answer to the last has come. Open loop: requests fall due at a
fixed rate whatever the server does, and latency counts from the moment a request was due, so that a stall is seen by
everyone who would have waited in it.

    echo '{"port": 8000, "path": "/x", "bodies": ["{}"], "connections": 1, "seconds": 3}' | python -m ops.benchmarks.http_load
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import httptools
import numpy as np
import uvloop

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run. Latencies are in microseconds, of answers with status 200."""

    requests: int
    failed: int
    seconds: float
    p50_us: float
    p99_us: float
    mean_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def run(
    port: int,
    path: str,
    bodies: list[bytes],
    *,
    connections: int = 1,
    seconds: float = 3.0,
    rate: float | None = None,
    warm: float = 0.5,
) -> Load:
    """Run the load in another process and wait for its result."""
    job = {
        "port": port,
        "path": path,
        "bodies": [body.decode() for body in bodies],
        "connections": connections,
        "seconds": seconds,
        "rate": rate,
        "warm": warm,
    }
    done = subprocess.run(
        [sys.executable, "-m", "ops.benchmarks.http_load"],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=True,
    )
    return Load(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver
        self.transport: asyncio.Transport | None = None
        self.due = 0.0
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour, not by class
        self.driver.ready(self)

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.driver.answered(self, self.parser.get_status_code(), time.perf_counter())
        self.parser = httptools.HttpResponseParser(self)
        self.driver.ready(self)


class _Driver:
    def __init__(self, job: dict[str, Any]) -> None:
        head = f"POST {job['path']} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
        self.requests = [f"{head}{len(body.encode())}\r\n\r\n{body}".encode() for body in job["bodies"]]
        self.next = 0
        self.rate = job["rate"]
        self.begin = time.perf_counter() + job["warm"]
        self.end = self.begin + job["seconds"]
        self.latencies: list[float] = []
        self.failed = 0
        self.idle: deque[_Connection] = deque()
        self.due: deque[float] = deque()
        self.done = asyncio.get_running_loop().create_future()

    def ready(self, connection: _Connection) -> None:
        if self.rate is None:
            now = time.perf_counter()
            if now < self.end:
                connection.send(self._request(), now)
            elif not self.done.done():
                self.done.set_result(None)
        elif self.due:
            connection.send(self._request(), self.due.popleft())
        else:
            self.idle.append(connection)

    async def tick(self) -> None:
        """Open loop: let requests fall due."""
        interval = 1 / self.rate
        due = time.perf_counter()
        while due < self.end:
            now = time.perf_counter()
            while due <= now:
                if self.idle:
                    self.idle.popleft().send(self._request(), due)
                else:
                    self.due.append(due)
                due += interval
            await asyncio.sleep(max(0.0, min(due - time.perf_counter(), 0.0005)))
        self.done.set_result(None)

    def answered(self, connection: _Connection, status: int, now: float) -> None:
        if connection.due < self.begin:
            return
        if status == 200:
            self.latencies.append(now - connection.due)
        else:
            self.failed += 1

    def _request(self) -> bytes:
        self.next += 1
        return self.requests[self.next % len(self.requests)]


async def _drive(job: dict[str, Any]) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    driver = _Driver(job)
    for _ in range(job["connections"]):
        await loop.create_connection(lambda: _Connection(driver), "127.0.0.1", job["port"])
    ticking = asyncio.ensure_future(driver.tick()) if driver.rate is not None else None
    await asyncio.wait_for(driver.done, job["warm"] + job["seconds"] + _PATIENCE_S)
    if ticking is not None:
        await ticking
    seconds = time.perf_counter() - driver.begin
    found = np.array(driver.latencies or [float("nan")]) * 1e6
    return {
        "requests": len(driver.latencies),
        "failed": driver.failed,
        "seconds": seconds,
        "p50_us": float(np.percentile(found, 50)),
        "p99_us": float(np.percentile(found, 99)),
        "mean_us": float(found.mean()),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(_drive(json.loads(sys.stdin.read())))))
