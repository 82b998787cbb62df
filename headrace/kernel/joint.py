"""Reading states: of one view, or of several at once, as a request needs them, in one call into compiled code.

What a call needs beside the states lies ready: for each thread a working area of each view, and their addresses in one table.
What may not live here: what reading means (`reading.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from headrace.kernel.batch import EventBatch
from headrace.kernel.codec import load_state
from headrace.kernel.compiling import entry
from headrace.kernel.engine import F64, I64, U8, fold_own
from headrace.kernel.memory import bytes_at, floats_at, item, pointer, words_at
from headrace.kernel.operations import own_columns, raise_on, working_area, writable
from headrace.kernel.reading import read_state
from headrace.layout import Layout
from headrace.program import OK, W_EXISTS, W_NEWEST_US
from headrace.states import States

NEVER: Final = -(1 << 63)

# The columns of the table: addresses, the first feature, and the widths of an own event.
_PROGRAM, _WORK, _BUFFER, _FIRST, _FIELDS, _FILTERS = 0, 1, 2, 3, 4, 5
_OWN, _SIZE = 6, 11  # from the sixth on: an own event's times, ids, values, masks, kept; no times, no own event


@dataclass(frozen=True, slots=True)
class JointRead:
    """What was read.

    Args:
        features: [rows, all features]: those of the first view, then those of the second ...; NaN is null.
        newest_us: [views, rows]: the newest event time of each state as it came; `NEVER` where there is none.
    """

    features: npt.NDArray[np.float64]
    newest_us: npt.NDArray[np.int64]


class JointReader:
    """Reads several views for the same rows.

    Args:
        layouts: of the views.

    Attributes:
        columns: for each view its columns among the features.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._layouts = tuple(layouts)
        ends = [0, *accumulate(layout.n_features for layout in self._layouts)]
        self.columns = tuple(slice(begin, end) for begin, end in pairwise(ends))
        self._width = ends[-1]
        self._areas = threading.local()

    def read(self, states: States, at_us: npt.NDArray[np.int64], own: Sequence[EventBatch | None] = ()) -> JointRead:
        """The features of all views, and how new the states are.

        Args:
            states: of the first view one per row, then of the second one per row, and so on.
            at_us: one moment per row.
            own: for each view the requests' own events, or None; see `read`. Nothing: None for all.

        Raises:
            CodecError: a state's bytes are broken or of another layout.
        """
        at_us = np.ascontiguousarray(at_us, dtype=np.int64)
        rows = len(at_us)
        if len(states) != rows * len(self._layouts):
            raise ValueError(f"{len(self._layouts)} views of {rows} rows need as many states, not {len(states)}")
        table = self._table()
        if any(batch is not None for batch in own):
            table = self._with_own(table, own, rows)
        features = np.empty((rows, self._width), dtype=np.float64)
        newest = np.empty((len(self._layouts), rows), dtype=np.int64)
        error, index = _read_views(table, writable(states.data), states.offsets, at_us, features, newest)
        if error != OK:
            raise_on(error, self._layouts[index // rows], states, index, index % rows)
        return JointRead(features, newest)

    def _table(self) -> npt.NDArray[np.int64]:
        """The table of this thread."""
        table: npt.NDArray[np.int64] | None = getattr(self._areas, "table", None)
        if table is None:
            areas = [working_area(layout) for layout in self._layouts]
            table = np.zeros((len(areas), _SIZE), np.int64)
            for row, (layout, area) in enumerate(zip(self._layouts, areas, strict=True)):
                table[row, _PROGRAM : _BUFFER + 1] = [_address(array) for array in area]
                table[row, _FIRST] = self.columns[row].start
                table[row, _FIELDS], table[row, _FILTERS] = len(layout.fields), len(layout.masks)
            self._areas.table, self._areas.kept = table, areas
        return table

    def _with_own(
        self, table: npt.NDArray[np.int64], own: Sequence[EventBatch | None], rows: int
    ) -> npt.NDArray[np.int64]:
        table = table.copy()
        for row, (layout, batch) in enumerate(zip(self._layouts, own, strict=True)):
            if batch is not None:
                table[row, _OWN:] = [_address(column) for column in own_columns(layout, batch, rows)]
        return table


def read(
    layout: Layout, states: States, at_us: npt.NDArray[np.int64], own: EventBatch | None = None
) -> npt.NDArray[np.float64]:
    """The features of each state at its moment; NaN is null.

    Args:
        layout: of the view.
        states: one per row.
        at_us: one per row.
        own: the requests' own events, one per row: each is folded into a copy first, as the last event of its time, unless its
            id came through the stream already.

    Raises:
        CodecError: a state's bytes are broken or of another layout.
    """
    return _reader(layout).read(states, at_us, (own,)).features


@lru_cache(maxsize=64)
def _reader(layout: Layout) -> JointReader:
    return JointReader([layout])


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@entry
def _read_views(table: I64, data: U8, offsets: I64, at_us: I64, features: F64, newest_us: I64) -> tuple[int, int]:
    """Read each view's states; returns (error, its state)."""
    source, target = pointer(data), pointer(features)
    rows, width = features.shape
    for view in range(len(table)):
        program, work = words_at(table[view, _PROGRAM]), words_at(table[view, _WORK])
        buffer, first = bytes_at(table[view, _BUFFER]), table[view, _FIRST]
        times, identities = words_at(table[view, _OWN]), words_at(table[view, _OWN + 1])
        values, masks = floats_at(table[view, _OWN + 2]), bytes_at(table[view, _OWN + 3])
        kept, fields, filters = bytes_at(table[view, _OWN + 4]), table[view, _FIELDS], table[view, _FILTERS]
        for row in range(rows):
            s = view * rows + row
            folds = table[view, _OWN] != 0 and kept[row] != 0
            error = load_state(program, work, buffer, source, offsets[s], offsets[s + 1], not folds)
            if error != OK:
                return error, s
            newest_us[view, row] = work[W_NEWEST_US] if work[W_EXISTS] != 0 else NEVER
            if folds:
                own_values, own_masks = item(values, row * fields), item(masks, row * filters)
                fold_own(program, work, buffer, times[row], identities[row], own_values, own_masks)
                read_state(program, work, buffer, at_us[row], target, row * width + first)
            else:
                read_state(program, work, source, at_us[row], target, row * width + first)
    return OK, 0
