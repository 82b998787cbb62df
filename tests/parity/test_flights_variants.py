"""No skew under disorder and under any partitioning, on real flights.

Disorder: most events arrive in event-time order; some are late by minutes, hours or days, beyond every window of a view, and some
arrive twice. Partitions: the same events over 1, 2 and 5 partitions are the same features; only where several events have one and
the same time may partition and offset decide which of them is the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace_training.auditing import audit
from headrace_training.training import train
from tests.parity.comparing import Observed, compare_with_dataset, read_store
from tests.parity.flights import Produced, Rig, entity_keys, journal, records
from tests.parity.live import MODEL, ask, serve, wait_predictions
from tests.services import Services

JANUARY = 1_356_998_400_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SEED = 20130101
PARTITIONS = (1, 2, 5)

# --- disorder -------------------------------------------------------------------------------------------------------------

LIVE_FROM = JANUARY + 12 * DAY
LIVE_UNTIL = LIVE_FROM + DAY
LATE_SHARE, REPEATED_SHARE = 0.15, 0.05


@pytest.mark.timeout(500)
def test_disorder_changes_neither_audit_nor_features(shared_services: Services, tmp_path: Path) -> None:
    """Late and repeated events, before and in the live span: the audit is clean, and the last states equal the sweep of the log."""
    with Rig(shared_services, tmp_path, f"disorder-{shared_services.name}") as rig:
        arriving, late, repeated = disturbed(records(rig.project, JANUARY, LIVE_UNTIL))
        history = [record for record in arriving if record[1] < LIVE_FROM]
        worker = rig.start("stream")
        rig.start("log")
        rig.produce(history)
        rig.wait_committed(alive=worker)
        rig.wait_logged()
        train(rig.loaded, MODEL, created_at=datetime(2013, 1, 13, tzinfo=UTC), promote="always")
        served = ask(rig, serve(rig), arriving[len(history) :])
        rig.wait_logged()
        wait_predictions(rig, len(served))
        report = audit(rig.loaded, MODEL, answered=len(served))
        assert (report.answered, report.logged, report.audited) == (len(served),) * 3
        assert report.differences == 0, report.first
        compared = sum(
            compare_with_dataset(rig, view, final_states(rig, view, arriving, LIVE_UNTIL))[0]
            for view in rig.project.views
        )
        worker.stop()
        folded = journal(rig, "stream", "folded")
    too_late, duplicates = (sum(note[name] for note in folded) for name in ("too_late", "duplicates"))
    print(
        f"\ndisorder on {shared_services.name}: {len(arriving):,} events, {late:,} late, {repeated:,} repeated; over the views "
        f"{too_late:,} too late, {duplicates:,} duplicates; {report.values:,} audited and {compared:,} read values equal"
    )
    assert late >= 0.1 * len(arriving)
    assert too_late >= 50
    twice = {view.name: sum(record[0] == view.event.name for record in arriving) for view in rig.project.views}
    assert {note["view"]: note["rows"] for note in folded} == twice
    assert duplicates >= 2 * repeated  # two views read the departures, three the arrivals
    assert report.values >= 10_000
    assert compared >= 50_000


def disturbed(produced: list[Produced]) -> tuple[list[Produced], int, int]:
    """Records in order of a new arrival, which takes the place of their time; how many are late; how many come twice."""
    rng = np.random.default_rng(SEED)
    kind = rng.random(len(produced))
    delay_us = (MINUTE * np.exp(rng.uniform(0.0, np.log(10 * 24 * 60), len(produced)))).astype(np.int64)
    again_us = (MINUTE * rng.uniform(1.0, 10.0, len(produced))).astype(np.int64)
    late, repeated = kind < LATE_SHARE, kind > 1.0 - REPEATED_SHARE
    arriving: list[Produced] = []
    for i, (name, at_us, row) in enumerate(produced):
        first_us = min(at_us + int(delay_us[i]) * bool(late[i]), LIVE_UNTIL - 1)
        arriving.append((name, first_us, row))
        if repeated[i]:
            arriving.append((name, min(first_us + int(again_us[i]), LIVE_UNTIL - 1), row))
    arriving.sort(key=lambda record: record[1])
    return arriving, int(late.sum()), int(repeated.sum())


def final_states(rig: Rig, view: hr.FeatureView, produced: Iterable[Produced], end_us: int) -> Observed:
    """Every entity's features at the end and as time passes without events."""
    observed, keys = Observed(), entity_keys(view, produced)
    for after_us in (0, HOUR, 6 * HOUR, DAY, 7 * DAY):
        read_store(rig, view, keys, end_us + after_us, observed)
    return observed


# --- partitions -----------------------------------------------------------------------------------------------------------

SPAN = 20 * DAY
EVERY = 2 * HOUR
ORDERED_BY_PLACE = ("temp", "wind", "pressure")  # names of features of first and last begin so


@pytest.mark.timeout(500)
def test_partitioning_changes_only_what_is_last_among_equal_times(shared_services: Services, tmp_path: Path) -> None:
    """Each partitioning equals its own dataset; across them only `first` and `last` of events of one moment differ."""
    seen: dict[int, dict[str, Observed]] = {}
    tied: set[tuple[str, int]] = set()
    compared = 0
    for partitions in PARTITIONS:
        name = f"parts{partitions}-{shared_services.name}"
        with Rig(shared_services, tmp_path / name, name, partitions=partitions) as rig:
            worker = rig.start("stream")
            rig.start("log")
            produced = with_ties(records(rig.project, JANUARY, JANUARY + SPAN))
            tied = {(row["origin"], at_us) for _, at_us, row in produced if str(row.get("report_id")).endswith("+")}
            seen[partitions] = {view.name: Observed() for view in rig.project.views}
            for at_us in range(JANUARY + EVERY, JANUARY + SPAN + 1, EVERY):
                span = [record for record in produced if at_us - EVERY <= record[1] < at_us]
                rig.produce(span)
                rig.wait_committed(alive=worker)
                for view in rig.project.views:
                    if keys := entity_keys(view, span):
                        read_store(rig, view, keys, at_us, seen[partitions][view.name])
            rig.wait_logged()
            for view in rig.project.views:
                compared += compare_with_dataset(rig, view, seen[partitions][view.name])[0]
            used = {len(ends) for ends in rig.ends.values()}
            assert used == {partitions}, rig.ends
            columns = {view.name: view.feature_names for view in rig.project.views}
    across = differing = 0
    for others in PARTITIONS[1:]:
        for view_name, names in columns.items():
            one, other = seen[PARTITIONS[0]][view_name], seen[others][view_name]
            assert (one.keys, one.at_us) == (other.keys, other.at_us)
            first, second = (np.concatenate(each.values).view(np.int64) for each in (one, other))
            across += first.size
            for row, column in zip(*np.nonzero(first != second), strict=True):
                differing += 1
                (airport,), at_us = one.keys[row], one.at_us[row]
                place = (view_name, names[column], airport, at_us)
                assert view_name == "origin_weather", place
                assert names[column].startswith(ORDERED_BY_PLACE), place
                assert any(origin == airport and 0 < at_us - moment <= 8 * HOUR for origin, moment in tied)
    print(
        f"\npartitions {PARTITIONS} on {shared_services.name}: {compared:,} values equal their datasets; {across:,} compared across, "
        f"{differing:,} differ, all of them first or last among reports of one moment ({len(tied)} such moments)"
    )
    assert compared >= 100_000
    assert 0 < differing < 0.05 * across


def with_ties(produced: list[Produced]) -> list[Produced]:
    """A second weather report, other in all that `first` and `last` show, at the moment of every tenth one."""
    reports = [record for record in produced if record[0] == "weather" and record[2]["temp"] is not None]
    second = [
        (name, at_us, row | _other(row)) for name, at_us, row in reports[::10] if row["pressure"] and row["wind_speed"]
    ]
    return sorted(produced + second, key=lambda record: record[1])


def _other(row: dict[str, object]) -> dict[str, object]:
    shifted = {"temp": 7.0, "wind_speed": 3.0, "pressure": 1.5}
    return {"report_id": f"{row['report_id']}+", **{name: float(str(row[name])) + by for name, by in shifted.items()}}
