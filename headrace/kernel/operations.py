"""The callers' operations on states: `update`, `sweep`, `repeats`, `canonical`; reading has `joint.py`.

They check what crosses into compiled code, and say in words what it found. All release the interpreter's lock while they run.
What may not live here: compiled code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import CodecError
from headrace.kernel import engine, folding
from headrace.kernel.batch import EventBatch, prepare
from headrace.kernel.compiling import compiling_alone
from headrace.layout import Layout
from headrace.program import BAD_FINGERPRINT, BAD_VERSION, OK, P_BUFFER_BYTES, P_WORK_SIZE
from headrace.states import States, header

FOLDED: Final = folding.FOLDED
SKIPPED_OFFSET: Final = folding.SKIPPED_OFFSET
DUPLICATE: Final = folding.DUPLICATE
TOO_LATE: Final = folding.TOO_LATE
FILTERED: Final = folding.FILTERED

_I64: TypeAlias = npt.NDArray[np.int64]
_I32: TypeAlias = npt.NDArray[np.int32]
_U8: TypeAlias = npt.NDArray[np.uint8]
_F64: TypeAlias = npt.NDArray[np.float64]

FOLD: Final = 0
READ: Final = 1


@dataclass(frozen=True, slots=True)
class Updated:
    """What folding a batch gave.

    Args:
        states: the new states; the old ones are untouched.
        status: per event FOLDED, SKIPPED_OFFSET (included before), DUPLICATE (its id is known), TOO_LATE (no admissible read
            could see it) or FILTERED (the view does not want it).
        dirty: per state, whether it changed.
    """

    states: States
    status: npt.NDArray[np.uint8]
    dirty: npt.NDArray[np.bool_]


def update(layout: Layout, states: States, batch: EventBatch, slot: npt.NDArray[np.int32]) -> Updated:
    """Fold events into the states of their entities, in order of arrival within each entity.

    Args:
        layout: of the view.
        states: one per entity.
        batch: the events, in any order that keeps the offsets of a partition rising.
        slot: for each event the index of its entity's state.

    Raises:
        CodecError: a state's bytes are broken or of another layout.
    """
    _check_batch(layout, batch)
    slot = np.ascontiguousarray(slot, dtype=np.int32)
    if len(slot) != len(batch):
        raise ValueError(f"{len(batch)} events need as many slots, not {len(slot)}")
    if len(slot) and not 0 <= int(slot.min()) <= int(slot.max()) < len(states):
        raise IndexError(f"slots are 0 to {len(states) - 1}, not {slot.min()} to {slot.max()}")
    program, work, buffer = working_area(layout)
    data, offsets, status, dirty, error, index = engine.update_states(
        program, work, buffer, writable(states.data), states.offsets, slot, *_columns(batch)
    )
    raise_on(error, layout, states, index)
    return Updated(States(data, offsets), status, dirty.view(np.bool_))


def sweep(
    layout: Layout,
    events: EventBatch,
    at_us: npt.NDArray[np.int64],
    own: EventBatch | None,
    step_slot: npt.NDArray[np.int32],
    step_kind: npt.NDArray[np.uint8],
    step_index: npt.NDArray[np.int64],
    out: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Fold and read one entity after the other, with the functions of `update` and `read`; O(steps).

    Args:
        layout: of the view.
        events: all events; offsets need not rise. Every event that is `kept` counts, so repeats are left out by the caller,
            who finds them with `repeats`. Ids matter only beside `own`, places also where `layout.orders_events`.
        at_us: one moment per row to read.
        own: the own event of each row, as in `read`.
        step_slot: the entity of each step; steps of one entity stand together.
        step_kind: FOLD or READ.
        step_index: the event to fold, or the row to read.
        out: receives the rows that the steps read, and keeps the others; a new array of NaN by default. Threads may share it
            if they sweep different entities.
    """
    _check_batch(layout, events)
    at_us = np.ascontiguousarray(at_us, dtype=np.int64)
    step_slot = np.ascontiguousarray(step_slot, dtype=np.int32)
    step_kind = np.ascontiguousarray(step_kind, dtype=np.uint8)
    step_index = np.ascontiguousarray(step_index, dtype=np.int64)
    for kind, size in ((FOLD, len(events)), (READ, len(at_us))):
        chosen = step_index[step_kind == kind]
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < size:
            raise IndexError(f"steps of kind {kind} have indices 0 to {size - 1}, not {chosen.min()} to {chosen.max()}")
    if out is None:
        out = np.full((len(at_us), layout.n_features), np.nan)
    elif out.shape != (len(at_us), layout.n_features) or out.dtype != np.float64 or not out.flags.c_contiguous:
        raise ValueError(f"out is a contiguous float64 array of shape {(len(at_us), layout.n_features)}")
    program, work, buffer = working_area(layout)
    engine.sweep_steps(
        program,
        work,
        buffer,
        np.empty_like(work),
        np.empty_like(buffer),
        *_columns(events),
        at_us,
        own is not None,
        *own_columns(layout, own, len(at_us)),
        step_slot,
        step_kind,
        step_index,
        out,
    )
    return out


def repeats(layout: Layout, batch: EventBatch, slot: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Which events `update` calls repeats of one from their own partition, whatever came between from others; O(n log n).

    Args:
        layout: of the view.
        batch: all events of these entities and partitions, in any order.
        slot: for each event its entity.
    """
    _check_batch(layout, batch)
    repeated = np.zeros(len(batch), np.uint8)
    if layout.view.dedupe > 0:
        order = np.lexsort((batch.offset, batch.partition, slot))
        identity, slot = batch.id_hash.view(np.int64), np.ascontiguousarray(slot, np.int32)
        engine.mark_repeats(*working_area(layout), order, slot, batch.partition, identity, batch.kept, repeated)
    return repeated.view(np.bool_)


def canonical(layout: Layout, state: bytes) -> bytes:
    """The state's one spelling: tiles instead of raw events, expired tiles dropped, every column at its narrowest.

    Two states that include the same events have the same canonical bytes, whatever the order in which they arrived.

    Raises:
        CodecError: the bytes are broken or of another layout.
    """
    states = States.from_list([state])
    data, error = engine.canonical_state(*working_area(layout), states.data, len(state))
    raise_on(error, layout, states, 0)
    return bytes(data.tobytes())


def warm(*, folding_only: bool = False) -> None:
    """Compile or load everything once, so that the first request does not wait for it: seconds the first time on a machine.

    Args:
        folding_only: only what the feature pipeline needs.
    """
    from headrace.entities import Entity
    from headrace.events import Event
    from headrace.features import count
    from headrace.fields import string, timestamp
    from headrace.kernel.hashing import group_keys
    from headrace.kernel.joint import read
    from headrace.kernel.nulls import null_infinite
    from headrace.views import FeatureView

    event = Event("warm", fields={"key": string(), "at": timestamp()}, time="at")
    entity = Entity("key", keys={"key": string()})
    layout = Layout.of(FeatureView("warm", entity=entity, event=event, features={"n": count().over("1h")}))
    one, slot = np.zeros(1, np.int64), np.zeros(1, np.int32)
    batch = prepare(layout, {"at": one}, partition=slot, offset=one, id_hash=one.view(np.uint64))
    with compiling_alone("folding"):
        states = update(layout, States.empty(1), batch, slot).states
        group_keys(np.zeros(1, np.uint8), np.array([0, 1]))
    if folding_only:
        return
    with compiling_alone("reading"):
        read(layout, states, one)
        canonical(layout, states[0])
        sweep(layout, batch, one, None, slot, slot.astype(np.uint8), one)
        repeats(layout, batch, slot)
        null_infinite(np.zeros(1))
        null_infinite(np.zeros((1, 1), np.float32))
        null_infinite(np.zeros((1, 1)))


def working_area(layout: Layout) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The opcode table, a working area, and a buffer for the rows of a state."""
    program = layout.program
    return program, np.zeros(program[P_WORK_SIZE], np.int64), np.empty(program[P_BUFFER_BYTES], np.uint8)


def writable(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes as compiled code is specialised for: writable, although it does not write to them."""
    return data if data.flags.writeable and data.flags.c_contiguous else np.array(data)


def _columns(batch: EventBatch) -> tuple[_I64, _I32, _I64, _I64, _F64, _U8, _U8]:
    identity = batch.id_hash.view(np.int64)
    return batch.time_us, batch.partition, batch.offset, identity, batch.values, batch.masks, batch.kept


def own_columns(layout: Layout, own: EventBatch | None, rows: int) -> tuple[_I64, _I64, _F64, _U8, _U8]:
    """The columns of the requests' own events that compiled code looks at; empty ones where there are none."""
    if own is not None:
        _check_batch(layout, own)
        if len(own) != rows:
            raise ValueError(f"{rows} rows need as many own events, not {len(own)}")
        return own.time_us, own.id_hash.view(np.int64), own.values, own.masks, own.kept
    none = np.empty(0, np.int64)
    values, masks = np.empty((0, len(layout.fields))), np.empty((0, len(layout.masks)), np.uint8)
    return none, none, values, masks, np.empty(0, np.uint8)


def _check_batch(layout: Layout, batch: EventBatch) -> None:
    rows = len(batch.time_us)
    shapes = (batch.values.shape, batch.masks.shape)
    if shapes != ((rows, len(layout.fields)), (rows, len(layout.masks))):
        raise ValueError(f"the batch was not prepared for feature view {layout.view.name!r}")


def raise_on(error: int, layout: Layout, states: States, index: int, row: int | None = None) -> None:
    """Say in words what compiled code found.

    Args:
        error: OK, or which rule the bytes of a state break.
        layout: of the view.
        states: that were given.
        index: of the state.
        row: what the caller counts it as, if not as `index`.

    Raises:
        CodecError: there was an error.
    """
    if error == OK:
        return
    what = f"state {index if row is None else row} of feature view {layout.view.name!r}"
    if error == BAD_FINGERPRINT:
        found = f"{header(states[index]).fingerprint:012x}"
        raise CodecError(what, f"layout {found} is not the view's {layout.fingerprint:012x}; backfill the view")
    if error == BAD_VERSION:
        header(states[index])
    raise CodecError(what, "its bytes are cut off or broken; restore it, or delete it and replay its events")
