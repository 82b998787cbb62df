"""No skew, on real data: stream, point-in-time dataset, naive oracle and served values of the flights are one and the same.

Checkpoints cut the year. At each, everything before it has been produced and committed, and nothing after it:

    produced     |=========|=========|=========|
    read at                c1        c2        c3

so at a checkpoint the online store must hold, bit for bit, what the event-time sweep of the log says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace.oracle import naive
from headrace_schemas.stores.log import event_log
from tests.parity.comparing import Observed, compare_with_dataset, read_store
from tests.parity.flights import Rig, entity_keys, journal, records
from tests.services import Services

JANUARY = 1_356_998_400_000_000
DAY = 86_400_000_000
CHECKPOINTS = 150
EVERY_US = 365 * DAY // CHECKPOINTS
SMALL_CACHE_KB = "64"  # far below what the entities need, so states are evicted and read again


@pytest.mark.timeout(500)
def test_stream_equals_dataset_equals_oracle(shared_services: Services, tmp_path: Path) -> None:
    """Over a million values read from the online store along the year equal the sweep of the log; a sample, the oracle."""
    with Rig(shared_services, tmp_path, f"parity-{shared_services.name}") as rig:
        worker = rig.start("stream", HEADRACE_CACHE_KB=SMALL_CACHE_KB)
        rig.start("log")
        observed = {view.name: Observed() for view in rig.project.views}
        for checkpoint in range(1, CHECKPOINTS + 1):
            at_us = JANUARY + checkpoint * EVERY_US
            span = records(rig.project, at_us - EVERY_US, at_us)
            rig.produce(span)
            rig.wait_committed(alive=worker)
            for view in rig.project.views:
                read_store(rig, view, entity_keys(view, span), at_us, observed[view.name])
        rig.wait_logged()
        report = [compare_with_dataset(rig, view, observed[view.name]) for view in rig.project.views]
        compared, present = (sum(counts) for counts in zip(*report, strict=True))
        print(
            f"\nstream = dataset on {shared_services.name}: {compared:,} values, {present / compared:.1%} not default"
        )
        assert compared >= 1_000_000
        assert present >= 0.8 * compared
        assert {form for seen in observed.values() for form in seen.forms} == {"raw", "tiles"}
        against_oracle = compare_with_oracle(rig, observed)
        print(f"stream = oracle on {shared_services.name}: {against_oracle:,} values")
        assert against_oracle >= 50_000
        worker.stop()
        evicted = {note["view"]: note["entities_evicted"] for note in journal(rig, "stream", "folded")}
        print(f"evicted from the cache, and read again: {evicted}")
        assert sum(evicted.values()) >= 1_000


def compare_with_oracle(rig: Rig, observed: dict[str, Observed]) -> int:
    """Compare a seeded sample of the first checkpoints with the naive reader; returns the number of values."""
    rng = np.random.default_rng(13)
    until_us = JANUARY + 30 * EVERY_US
    compared = 0
    for view in rig.project.views:
        seen = observed[view.name]
        own = logged(rig, view.event, until_us)
        by_key: dict[tuple[object, ...], list[dict[str, object]]] = {}
        for row in own:
            by_key.setdefault(tuple(row[field] for field in view.key_fields), []).append(row)
        values = np.concatenate(seen.values)
        early = np.flatnonzero(np.array(seen.at_us) <= until_us)
        budget = 4_000_000  # events that the naive reader may look at, per view
        for row_index in rng.permutation(early):
            key, at_us = seen.keys[row_index], seen.at_us[row_index]
            events = [event for event in by_key[key] if event[view.event.time] < at_us]
            budget -= len(events)
            if budget < 0:
                break
            expected = naive(view, events, dict(zip(view.entity.keys, key, strict=True)), at_us)
            for name, got in zip(view.feature_names, values[row_index].tolist(), strict=True):
                wanted = expected[name]
                same = np.isnan(got) if wanted is None else got == wanted
                assert same, f"{view.name} {key} at {at_us}, {name}: oracle {wanted!r}, stream {got!r}"
                compared += 1
    return compared


def logged(rig: Rig, event: hr.Event, until_us: int) -> list[dict[str, object]]:
    """The events of the log up to a moment, with the partition and offset that order those of equal time."""
    frame = event_log(rig.loaded.settings, event).scan().collect().filter(pl.col(event.time) < until_us)
    return frame.sort("_partition", "_offset").to_dicts()
