"""The example projects: their definitions hold, and the fraud example runs end to end; nothing is tied to flights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from headrace_ops.examples import example_path, load_history
from headrace_schemas.codecs import EventCodec, RawBatch
from headrace_schemas.loading import LoadedProject, load_project
from tests.docs.blocks import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(params=["flights", "fraud"])
def example(request: pytest.FixtureRequest) -> LoadedProject:
    return load_project(EXAMPLES / request.param, {})


def test_examples_are_found_by_name_wherever_the_package_lies() -> None:
    assert example_path("flights") == EXAMPLES / "flights"


def test_what_an_example_brings_fits_its_events(example: LoadedProject) -> None:
    history = load_history(example)
    assert history is not None
    assert set(history.frames) == {event.name for event in example.project.events}
    for event in example.project.events:
        assert history.frames[event.name][event.time].is_sorted()


def test_every_sampled_event_of_an_example_keeps_its_contract(example: LoadedProject) -> None:
    history = load_history(example)
    assert history is not None
    for event in example.project.events:
        codec = EventCodec(event, example.project.views)
        records = history.frames[event.name].sample(min(2_000, history.frames[event.name].height), seed=1)
        values = [codec.encode(record) for record in records.iter_rows(named=True)]
        decoded = codec.decode(_raw(event.topic, values))
        assert [reject for reject in decoded.rejects if "1048" not in reject.reason] == []
        assert decoded.frame.height >= len(values) - 1


def test_the_flights_declare_what_the_demo_promises() -> None:
    project = load_project(EXAMPLES / "flights", {}).project
    assert len(project.views) == 6
    assert len({view.entity.name for view in project.views}) == 4
    assert {view.event.name for view in project.views} == {"departures", "arrivals", "weather"}
    assert sum(len(view.feature_names) for view in project.views) == 40
    assert len(project.model("late_arrival").lookups) == 6
    assert project.model("late_arrival").label.missing == "drop"


def test_the_one_gale_of_the_year_breaks_the_contract() -> None:
    loaded = load_project(EXAMPLES / "flights", {})
    history = load_history(loaded)
    assert history is not None
    event = loaded.project.event("weather")
    gale = history.frames["weather"].filter(pl.col("wind_speed") > 250)
    assert gale.height == 1
    codec = EventCodec(event, loaded.project.views)
    decoded = codec.decode(_raw(event.topic, [codec.encode(record) for record in gale.iter_rows(named=True)]))
    assert [reject.code for reject in decoded.rejects] == ["range"]


def test_the_generated_payments_are_the_same_for_the_same_seed() -> None:
    loaded = load_project(EXAMPLES / "fraud", {})
    first, second = load_history(loaded), load_history(loaded)
    assert first is not None
    assert second is not None
    assert all(frame.equals(second.frames[name]) for name, frame in first.frames.items())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_fraud_demo_ends_with_every_prediction_audited_and_no_child_left(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    command = [sys.executable, "-m", "headrace_ops", "demo", "--example", "fraud", "--days", "0.35", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=230)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    parity = found["parity"]
    assert parity["answered"] == parity["logged"] == parity["audited"] > 100
    assert parity["differences"] == 0
    assert parity["values"] > 15 * parity["answered"]
    assert found["model"]["holdout"]["metrics"]["auc"]["value"] > 0.9
    assert found["live"]["freshness_ms"]["p50"] > 0
    assert all(Path(picture).stat().st_size > 10_000 for picture in found["pictures"])
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def _raw(topic: str, values: list[bytes]) -> RawBatch:
    import numpy as np

    n = len(values)
    now_us = 1_800_000_000_000_000
    return RawBatch(
        topic=topic,
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
        timestamp_us=np.full(n, now_us, np.int64),
        timestamp_type=np.zeros(n, np.uint8),
        received_us=now_us,
        keys=[None] * n,
        values=list(values),
    )
