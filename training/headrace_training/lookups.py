"""Lookups in the past: the features of a view as they were for given entities, each at its own moment.

One sweep per view: its log is divided by entity (``buckets``), events and reads of each entity are brought into an order by a
notion of "knowable" (``programs``), and the kernel folds and reads along it: O(events + reads), on all cores, with the very
functions that the stream and the service use.

What must not live here: what is read for which model (``datasets``), and what is done with the values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace import kernel
from headrace.kernel import EventBatch
from headrace.layout import Layout
from headrace_schemas.codecs import frame_columns
from headrace_schemas.keys import encode_keys
from headrace_schemas.tables import EVENT_TIME, OFFSET, PARTITION
from headrace_training import buckets
from headrace_training.programs import READ, Program, Vectors, by_event_time, by_offsets, divide, scatter
from headrace_training.progress import Counter, Progress, silent
from headrace_training.repeats import repeated_folds

PART_STEPS = 500_000
"""Steps that are swept at once: bounds temporary arrays, and is how often progress is told."""

Floats = NDArray[np.float64]
ID_HASH = "_id_hash"


@dataclass(frozen=True, slots=True)
class Effort:
    """How a sweep uses the machine.

    Args:
        threads: how many entities' ranges are swept at once; 0 takes all cores.
        bucket_events: how many events of a log are in memory at once.
        progress: who is told.
    """

    threads: int = 0
    bucket_events: int = buckets.BUCKET_EVENTS
    progress: Progress = field(default=silent)

    @property
    def workers(self) -> int:
        """The number of threads."""
        return self.threads or os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class PackedKeys:
    """Entity keys, one behind the other, as `headrace_schemas.keys.encode_keys` packs them."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, frame: pl.DataFrame, fields: tuple[str, ...]) -> PackedKeys:
        """The keys in some columns of a frame."""
        return cls(*encode_keys(frame, fields))

    @classmethod
    def join(cls, parts: list[PackedKeys]) -> PackedKeys:
        """Several packs as one."""
        shift = np.cumsum([0, *(int(part.offsets[-1]) for part in parts)])
        offsets = [part.offsets[1:] + by for part, by in zip(parts, shift, strict=False)]
        return cls(np.concatenate([part.data for part in parts]), np.concatenate([np.zeros(1, np.int64), *offsets]))

    def take(self, rows: NDArray[np.int64]) -> PackedKeys:
        """Some of the keys."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return PackedKeys(self.data[source], offsets)


@dataclass(frozen=True, slots=True)
class Reads:
    """What is to be read of one view, one row each.

    Attributes:
        keys: whose state.
        at_us: at which moment.
        own: the request's own event, folded virtually before the read; rows that fold nothing have `kept` 0.
        seen: as served: the included offsets of the state that was read; None for event time.
    """

    keys: PackedKeys
    at_us: NDArray[np.int64]
    own: EventBatch | None = None
    seen: Vectors | None = None

    def __len__(self) -> int:
        return len(self.at_us)

    def take(self, rows: NDArray[np.int64]) -> Reads:
        """Some of the rows."""
        own = None if self.own is None else self.own.take(rows)
        seen = None if self.seen is None else take_vectors(self.seen, rows)
        return Reads(self.keys.take(rows), self.at_us[rows], own, seen)


def read_past(
    view: hr.FeatureView, log: pl.LazyFrame, reads: Reads, *, lag_us: int = 0, effort: Effort | None = None
) -> Floats:
    """The features of a view, for each read: float64 [reads, features of the view].

    Args:
        view: the view.
        log: the log of its event.
        reads: what to read.
        lag_us: event time only: how long after its time an event becomes knowable.
        effort: how to use the machine.
    """
    effort = effort or Effort()
    result = np.empty((len(reads), len(view.feature_names)))
    if not len(reads):
        return result
    events = _needed(view, log, reads, lag_us)
    # Without the filter: a count that comes from the files' footers, and bounds the filtered one.
    total = int(log.select(pl.len()).collect().item())
    count = buckets.count_buckets(total, effort.bucket_events)
    counter = Counter(effort.progress, f"view {view.name}", len(reads))
    for rows, frame in _buckets(view, events, reads, count):
        part = reads if rows is None else reads.take(rows)
        values = _sweep(view, frame, part, lag_us, effort, counter)
        result[slice(None) if rows is None else rows] = values
    return result


def _needed(view: hr.FeatureView, log: pl.LazyFrame, reads: Reads, lag_us: int) -> pl.LazyFrame:
    columns = dict.fromkeys([*view.key_fields, *view.columns, PARTITION, OFFSET, EVENT_TIME, ID_HASH])
    events = log.select(*columns)
    if reads.seen is None:
        return events.filter(pl.col(EVENT_TIME) + lag_us < int(reads.at_us.max()))
    return events.filter(pl.col(OFFSET) <= int(reads.seen.offset.max(initial=-1)))


def _buckets(
    view: hr.FeatureView, events: pl.LazyFrame, reads: Reads, count: int
) -> Iterator[tuple[NDArray[np.int64] | None, pl.DataFrame]]:
    if count == 1:
        for _, frame in buckets.divide_log(events, view.key_fields, 1):
            yield None, frame
        return
    place = buckets.bucket_of(reads.keys.data, reads.keys.offsets, count)
    for bucket, frame in buckets.divide_log(events, view.key_fields, count):
        rows = np.flatnonzero(place == bucket)
        if len(rows):
            yield rows, frame


def _sweep(
    view: hr.FeatureView, frame: pl.DataFrame, reads: Reads, lag_us: int, effort: Effort, counter: Counter
) -> Floats:
    layout = Layout.of(view)
    events = event_batch(layout, frame)
    groups = kernel.group_keys(*_packed(PackedKeys.join([PackedKeys.of(frame, view.key_fields), reads.keys])))
    slots = len(groups.first)
    event_slot, row_slot = groups.slot[: len(frame)], groups.slot[len(frame) :]
    if reads.seen is None:
        program = by_event_time(event_slot, events.time_us, row_slot, reads.at_us, slots=slots, lag_us=lag_us)
    else:
        program = by_offsets(event_slot, events.partition, events.offset, row_slot, reads.seen, slots=slots)
    skipped = repeated_folds(layout, program, events, event_slot)
    return run(layout, program, events, reads, effort, counter, skipped)


def _packed(keys: PackedKeys) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return keys.data, keys.offsets


def event_batch(layout: Layout, frame: pl.DataFrame) -> EventBatch:
    """Logged events of a view as the kernel takes them."""
    view = layout.view
    return kernel.prepare(
        layout,
        frame_columns(frame, view.event, view.columns),
        partition=frame[PARTITION].to_numpy(),
        offset=frame[OFFSET].to_numpy(),
        id_hash=frame[ID_HASH].to_numpy(),
    )


def run(
    layout: Layout,
    program: Program,
    events: EventBatch,
    reads: Reads,
    effort: Effort,
    counter: Counter,
    skipped: NDArray[np.bool_] | None,
) -> Floats:
    """Run a step program: the features of each read. Threads write to different rows, and share what they read."""
    result = np.empty((len(reads), layout.n_features))
    take = events.take if reads.own is not None or layout.orders_events else events.take_values

    def part(steps: slice, folds: slice, rows: slice) -> None:
        kind, numbers = program.kind[steps], program.rows[rows]
        index = program.index[steps] - np.where(kind == READ, rows.start, folds.start)
        own = None if reads.own is None else reads.own.take(numbers)
        folded = take(program.events[folds])
        if skipped is not None:
            folded = replace(folded, kept=folded.kept & ~skipped[folds])
        # Rows are read in step order and scattered afterwards: a third faster than writing each to its place at once.
        scatter(
            kernel.sweep(layout, folded, reads.at_us[numbers], own, program.slot[steps], kind, index), numbers, result
        )
        counter.add(len(numbers))

    parts = divide(program, max(4 * effort.workers, len(program) // PART_STEPS))
    if effort.workers == 1:
        for piece in parts:
            part(*piece)
        return result
    with ThreadPoolExecutor(effort.workers, thread_name_prefix="sweep") as pool:
        for future in [pool.submit(part, *piece) for piece in parts]:
            future.result()
    return result


def take_vectors(seen: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """The vectors of some rows."""
    lengths = np.diff(seen.start)[rows]
    start = np.concatenate([[0], np.cumsum(lengths)])
    source = np.arange(start[-1]) + np.repeat(seen.start[rows] - start[:-1], lengths)
    return Vectors(start, seen.partition[source], seen.offset[source])


def join_reads(parts: list[Reads]) -> Reads:
    """Several reads of one view as one, so that its log is swept once."""
    if len(parts) == 1:
        return parts[0]
    seen = None
    if parts[0].seen is not None:
        vectors = [part.seen for part in parts if part.seen is not None]
        lengths = np.concatenate([np.diff(v.start) for v in vectors])
        seen = Vectors(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([v.partition for v in vectors]),
            np.concatenate([v.offset for v in vectors]),
        )
    return Reads(
        PackedKeys.join([part.keys for part in parts]),
        np.concatenate([part.at_us for part in parts]),
        _join_own(parts),
        seen,
    )


def _join_own(parts: list[Reads]) -> EventBatch | None:
    some = next((part.own for part in parts if part.own is not None), None)
    if some is None:
        return None
    batches = [part.own if part.own is not None else _nothing(some, len(part)) for part in parts]
    names = ("time_us", "partition", "offset", "id_hash", "values", "masks", "kept")
    return EventBatch(**{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names})


def _nothing(like: EventBatch, rows: int) -> EventBatch:
    first = like.take(np.zeros(rows, np.int64)) if len(like.time_us) else like
    return replace(first, kept=np.zeros(rows, np.uint8))
