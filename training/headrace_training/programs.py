"""Step programs: in which order a sweep folds events and reads rows, for each notion of "knowable".

A program is a list of steps sorted by entity. Step kinds are the kernel's: FOLD the next event, READ the next row. Events
and rows are handed to the kernel already permuted into step order, so that memory is read and written from front to back.

Event time, one entity (events a…d, rows x, y; lag 0)::

    time      10   20   20   30   40
              a    x    b    c    y         b happens at x's own moment: not strictly earlier, so x does not see it
    steps     a    x    b    c    y

As served, one entity (vectors are included offsets by partition)::

    x saw {0: 4},  y saw {0: 6, 1: 2}   →   partition 0 up to 4 · x · partition 0 up to 6, partition 1 up to 2 · y

Each row continues the state of the row before it. Where that is impossible, because a store went back in time, the entity
starts again from nothing under a new chain number; the values are exact either way.

What must not live here: states, features, frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., Any])

FOLD, READ = 0, 1


@dataclass(frozen=True, slots=True)
class Program:
    """Steps for a sweep.

    Attributes:
        events: number of the event that each FOLD takes, in step order; an event may come several times or never.
        rows: number of the row that each READ fills, in step order; every row comes once.
        slot: chain of each step (an entity, or one of its restarts), ascending.
        kind: FOLD or READ of each step.
        index: position of each step in `events` or in `rows`.
    """

    events: Int64
    rows: Int64
    slot: Int32
    kind: UInt8
    index: Int64

    def __len__(self) -> int:
        return len(self.kind)


def by_event_time(
    event_slot: Int32, event_us: Int64, row_slot: Int32, row_us: Int64, *, slots: int, lag_us: int = 0
) -> Program:
    """A row sees an event if the event is strictly earlier, by more than the lag: event time + lag < row time.

    O(events + rows) where both come roughly in time order, as logs do. Events of one moment keep their order.

    Args:
        event_slot: entity number of each event.
        event_us: event time of each event.
        row_slot: entity number of each row.
        row_us: moment of each row.
        slots: how many entities there are.
        lag_us: how long after its time an event becomes knowable.

    >>> p = by_event_time(np.zeros(3, "i4"), np.array([30, 10, 20]), np.zeros(2, "i4"), np.array([20, 40]), slots=1)
    >>> p.events.tolist(), p.rows.tolist(), p.kind.tolist()
    ([1, 2, 0], [0, 1], [0, 1, 0, 0, 1])
    """
    events, event_start, event_us = _by_slot(_order(event_us), event_slot, event_us, slots)
    rows, row_start, row_us = _by_slot(_order(row_us), row_slot, row_us, slots)
    return Program(*_merge(events, event_start, event_us + lag_us, rows, row_start, row_us))


class Vectors(NamedTuple):
    """Included offsets of many states, one behind the other: state i has entries start[i] … start[i + 1]."""

    start: Int64
    partition: Int32
    offset: Int64


def by_offsets(
    event_slot: Int32, event_partition: Int32, event_offset: Int64, row_slot: Int32, seen: Vectors, *, slots: int
) -> Program:
    """A row sees exactly the events at or below its vector's offset of their partition.

    O((events + rows) log events). Rows of one entity are put in the order in which their states grew.

    Args:
        event_slot: entity number of each event.
        event_partition: Kafka partition of each event.
        event_offset: Kafka offset of each event.
        row_slot: entity number of each row.
        seen: the vector of each row; a row without entries sees nothing.
        slots: how many entities there are.

    >>> seen = Vectors(np.array([0, 1, 2]), np.zeros(2, "i4"), np.array([7, 5]))
    >>> p = by_offsets(np.zeros(3, "i4"), np.zeros(3, "i4"), np.array([5, 6, 9]), np.zeros(2, "i4"), seen, slots=1)
    >>> p.events.tolist(), p.rows.tolist(), p.kind.tolist()
    ([0, 1], [1, 0], [0, 1, 0, 1])
    """
    events, event_start, offsets = _by_slot(
        np.lexsort((event_offset, event_partition)), event_slot, event_offset, slots
    )
    # Along a growing state the sum of its offsets grows, so sorting by the sum finds the chain.
    total = np.concatenate([[0], np.cumsum(seen.offset + 1)])
    weight = total[seen.start[1:]] - total[seen.start[:-1]]
    rows, row_start, _ = _by_slot(np.argsort(weight, kind="stable"), row_slot, weight, slots)
    log = _Arranged(event_partition[events], offsets, event_start, rows, row_start)
    partitions = 1 + int(max(event_partition.max(initial=-1), seen.partition.max(initial=-1)))
    folds, steps = _walk(log, seen, partitions, *_steps(0, 0))
    picked, slot, kind, index = filled = _steps(folds, steps)
    _walk(log, seen, partitions, *filled)
    return Program(events[picked], rows, slot, kind, index)


def _steps(folds: int, steps: int) -> tuple[Int64, Int32, UInt8, Int64]:
    return np.empty(folds, np.int64), np.empty(steps, np.int32), np.empty(steps, np.uint8), np.empty(steps, np.int64)


class _Arranged(NamedTuple):
    """Events by (entity, partition, offset) and rows by (entity, growth); where each entity's begin."""

    partition: Int32
    offset: Int64
    event_start: Int64
    rows: Int64
    row_start: Int64


def _compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@_compiled
def scatter(values: Floats, rows: Int64, result: Floats) -> None:
    """``result[rows] = values`` for whole rows, without numpy's cost per row."""
    for i in range(len(rows)):
        for j in range(values.shape[1]):
            result[rows[i], j] = values[i, j]


def divide(program: Program, parts: int) -> list[tuple[slice, slice, slice]]:
    """Cut a program between entities into about equal parts: (steps, its events, its rows) of each.

    >>> p = by_event_time(np.array([0, 1], "i4"), np.array([1, 2]), np.array([0, 1], "i4"), np.array([5, 5]), slots=2)
    >>> divide(p, 2)
    [(slice(0, 2, None), slice(0, 1, None), slice(0, 1, None)), (slice(2, 4, None), slice(1, 2, None), slice(1, 2, None))]
    """
    steps = len(program)
    if not steps:
        return []
    first = np.flatnonzero(np.diff(program.slot, prepend=np.int32(-1)))
    wanted = np.linspace(0, steps, max(1, parts) + 1).astype(np.int64)[1:-1]
    cuts = np.unique(np.concatenate([[0], np.append(first, steps)[np.searchsorted(first, wanted)], [steps]]))
    reads = np.concatenate([[0], np.cumsum(program.kind, dtype=np.int64)])
    return [
        (slice(a, b), slice(a - int(reads[a]), b - int(reads[b])), slice(int(reads[a]), int(reads[b])))
        for a, b in pairwise(cuts.tolist())
    ]


def _order(time_us: Int64) -> Int64:
    if (time_us[1:] >= time_us[:-1]).all():
        return np.arange(len(time_us))
    # A stable sort of what is nearly in order takes little more than one pass.
    return np.argsort(time_us, kind="stable")


def _by_slot(order: Int64, slot: Int32, value: Int64, slots: int) -> tuple[Int64, Int64, Int64]:
    contiguous = (np.ascontiguousarray(order, np.int64), np.ascontiguousarray(slot, np.int32))
    return _counting_sort(*contiguous, np.ascontiguousarray(value, np.int64), slots)


@_compiled
def _counting_sort(order: Int64, slot: Int32, value: Int64, slots: int) -> tuple[Int64, Int64, Int64]:
    """Numbers by slot in the given order, where each slot begins, and the values in that arrangement."""
    start = np.zeros(slots + 1, np.int64)
    for s in slot:
        start[s + 1] += 1
    for s in range(slots):
        start[s + 1] += start[s]
    place = start[:-1].copy()
    arranged, values = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    for i in order:
        s = slot[i]
        arranged[place[s]] = i
        values[place[s]] = value[i]
        place[s] += 1
    return arranged, start, values


@_compiled
def _merge(
    events: Int64, event_start: Int64, knowable_us: Int64, rows: Int64, row_start: Int64, row_us: Int64
) -> tuple[Int64, Int64, Int32, UInt8, Int64]:
    picked = np.empty(len(events), np.int64)
    slot = np.empty(len(events) + len(rows), np.int32)
    kind = np.empty(len(events) + len(rows), np.uint8)
    index = np.empty(len(events) + len(rows), np.int64)
    folds = reads = steps = 0
    for s in range(len(row_start) - 1):
        e = event_start[s]
        for r in range(row_start[s], row_start[s + 1]):
            while e < event_start[s + 1] and knowable_us[e] < row_us[r]:
                picked[folds] = events[e]
                slot[steps] = s
                kind[steps] = FOLD
                index[steps] = folds
                folds += 1
                steps += 1
                e += 1
            slot[steps] = s
            kind[steps] = READ
            index[steps] = reads
            reads += 1
            steps += 1
        # Events after an entity's last row are seen by nobody.
    return picked[:folds].copy(), rows, slot[:steps].copy(), kind[:steps].copy(), index[:steps].copy()


@_compiled
def _behind(log: _Arranged, entity: int, partition: int, offset: int) -> int:
    """The first event of an entity that lies behind (partition, offset); a binary search."""
    low, high = int(log.event_start[entity]), int(log.event_start[entity + 1])
    while low < high:
        middle = (low + high) // 2
        p = log.partition[middle]
        if p > partition or (p == partition and log.offset[middle] > offset):
            high = middle
        else:
            low = middle + 1
    return low


@_compiled
def _continues(
    log: _Arranged, seen: Vectors, entity: int, row: int, at: Int64, met: UInt8, partitions_met: int
) -> bool:
    """Whether a row's vector includes all that its chain has folded: no partition fell back, and none is missing."""
    present = 0
    for v in range(seen.start[row], seen.start[row + 1]):
        p = seen.partition[v]
        if met[p]:
            present += 1
            if _behind(log, entity, p, seen.offset[v]) < at[p]:
                return False
    return present == partitions_met


@_compiled
def _walk(
    log: _Arranged, seen: Vectors, partitions: int, picked: Int64, slot: Int32, kind: UInt8, index: Int64
) -> tuple[int, int]:
    """Walk all rows in order; writes steps into arrays that are not empty, and returns (folds, steps)."""
    writing = len(kind) > 0
    at = np.zeros(partitions, np.int64)  # by partition: the first event that the chain has not folded
    met = np.zeros(partitions, np.uint8)  # by partition: whether the chain has folded up to an offset of it
    partitions_met = folds = steps = 0
    chain = -1
    for entity in range(len(log.row_start) - 1):
        for k in range(log.row_start[entity], log.row_start[entity + 1]):
            row = log.rows[k]
            begins = k == log.row_start[entity]
            if begins or not _continues(log, seen, entity, row, at, met, partitions_met):
                met[:] = 0
                partitions_met = 0
                chain += 1
            for v in range(seen.start[row], seen.start[row + 1]):
                p = seen.partition[v]
                if not met[p]:
                    met[p] = 1
                    partitions_met += 1
                    at[p] = _behind(log, entity, p, -1)
                end = _behind(log, entity, p, seen.offset[v])
                for e in range(at[p], end):
                    if writing:
                        picked[folds] = e
                        slot[steps] = chain
                        kind[steps] = FOLD
                        index[steps] = folds
                    folds += 1
                    steps += 1
                at[p] = end
            if writing:
                slot[steps] = chain
                kind[steps] = READ
                index[steps] = k
            steps += 1
    return folds, steps
