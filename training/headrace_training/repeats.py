"""Repeated events in a sweep: which folds of a step program the stream skipped, or would skip.

A repeat of an event from its own partition is decided by the kernel, along the offsets of that partition, and is the same in every
order of reading. An event that came through several partitions counts from the one that is folded first, in the stream by
arrival, here by step; where both copies are included, the values are the same.

What must not live here: what is remembered of an entity (`headrace.kernel.identity`).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import kernel
from headrace.kernel import EventBatch
from headrace.layout import Layout
from headrace_training.programs import FOLD, Int32, Program

Flags = NDArray[np.bool_]


def repeated_folds(layout: Layout, program: Program, events: EventBatch, event_slot: Int32) -> Flags | None:
    """For each FOLD of a program, whether its event is a repeat; None if no event is.

    Args:
        layout: of the view.
        program: its folds may take an event several times, once in each chain.
        events: all events that the program may take.
        event_slot: entity number of each event.
    """
    if layout.view.dedupe == 0 or not len(program.events):
        return None
    twice = pl.Series(events.id_hash).is_duplicated().to_numpy()
    if not twice.any():
        return None
    again = _again(layout, events, event_slot, twice)
    return again[program.events] | _elsewhere(program, events, twice & ~again & (events.kept != 0))


def _again(layout: Layout, events: EventBatch, event_slot: Int32, twice: Flags) -> Flags:
    """Repeats of events of their own partition; whatever lies between two of them counts, so whole entities are looked at."""
    affected = np.zeros(int(event_slot.max()) + 1, np.bool_)
    affected[event_slot[twice]] = True
    rows = np.flatnonzero(affected[event_slot])
    again = np.zeros(len(events), np.bool_)
    again[rows] = kernel.repeats(layout, events.take(rows), event_slot[rows])
    return again


def _elsewhere(program: Program, events: EventBatch, some: Flags) -> Flags:
    """Folds of events that an earlier fold of the same chain took from another partition."""
    folds = np.flatnonzero(some[program.events])
    chosen = program.events[folds]
    frame = pl.DataFrame(
        {
            "chain": program.slot[program.kind == FOLD][folds],
            "id": events.id_hash[chosen],
            "partition": events.partition[chosen],
        }
    )
    first = pl.col("partition").first().over("chain", "id")
    found = np.zeros(len(program.events), np.bool_)
    found[folds] = frame.select(pl.col("partition") != first).to_series().to_numpy()
    return found
