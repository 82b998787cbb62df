"""Outcomes are joined within the horizon; what is not known is left out, and never called negative."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace_training.labels import join_labels

HOUR = 3_600_000_000

arrivals = hr.Event(
    "arrivals",
    fields={"flight": hr.string(), "leg": hr.int64(), "at": hr.timestamp(), "delay": hr.float64(nullable=True)},
    time="at",
)


def label(missing="drop", horizon="24h"):
    return hr.Label(
        "late", arrivals, join={"flight_id": "flight", "leg": "leg"}, value=hr.col("delay") > 30, horizon=horizon,
        missing=missing,
    )  # fmt: skip


def outcomes(rows):
    """(flight, leg, hours, delay[, partition, offset])."""
    full = [(*row, 0, i) if len(row) == 4 else row for i, row in enumerate(rows)]
    return pl.DataFrame(
        {
            "flight": [r[0] for r in full],
            "leg": [r[1] for r in full],
            "at": [int(r[2] * HOUR) for r in full],
            "delay": [r[3] for r in full],
            "_event_time_us": [int(r[2] * HOUR) for r in full],
            "_partition": [r[4] for r in full],
            "_offset": [r[5] for r in full],
        },
        schema={
            "flight": pl.String, "leg": pl.Int64, "at": pl.Int64, "delay": pl.Float64, "_event_time_us": pl.Int64,
            "_partition": pl.Int32, "_offset": pl.Int64,
        },
    )  # fmt: skip


def requests(rows):
    frame = pl.DataFrame(
        {"flight_id": [r[0] for r in rows], "leg": [r[1] for r in rows]},
        schema={"flight_id": pl.String, "leg": pl.Int64},
    )
    return frame, np.array([int(r[2] * HOUR) for r in rows], np.int64)


def test_the_first_outcome_within_the_horizon_is_the_label():
    """Flight A: at 1 h before it, at 5 h on time, at 6 h late. Flight B: only 25 h after its request."""
    came = outcomes([("A", 1, 1, 99), ("A", 1, 6, 99), ("A", 1, 5, 0), ("B", 1, 27.5, 99), ("Z", 1, 90, 0)])
    found = join_labels(label(), *requests([("A", 1, 2), ("B", 1, 2)]), came)
    assert found.value[0] == 0.0
    assert np.isnan(found.value[1])
    assert (found.keep.tolist(), found.open, found.dropped, found.filled) == ([True, False], 0, 1, 0)


def test_an_outcome_exactly_at_the_horizon_counts_and_one_microsecond_later_does_not():
    came = outcomes([("A", 1, 24, 99), ("B", 1, 24 + 1 / HOUR, 99), ("Z", 1, 90, 0)])
    found = join_labels(label(missing=0.0), *requests([("A", 1, 0), ("B", 1, 0)]), came)
    assert found.value.tolist() == [1.0, 0.0]
    assert found.filled == 1


def test_an_open_horizon_is_left_out_even_if_its_outcome_came():
    """The newest outcome is at 30 h: a request at 6 h closes at 30 h, which is not yet past."""
    came = outcomes([("A", 1, 7, 99), ("B", 1, 7, 99), ("Z", 1, 30, 0)])
    found = join_labels(label(missing=0.0), *requests([("A", 1, 5.9), ("B", 1, 6)]), came)
    assert found.keep.tolist() == [True, False]
    assert (found.open, found.filled, found.newest_us) == (1, 0, 30 * HOUR)


def test_a_null_outcome_is_no_outcome():
    came = outcomes([("A", 1, 3, None), ("A", 1, 4, 40.0), ("B", 1, 3, None), ("Z", 1, 90, 0)])
    found = join_labels(label(), *requests([("A", 1, 2), ("B", 1, 2)]), came)
    assert found.value[0] == 1.0
    assert found.dropped == 1


def test_every_join_field_has_to_agree():
    came = outcomes([("A", 2, 3, 99), ("Z", 1, 90, 0)])
    assert join_labels(label(), *requests([("A", 1, 2)]), came).dropped == 1


def test_an_empty_outcome_log_leaves_every_row_open():
    found = join_labels(label(missing=0.0), *requests([("A", 1, 2)]), outcomes([]))
    assert (found.open, found.keep.tolist(), found.newest_us) == (1, [False], None)


def naive(frame, at_us, came, horizon_us, missing):
    newest = max(came["_event_time_us"].to_list(), default=-(10**18))
    values = []
    for flight, leg, t in zip(frame["flight_id"], frame["leg"], at_us.tolist(), strict=True):
        mine = [
            r for r in came.iter_rows(named=True)
            if (r["flight"], r["leg"]) == (flight, leg) and t <= r["at"] <= t + horizon_us and r["delay"] is not None
        ]  # fmt: skip
        mine.sort(key=lambda r: (r["at"], r["_partition"], r["_offset"]))
        if t + horizon_us >= newest:
            values.append(None)
        elif mine:
            values.append(float(mine[0]["delay"] > 30))
        else:
            values.append(None if missing == "drop" else missing)
    return values


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 30), st.sampled_from(["drop", 0.0]))
@settings(deadline=None, max_examples=150)
def test_the_join_equals_a_loop_over_rows_and_outcomes(seed, count, asked, missing):
    r = np.random.default_rng(seed)
    came = outcomes(
        [
            (str(r.choice(["A", "B"])), int(r.integers(0, 2)), float(r.integers(0, 12)),
             None if r.random() < 0.2 else float(r.integers(0, 60)), int(r.integers(0, 3)), i)
            for i in range(count)
        ]
    )  # fmt: skip
    frame, at_us = requests(
        [(str(r.choice(["A", "B", "C"])), int(r.integers(0, 2)), float(r.integers(0, 12))) for _ in range(asked)]
    )
    found = join_labels(label(missing, "4h"), frame, at_us, came)
    expected = naive(frame, at_us, came, 4 * HOUR, missing)
    assert [None if np.isnan(v) else v for v in found.value.tolist()] == expected
    assert found.keep.tolist() == [v is not None for v in expected]
    assert found.open + found.dropped + int(found.keep.sum()) == asked


def test_a_regression_label_is_a_number():
    minutes = hr.Label(
        "minutes", arrivals, join={"flight_id": "flight"}, value=hr.col("delay") / 60, horizon="1h", missing="drop"
    )
    found = join_labels(minutes, *requests([("A", 1, 2)]), outcomes([("A", 1, 2.5, 90.0), ("Z", 1, 9, 0)]))
    assert found.value.tolist() == pytest.approx([1.5])
