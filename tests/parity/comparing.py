"""Values read from the online store along a replay, and the same values out of the log.

What may not live here: producing, serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace_schemas.keys import encode_key
from headrace_training.datasets import features_for_spine
from tests.parity.flights import Rig


@dataclass(slots=True)
class Observed:
    """What the online store answered: per view the spine (keys and times) and the values."""

    keys: list[tuple[str | int, ...]] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)
    values: list[npt.NDArray[np.float64]] = field(default_factory=list)
    forms: set[str] = field(default_factory=set)


def read_store(
    rig: Rig, view: hr.FeatureView, keys: Sequence[tuple[str | int, ...]], at_us: int, observed: Observed
) -> None:
    """Read some entities at one moment."""
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
