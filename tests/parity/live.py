"""Live traffic in tests: the service, the questions of each minute before its events, and the logged predictions.

What may not live here: comparing.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import httpx
import polars as pl

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.stores.log import prediction_log
from tests.parity.flights import PATIENCE_S, Produced, Rig

MODEL = "late_arrival"

_MINUTE = 60_000_000

Answered = list[tuple[dict[str, Any], dict[str, Any]]]
"""Each departure with its prediction."""


def serve(rig: Rig) -> str:
    """Start the service; returns its URL once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    child = spawn_module(
        f"{rig.name} serve",
        "headrace_serving",
        ["--project", str(rig.loaded.root), "--port", str(port)],
        log=rig.directory / "serve.log",
        env=rig.environ,
    )
    rig.children.append(child)
    url = f"http://127.0.0.1:{port}"
    _wait_ready(url, child)
    return url


def _wait_ready(url: str, child: Child) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert child.alive(), child.log_tail(40)
        try:
            if httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, child.log_tail(40)
        time.sleep(0.05)


def ask(rig: Rig, url: str, live: list[Produced]) -> Answered:
    """Play the live span; returns each departure with its prediction."""
    answered: Answered = []
    names = {asked.name for asked in rig.project.model(MODEL).request_fields}
    with httpx.Client(base_url=url, timeout=10.0) as client:
        for _, group in groupby(live, key=lambda record: record[1] // _MINUTE):
            minute = list(group)
            departures = [row for name, _, row in minute if name == "departures"]
            if departures:
                rig.wait_committed()
                rows = [
                    {name: _sent(name, value) for name, value in row.items() if name in names and value is not None}
                    for row in departures
                ]
                answer = client.post(f"/v1/models/{MODEL}/predict", json={"rows": rows, "include": ["features"]})
                assert answer.status_code == httpx.codes.OK, answer.text
                answered += list(zip(departures, answer.json()["predictions"], strict=True))
            rig.produce(minute)
    rig.wait_committed()
    return answered


def _sent(name: str, value: Any) -> Any:
    if name.endswith("_at"):
        return datetime.fromtimestamp(value / 1e6, UTC).isoformat()
    return value


def wait_predictions(rig: Rig, count: int) -> None:
    """Wait until the log has the predictions."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := prediction_log(rig.loaded.settings).scan().select(pl.len()).collect().item()) < count:
        assert time.monotonic() < deadline, f"{found} of {count} predictions were logged in time"
        time.sleep(0.2)
