"""No skew, on real data: stream, point-in-time dataset, naive oracle and served values of the flights are one and the same.

Checkpoints cut the year. At each, everything before it has been produced and committed, and nothing after it:

    produced     |=========|=========|=========|
    read at                c1        c2        c3

so at a checkpoint the online store must hold, bit for bit, what the event-time sweep of the log says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace.oracle import naive
from headrace_schemas.keys import encode_key
from headrace_schemas.stores.log import event_log
from headrace_training.datasets import features_for_spine
from tests.parity.flights import Produced, Rig, entity_keys, records
from tests.services import Services

JANUARY = 1_356_998_400_000_000
DAY = 86_400_000_000
CHECKPOINTS = 150
EVERY_US = 365 * DAY // CHECKPOINTS
SMALL_CACHE_KB = "64"  # far below what the entities need, so states are evicted and read again


@dataclass(slots=True)
class Observed:
    """What the online store answered: per view the spine (keys and times) and the values."""

    keys: list[tuple[str | int, ...]] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)
    values: list[npt.NDArray[np.float64]] = field(default_factory=list)
    forms: set[str] = field(default_factory=set)


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
                read_store(rig, view, span, at_us, observed[view.name])
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


def read_store(rig: Rig, view: hr.FeatureView, span: list[Produced], at_us: int, observed: Observed) -> None:
    """Read the entities that the span touched."""
    keys = entity_keys(view, span)
    states = rig.reader.states(view, [encode_key(key) for key in keys])
    observed.keys += keys
    observed.at_us += [at_us] * len(keys)
    observed.values.append(kernel.read(Layout.of(view), states, np.full(len(keys), at_us, np.int64)))
    observed.forms |= {kernel.header(states[i]).form for i in range(0, len(keys), 7) if states[i]}


def compare_with_dataset(rig: Rig, view: hr.FeatureView, observed: Observed) -> tuple[int, int]:
    """Compare bit for bit; returns values compared, and those of them that are not an empty window's."""
    columns = list(zip(*observed.keys, strict=True))
    spine = pl.DataFrame(
        {
            **{key: list(column) for key, column in zip(view.entity.keys, columns, strict=True)},
            "at": observed.at_us,
        }
    )
    dataset = features_for_spine(rig.loaded, [view], spine)
    swept = np.ascontiguousarray(dataset.frame.select(f"{view.name}__{name}" for name in view.feature_names).to_numpy())
    streamed = np.concatenate(observed.values)
    assert swept.shape == streamed.shape
    differing = swept.view(np.int64) != streamed.view(np.int64)
    assert not differing.any(), first_difference(view, observed, swept, streamed, differing)
    return streamed.size, int(np.count_nonzero(~np.isnan(streamed) & (streamed != 0)))


def first_difference(
    view: hr.FeatureView,
    observed: Observed,
    expected: npt.NDArray[np.float64],
    got: npt.NDArray[np.float64],
    differing: npt.NDArray[np.bool_],
) -> str:
    row, column = (int(index[0]) for index in np.nonzero(differing))
    return (
        f"{np.count_nonzero(differing)} of {got.size} values of {view.name} differ; the first: {observed.keys[row]} at "
        f"{observed.at_us[row]}, {view.feature_names[column]}: expected {expected[row, column]!r}, got {got[row, column]!r}"
    )


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
