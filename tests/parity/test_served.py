"""No skew over HTTP: served features equal the dataset's, and the audit finds no difference.

The last two days of a span are asked for minute by minute: every departure of a minute after all earlier events are committed
and before any event of that minute is produced. So event time and "as served" are the same here, and both must equal what the
response carried.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.stores.log import prediction_log
from headrace_training.auditing import audit
from headrace_training.datasets import build_dataset
from headrace_training.training import train
from tests.parity.flights import PATIENCE_S, Produced, Rig, records
from tests.services import Services

JANUARY = 1_356_998_400_000_000
DAY = 86_400_000_000
MINUTE = 60_000_000
LIVE_FROM = JANUARY + 28 * DAY
LIVE_UNTIL = LIVE_FROM + 2 * DAY
MODEL = "late_arrival"


@pytest.mark.timeout(400)
def test_served_equals_dataset_and_the_audit_is_clean(shared_services: Services, tmp_path: Path) -> None:
    """At least 50,000 feature values come over HTTP; each is bit for bit what the dataset says and what the audit recomputes."""
    with Rig(shared_services, tmp_path, f"served-{shared_services.name}") as rig:
        worker = rig.start("stream")
        rig.start("log")
        rig.produce(records(rig.project, JANUARY, LIVE_FROM))
        rig.wait_committed(alive=worker)
        rig.wait_logged()
        train(rig.loaded, MODEL, created_at=datetime(2013, 1, 29, tzinfo=UTC), promote="always")
        served = ask(rig, serve(rig), records(rig.project, LIVE_FROM, LIVE_UNTIL))
        rig.wait_logged()
        wait_predictions(rig, len(served))

        values, default = compare_with_dataset(rig, served)
        print(
            f"\nserved = dataset on {shared_services.name}: {values:,} values, {1 - default / values:.1%} not default"
        )
        assert values >= 50_000
        assert default <= 0.2 * values

        report = audit(rig.loaded, MODEL, answered=len(served))
        print(
            f"answered {report.answered:,} = logged {report.logged:,} = audited {report.audited:,}, {report.values:,} values"
        )
        assert (report.answered, report.logged, report.audited) == (len(served),) * 3
        assert report.differences == 0, report.first
        assert report.ok


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


def ask(rig: Rig, url: str, live: list[Produced]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Play the live span; returns each departure with its prediction."""
    answered: list[tuple[dict[str, Any], dict[str, Any]]] = []
    names = {asked.name for asked in rig.project.model(MODEL).request_fields}
    with httpx.Client(base_url=url, timeout=10.0) as client:
        for _, group in groupby(live, key=lambda record: record[1] // MINUTE):
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


def compare_with_dataset(rig: Rig, served: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[int, int]:
    """Compare every served feature and transform; returns values compared, and those of them that are null or 0."""
    dataset = build_dataset(rig.loaded, MODEL, from_us=LIVE_FROM, until_us=LIVE_UNTIL, labels=False).frame
    rows = {row["flight_id"]: row for row in dataset.iter_rows(named=True)}
    values = default = 0
    for departure, prediction in served:
        expected = rows[departure["flight_id"]]
        for name, answer in prediction["features"].items():
            got, wanted = answer["value"], expected[name]
            missing = wanted is None or np.isnan(wanted)
            assert (got is None) if missing else got == wanted, (
                f"{departure['flight_id']} {name}: {got!r}, not {wanted!r}"
            )
            values += 1
            default += missing or wanted == 0
    return values, default
