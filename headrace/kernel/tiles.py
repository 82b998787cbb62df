"""Tiles: folding an event into one row of each level, and into the lifetime's only row.

What may not live here: bytes of cells (`sections.py`), reading.
"""

from __future__ import annotations

from typing import Final

from headrace.aggregations import Accumulator
from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import bits_float
from headrace.kernel.numbers import square_wide
from headrace.kernel.retention import horizon, tile_index
from headrace.kernel.sections import (
    add_integer,
    cell_state,
    get_count,
    get_integer,
    get_value,
    insert_row,
    section_facts,
    section_state,
    set_count,
    set_index,
    set_integer,
    set_value,
)
from headrace.program import (
    A_CELL,
    A_COUNT_CELL,
    A_INPUT,
    A_OP,
    A_SIZE,
    D_FLOAT,
    I_FIELD,
    I_SIZE,
    LEVELS,
    M_ROWS,
    M_TOP,
    P_ACCUMULATORS,
    P_INPUTS,
    P_N_SECTIONS,
    P_WORK_FIELDS,
    P_WORK_INPUTS,
    S_ACCUMULATORS,
    S_N_ACCUMULATORS,
    S_TILE_US,
    W_NEWEST_US,
    W_OFFSET,
    W_PARTITION,
    W_TIME_US,
    X_EXACT,
    X_SIZE,
    X_UNITS,
    X_VALUE,
)

_COUNT: Final = int(Accumulator.COUNT)
_SUM: Final = int(Accumulator.SUM)
_SUM_SQUARES: Final = int(Accumulator.SUM_SQUARES)
_MIN: Final = int(Accumulator.MIN)
_MAX: Final = int(Accumulator.MAX)
_FIRST: Final = int(Accumulator.FIRST)
_LAST: Final = int(Accumulator.LAST)


@outlined
def fold_tiles(program: list[int], work: list[int], buffer: int) -> int:
    """Fold the event into its tile of each level; whether some level could still see it."""
    time_us, accepted = work[W_TIME_US], 0
    for section in range(LEVELS, program[P_N_SECTIONS]):
        facts, state = section_facts(program, section), section_state(section)
        tile_us = program[facts + S_TILE_US]
        index = work[state + M_TOP]
        if time_us < index * tile_us:
            index = time_us // tile_us
            if index < horizon(program, section, work[W_NEWEST_US]):
                continue
        accepted = 1
        if _is_wanted(program, work, section):
            row = _tile_row(program, work, buffer, section, index)
            accumulate(program, work, buffer, section, row, index * tile_us)
    return accepted


@inner
def _is_wanted(program: list[int], work: list[int], section: int) -> bool:
    """Whether some accumulator of the section counts the event."""
    facts = section_facts(program, section)
    first = program[P_ACCUMULATORS] + program[facts + S_ACCUMULATORS] * A_SIZE
    for i in range(program[facts + S_N_ACCUMULATORS]):
        if work[program[P_WORK_INPUTS] + program[first + i * A_SIZE + A_INPUT]] != 0:
            return True
    return False


@inner
def _tile_row(program: list[int], work: list[int], buffer: int, section: int, index: int) -> int:
    """The row of a tile, opened if it is not there. The newest tiles are the likely ones."""
    row = work[section_state(section) + M_ROWS] - 1
    while row >= 0:
        other = tile_index(program, work, buffer, section, row)
        if other == index:
            return row
        if other < index:
            break
        row -= 1
    insert_row(program, work, buffer, section, row + 1)
    set_index(program, work, buffer, section, row + 1, index)
    return row + 1


@outlined
def accumulate(program: list[int], work: list[int], buffer: int, section: int, row: int, start_us: int) -> None:
    """Update all accumulators of one row with the event; counts come last in the table, so the others see the old count."""
    facts = section_facts(program, section)
    first = program[P_ACCUMULATORS] + program[facts + S_ACCUMULATORS] * A_SIZE
    for i in range(program[facts + S_N_ACCUMULATORS]):
        a = first + i * A_SIZE
        index = program[a + A_INPUT]
        if work[program[P_WORK_INPUTS] + index] == 0:
            continue
        op, cell = program[a + A_OP], program[a + A_CELL]
        field = program[program[P_INPUTS] + index * I_SIZE + I_FIELD]
        x = program[P_WORK_FIELDS] + field * X_SIZE
        if op == _COUNT:
            set_count(
                program, work, buffer, section, row, cell, get_count(program, work, buffer, section, row, cell) + 1
            )
        elif op == _SUM:
            units = work[x + X_UNITS]
            add_integer(program, work, buffer, section, row, cell, units >> 63, units)
        elif op == _SUM_SQUARES:
            high, low = square_wide(work[x + X_UNITS])
            add_integer(program, work, buffer, section, row, cell, high, low)
        else:
            empty = get_count(program, work, buffer, section, row, program[a + A_COUNT_CELL]) == 0
            if op in (_MIN, _MAX):
                _extreme(program, work, buffer, section, row, cell, x, 1 if op == _MAX else -1, empty)
            elif op in (_FIRST, _LAST):
                _endmost(program, work, buffer, section, row, cell, x, 1 if op == _LAST else -1, empty, start_us)
            else:
                elapsed = work[W_TIME_US] - start_us
                if empty or elapsed > get_integer(program, work, buffer, section, row, cell):
                    set_integer(program, work, buffer, section, row, cell, elapsed)


@outlined
def _extreme(
    program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int, x: int, sign: int, empty: bool
) -> None:
    """Keep the larger (sign 1) or smaller (sign -1) value."""
    value, units, exact = bits_float(work[x + X_VALUE]), work[x + X_UNITS], work[x + X_EXACT]
    if not empty:
        if exact != 0 and work[cell_state(program, cell) + D_FLOAT] == 0:
            if (units - get_integer(program, work, buffer, section, row, cell)) * sign <= 0:
                return
        elif (value - get_value(program, work, buffer, section, row, cell)) * sign <= 0.0:
            return
    set_value(program, work, buffer, section, row, cell, value, units, exact)


@outlined
def _endmost(
    program: list[int],
    work: list[int],
    buffer: int,
    section: int,
    row: int,
    cell: int,
    x: int,
    sign: int,
    empty: bool,
    start_us: int,
) -> None:
    """Keep the value that is later (sign 1) or earlier (sign -1) by (event time, partition, offset)."""
    elapsed = work[W_TIME_US] - start_us
    if not empty:
        order = elapsed - get_integer(program, work, buffer, section, row, cell)
        if order == 0:
            order = work[W_PARTITION] - get_count(program, work, buffer, section, row, cell + 1)
        if order == 0:
            order = work[W_OFFSET] - get_count(program, work, buffer, section, row, cell + 2)
        if order * sign <= 0:
            return
    set_integer(program, work, buffer, section, row, cell, elapsed)
    set_count(program, work, buffer, section, row, cell + 1, work[W_PARTITION])
    set_count(program, work, buffer, section, row, cell + 2, work[W_OFFSET])
    value = bits_float(work[x + X_VALUE])
    set_value(program, work, buffer, section, row, cell + 3, value, work[x + X_UNITS], work[x + X_EXACT])
