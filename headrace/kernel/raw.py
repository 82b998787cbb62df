"""Raw form: while an entity is quiet, its retained events are kept themselves, sorted by time.

About ten bytes an event, where tiles would be one row per level. What may not live here: reading.
"""

from __future__ import annotations

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.event import set_field
from headrace.kernel.memory import bits_float
from headrace.kernel.retention import raw_horizon, raw_time
from headrace.kernel.sections import (
    clear,
    get_count,
    get_value,
    insert_row,
    section_state,
    set_count,
    set_index,
    set_value,
)
from headrace.kernel.tiles import fold_tiles
from headrace.program import (
    F_RAW_CELL,
    F_SIZE,
    FLAG_BITS,
    FORM_TILES,
    I_RAW_BIT,
    I_SIZE,
    M_ROWS,
    P_FIELDS,
    P_INPUTS,
    P_N_FIELDS,
    P_N_INPUTS,
    P_RAW_FLAGS,
    P_RAW_FLAGS_END,
    P_RAW_LIMIT,
    P_RAW_ORDER,
    P_WORK_FIELDS,
    P_WORK_INPUTS,
    RAW,
    W_FORM,
    W_NEWEST_US,
    W_OFFSET,
    W_PARTITION,
    W_TIME_US,
    X_EXACT,
    X_SIZE,
    X_UNITS,
    X_VALUE,
)


@outlined
def retain(program: list[int], work: list[int], buffer: int) -> int:
    """Keep the event itself; past the limit, all of them become tiles. Whether some level could still see it."""
    time_us = work[W_TIME_US]
    if time_us < raw_horizon(program, work[W_NEWEST_US]):
        return 0
    if not _is_seen(program, work):
        return 1
    row = work[section_state(RAW) + M_ROWS]
    while row > 0 and _is_before(program, work, buffer, row - 1):
        row -= 1
    insert_row(program, work, buffer, RAW, row)
    set_index(program, work, buffer, RAW, row, time_us)
    _set_flags(program, work, buffer, row)
    order = program[P_RAW_ORDER]
    if order >= 0:
        set_count(program, work, buffer, RAW, row, order, work[W_PARTITION])
        set_count(program, work, buffer, RAW, row, order + 1, work[W_OFFSET])
    for field in range(program[P_N_FIELDS]):
        cell = program[program[P_FIELDS] + field * F_SIZE + F_RAW_CELL]
        if cell >= 0:
            x = program[P_WORK_FIELDS] + field * X_SIZE
            value = bits_float(work[x + X_VALUE])
            set_value(program, work, buffer, RAW, row, cell, value, work[x + X_UNITS], work[x + X_EXACT])
    if work[section_state(RAW) + M_ROWS] > program[P_RAW_LIMIT]:
        spill(program, work, buffer)
    return 1


@inner
def _is_seen(program: list[int], work: list[int]) -> bool:
    """Whether some windowed accumulator counts the event."""
    for index in range(program[P_N_INPUTS]):
        windowed = program[program[P_INPUTS] + index * I_SIZE + I_RAW_BIT] >= 0
        if windowed and work[program[P_WORK_INPUTS] + index] != 0:
            return True
    return False


@inner
def _is_before(program: list[int], work: list[int], buffer: int, row: int) -> bool:
    """Whether the event comes before a retained one."""
    order = work[W_TIME_US] - raw_time(program, work, buffer, row)
    cell = program[P_RAW_ORDER]
    if order == 0 and cell >= 0:
        order = work[W_PARTITION] - get_count(program, work, buffer, RAW, row, cell)
        if order == 0:
            order = work[W_OFFSET] - get_count(program, work, buffer, RAW, row, cell + 1)
    return order < 0


@inner
def _set_flags(program: list[int], work: list[int], buffer: int, row: int) -> None:
    """Write the validity bits of a retained event, 32 to a cell."""
    for cell in range(program[P_RAW_FLAGS], program[P_RAW_FLAGS_END]):
        base = (cell - program[P_RAW_FLAGS]) * FLAG_BITS
        flags = 0
        for index in range(program[P_N_INPUTS]):
            bit = program[program[P_INPUTS] + index * I_SIZE + I_RAW_BIT] - base
            if 0 <= bit < FLAG_BITS:
                flags |= work[program[P_WORK_INPUTS] + index] << bit
        set_count(program, work, buffer, RAW, row, cell, flags)


@inner
def is_valid(program: list[int], work: list[int], buffer: int, row: int, index: int) -> bool:
    """Whether a retained event is valid for an input."""
    bit = program[program[P_INPUTS] + index * I_SIZE + I_RAW_BIT]
    flags = get_count(program, work, buffer, RAW, row, program[P_RAW_FLAGS] + bit // FLAG_BITS)
    return (flags >> (bit % FLAG_BITS)) & 1 != 0


@outlined
def spill(program: list[int], work: list[int], buffer: int) -> None:
    """Fold all retained events into tiles. The event in the working array is lost."""
    work[W_FORM] = FORM_TILES
    for row in range(work[section_state(RAW) + M_ROWS]):
        work[W_TIME_US] = raw_time(program, work, buffer, row)
        order = program[P_RAW_ORDER]
        if order >= 0:
            work[W_PARTITION] = get_count(program, work, buffer, RAW, row, order)
            work[W_OFFSET] = get_count(program, work, buffer, RAW, row, order + 1)
        for index in range(program[P_N_INPUTS]):
            known = program[program[P_INPUTS] + index * I_SIZE + I_RAW_BIT] >= 0
            valid = known and is_valid(program, work, buffer, row, index)
            work[program[P_WORK_INPUTS] + index] = 1 if valid else 0
        for field in range(program[P_N_FIELDS]):
            cell = program[program[P_FIELDS] + field * F_SIZE + F_RAW_CELL]
            if cell >= 0:
                set_field(program, work, field, get_value(program, work, buffer, RAW, row, cell))
        fold_tiles(program, work, buffer)
    clear(program, work, RAW)
