"""Labels: outcomes joined to the requests that they belong to.

One request at t, horizon h, outcomes o of the same key::

    t ───────────────── t + h ──────────► event time of the outcome topic
    |   o₁       o₂       |     o₃      | newest
    └── the label is o₁: the first of those within [t, t + h]

Invariants:
    - a row whose horizon has not closed (t + h ≥ the newest outcome event in the log) is *open* and left out, also if its
      outcome has come already: keeping only the early outcomes would make the quick ones look frequent;
    - a closed row without an outcome is *missing*, and means what the label declares;
    - an outcome whose value is null is no outcome.

What must not live here: features, and reading logs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace_schemas.codecs import frame_columns
from headrace_schemas.tables import EVENT_TIME, OFFSET, PARTITION

_ROW, _VALUE, _AT = "_row", "_value", "_at_us"


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labels of some rows.

    Attributes:
        value: the label of each row; NaN where it is left out.
        keep: rows that belong into a dataset.
        open: how many rows are left out because their horizon has not closed.
        dropped: how many closed rows without an outcome are left out, as declared.
        filled: how many closed rows without an outcome got the declared value.
        newest_us: newest event time of the outcome log; None if it is empty.
    """

    value: NDArray[np.float64]
    keep: NDArray[np.bool_]
    open: int
    dropped: int
    filled: int
    newest_us: int | None


def join_labels(label: hr.Label, rows: pl.DataFrame, at_us: NDArray[np.int64], outcomes: pl.DataFrame) -> Labelled:
    """Join outcomes to rows.

    Args:
        label: what is learnt.
        rows: one row per request, with the request fields that the label joins on.
        at_us: time of each row.
        outcomes: events of the label's outcome event: its `columns` and the log's meta columns, in any order.

    O(n log n) in rows and outcomes.
    """
    newest = outcomes[EVENT_TIME].max()
    newest_us = int(newest) if isinstance(newest, int) else None
    closed = np.zeros(len(at_us), np.bool_) if newest_us is None else at_us + label.horizon_us < newest_us
    value = _first_within_horizon(label, rows, at_us, outcomes)
    missing = closed & np.isnan(value)
    filled = 0
    if label.missing != "drop":
        value[missing] = float(label.missing)
        filled = int(missing.sum())
    keep = closed & ~np.isnan(value)
    value[~keep] = np.nan
    return Labelled(value, keep, int((~closed).sum()), int(missing.sum()) - filled, filled, newest_us)


def _first_within_horizon(
    label: hr.Label, rows: pl.DataFrame, at_us: NDArray[np.int64], outcomes: pl.DataFrame
) -> NDArray[np.float64]:
    by = [f"_by{i}" for i in range(len(label.join))]
    asked = rows.select(pl.col(name).alias(key) for name, key in zip(label.join, by, strict=True)).with_columns(
        pl.Series(_AT, at_us, pl.Int64), pl.int_range(pl.len(), dtype=pl.Int64).alias(_ROW)
    )
    value = label.values(frame_columns(outcomes, label.event, label.columns))
    came = (
        outcomes.select(
            *(pl.col(name).alias(key) for name, key in zip(label.join.values(), by, strict=True)),
            pl.col(EVENT_TIME, PARTITION, OFFSET),
            pl.Series(_VALUE, value, pl.Float64),
        )
        .filter(pl.col(_VALUE).is_not_nan(), *(pl.col(key).is_not_null() for key in by))
        .sort(EVENT_TIME, PARTITION, OFFSET)
        .unique([*by, EVENT_TIME], keep="first", maintain_order=True)
    )
    joined = (
        asked.filter(pl.col(key).is_not_null() for key in by)
        .sort(_AT, _ROW)
        .join_asof(
            came, left_on=_AT, right_on=EVENT_TIME, by=by, strategy="forward", check_sortedness=False, coalesce=False
        )
        .filter(pl.col(EVENT_TIME) <= pl.col(_AT) + label.horizon_us)
    )
    found = np.full(len(at_us), np.nan)
    found[joined[_ROW].to_numpy()] = joined[_VALUE].to_numpy()
    return found
