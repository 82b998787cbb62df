"""The compiled entries: whole batches of events, states and reads.

What may not live here: checks of arguments and Python objects (`operations.py`), the meaning of an event (`folding.py`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.kernel.codec import load_state, reset, state_bytes, write_state
from headrace.kernel.compiling import entry, inner
from headrace.kernel.event import set_event
from headrace.kernel.folding import DUPLICATE, FILTERED, SKIPPED_OFFSET, fold
from headrace.kernel.identity import include_offset, included_offset, is_known, recognize
from headrace.kernel.memory import item, move, pointer
from headrace.kernel.raw import spill
from headrace.kernel.reading import read_state
from headrace.kernel.retention import expire_tiles, horizon
from headrace.kernel.sections import section_state, shrink
from headrace.program import (
    FORM_RAW,
    LEVELS,
    M_POSITION,
    M_ROWS,
    M_STRIDE,
    OK,
    P_DEDUPE,
    P_N_FEATURES,
    P_N_SECTIONS,
    P_WORK_SIZE,
    SLACK_BYTES,
    W_EXISTS,
    W_FORM,
    W_ID,
    W_NEWEST_US,
)

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

OWN_PARTITION: Final = (1 << 31) - 1  # a request's own event comes after every other of its time
OWN_OFFSET: Final = (1 << 62) - 1

_GROWTH_BYTES: Final = 96  # the guess of what an event adds to a state; only costs a copy if it is wrong


@inner
def _grown(data: U8, needed: int) -> U8:
    if len(data) >= needed:
        return data
    larger = np.empty(max(needed, len(data) + len(data) // 2), np.uint8)
    larger[: len(data)] = data
    return larger


@inner
def _by_slot(slot: I32, states: int) -> tuple[I64, I64]:
    """The events of each state, in order of arrival: a counting sort."""
    begins = np.zeros(states + 1, np.int64)
    for s in slot:
        begins[s + 1] += 1
    for s in range(states):
        begins[s + 1] += begins[s]
    places = begins[:-1].copy()
    order = np.empty(len(slot), np.int64)
    for event in range(len(slot)):
        s = slot[event]
        order[places[s]] = event
        places[s] += 1
    return order, begins


@inner
def fold_own(
    program: list[int],
    work: list[int],
    buffer: int,
    time_us: int,
    identity: int,
    values: list[float],
    masks: list[int],
) -> None:
    """Fold a request's own event: after every other of its time, unless it has already come through the stream."""
    if not is_known(program, work, buffer, identity):
        set_event(program, work, time_us, OWN_PARTITION, OWN_OFFSET, identity, values, masks)
        fold(program, work, buffer)


@entry
def update_states(
    program_array: I64,
    work_array: I64,
    buffer_array: U8,
    data: U8,
    offsets: I64,
    slot: I32,
    time_us: I64,
    partition: I32,
    offset: I64,
    identity: I64,
    value_array: F64,
    mask_array: U8,
    kept: U8,
) -> tuple[U8, I64, U8, U8, int, int]:
    """Fold a batch; returns (states, offsets, status per event, dirty per state, error, its state)."""
    program, work, buffer = pointer(program_array), pointer(work_array), pointer(buffer_array)
    source, values, masks = pointer(data), pointer(value_array), pointer(mask_array)
    fields, filters = value_array.shape[1], mask_array.shape[1]
    states = len(offsets) - 1
    order, begins = _by_slot(slot, states)
    status = np.empty(len(slot), np.uint8)
    dirty = np.zeros(states, np.uint8)
    ends = np.zeros(states + 1, np.int64)
    target = np.empty(offsets[states] + len(slot) * _GROWTH_BYTES + SLACK_BYTES, np.uint8)
    position = 0
    for s in range(states):
        error = load_state(program, work, buffer, source, offsets[s], offsets[s + 1], False)
        if error != OK:
            return target, ends, status, dirty, error, s
        for i in range(begins[s], begins[s + 1]):
            event = order[i]
            if kept[event] == 0:
                status[event] = FILTERED
            elif offset[event] <= included_offset(program, work, buffer, int(partition[event])):
                status[event] = SKIPPED_OFFSET
            else:
                error = include_offset(program, work, buffer, int(partition[event]), offset[event])
                if error != OK:
                    return target, ends, status, dirty, error, s
                set_event(
                    program,
                    work,
                    time_us[event],
                    int(partition[event]),
                    offset[event],
                    identity[event],
                    item(values, event * fields),
                    item(masks, event * filters),
                )
                if recognize(program, work, buffer):
                    status[event] = DUPLICATE
                else:
                    status[event] = fold(program, work, buffer)
                dirty[s] = 1
        if dirty[s] == 0:
            size = offsets[s + 1] - offsets[s]
            target = _grown(target, position + size + SLACK_BYTES)
            move(pointer(target), position, source, offsets[s], size)
            position += size
        else:
            target = _grown(target, position + state_bytes(program, work) + SLACK_BYTES)
            position = write_state(program, work, buffer, pointer(target), position)
        ends[s + 1] = position
    return target, ends, status, dirty, OK, 0


@inner
def _copy_state(program: list[int], work: list[int], buffer: int, other_work: list[int], other_buffer: int) -> None:
    """The loaded state once more, at the same places of another working area."""
    for i in range(program[P_WORK_SIZE]):
        other_work[i] = work[i]
    for section in range(program[P_N_SECTIONS]):
        state = section_state(section)
        position = work[state + M_POSITION]
        move(other_buffer, position, buffer, position, work[state + M_ROWS] * work[state + M_STRIDE])


@entry
def sweep_steps(
    program_array: I64,
    work_array: I64,
    buffer_array: U8,
    own_work_array: I64,
    own_buffer_array: U8,
    time_us: I64,
    partition: I32,
    offset: I64,
    identity: I64,
    value_array: F64,
    mask_array: U8,
    kept: U8,
    at_us: I64,
    own: bool,
    own_time_us: I64,
    own_identity: I64,
    own_value_array: F64,
    own_mask_array: U8,
    own_kept: U8,
    step_slot: I32,
    step_kind: U8,
    step_index: I64,
    features: F64,
) -> None:
    """Fold events and read rows in the given order, one entity after the other; no bytes are written in between."""
    program, work, buffer = pointer(program_array), pointer(work_array), pointer(buffer_array)
    own_work, own_buffer, target = pointer(own_work_array), pointer(own_buffer_array), pointer(features)
    values, masks = pointer(value_array), pointer(mask_array)
    own_values, own_masks = pointer(own_value_array), pointer(own_mask_array)
    fields, filters = value_array.shape[1], mask_array.shape[1]
    n_features, deduping = program[P_N_FEATURES], own and program[P_DEDUPE] > 0
    for step in range(len(step_slot)):
        if step == 0 or step_slot[step] != step_slot[step - 1]:
            reset(program, work)
        i = step_index[step]
        if step_kind[step] == 0:
            if kept[i] != 0:
                set_event(
                    program,
                    work,
                    time_us[i],
                    int(partition[i]),
                    offset[i],
                    identity[i],
                    item(values, i * fields),
                    item(masks, i * filters),
                )
                if deduping and include_offset(program, work, buffer, int(partition[i]), offset[i]) == OK:
                    recognize(program, work, buffer)
                fold(program, work, buffer)
        elif own and own_kept[i] != 0 and not is_known(program, work, buffer, own_identity[i]):
            _copy_state(program, work, buffer, own_work, own_buffer)
            fold_own(
                program,
                own_work,
                own_buffer,
                own_time_us[i],
                own_identity[i],
                item(own_values, i * fields),
                item(own_masks, i * filters),
            )
            read_state(program, own_work, own_buffer, at_us[i], target, i * n_features)
        else:
            read_state(program, work, buffer, at_us[i], target, i * n_features)


@entry
def mark_repeats(
    program_array: I64,
    work_array: I64,
    buffer_array: U8,
    order: I64,
    slot: I32,
    partition: I32,
    identity: I64,
    kept: U8,
    repeated: U8,
) -> None:
    """Mark the events that `update_states` would call repeats; `order` goes through slots, their partitions and offsets."""
    program, work, buffer = pointer(program_array), pointer(work_array), pointer(buffer_array)
    reset(program, work)
    last = -1
    for i in order:
        if kept[i] == 0:
            continue
        if last < 0 or slot[i] != slot[last] or partition[i] != partition[last]:
            reset(program, work)
        last = i
        work[W_ID] = identity[i]
        include_offset(program, work, buffer, int(partition[i]), 0)
        repeated[i] = recognize(program, work, buffer)


@entry
def canonical_state(program_array: I64, work_array: I64, buffer_array: U8, data: U8, end: int) -> tuple[U8, int]:
    """The state in data[:end] in tiles and in its narrowest columns; returns (bytes with slack, error)."""
    program, work, buffer = pointer(program_array), pointer(work_array), pointer(buffer_array)
    error = load_state(program, work, buffer, pointer(data), 0, end, False)
    if error != OK or work[W_EXISTS] == 0:
        return np.empty(0, np.uint8), error
    if work[W_FORM] == FORM_RAW:
        spill(program, work, buffer)
    for section in range(LEVELS, program[P_N_SECTIONS]):
        expire_tiles(program, work, buffer, section, horizon(program, section, work[W_NEWEST_US]))
    for section in range(program[P_N_SECTIONS]):
        shrink(program, work, buffer, section)
    target = np.empty(state_bytes(program, work) + SLACK_BYTES, np.uint8)
    write_state(program, work, buffer, pointer(target), 0)
    return target[: len(target) - SLACK_BYTES], OK
