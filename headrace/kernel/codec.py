"""States in bytes: loading one into the working area (or reading it where it lies), and writing it back.

    offset  size
         0     1   version of this codec (2)
         1     1   form: 0 raw events, 1 tiles
         2     6   the first 48 bits of the view's layout fingerprint
         8     8   newest event time, microseconds
        16         sections: partitions, ids (if the view dedupes), lifetime (if the view has any), then either the raw events
                   or one section for each level; see `sections.py`

A row of the partitions is (partition, included offset[, number of ids]), of the ids 8 bytes of id, of the raw events (event time,
validity bits, [partition, offset,] values). What may not live here: what happens to a state.
"""

from __future__ import annotations

from typing import Final

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.identity import has_all_ids
from headrace.kernel.memory import load, move, store
from headrace.kernel.numbers import get_unsigned, put
from headrace.kernel.sections import (
    FLOAT_BYTES,
    cell_facts,
    cell_state,
    clear,
    section_facts,
    section_state,
)
from headrace.layout import STATE_VERSION
from headrace.program import (
    BAD_CONTENT,
    BAD_FINGERPRINT,
    BAD_LENGTH,
    BAD_VERSION,
    C_KIND,
    D_BYTES,
    D_FLOAT,
    D_OFFSET,
    FORM_RAW,
    FORM_TILES,
    IDS,
    KIND_SIGNED,
    KIND_VALUE,
    LEVELS,
    LIFETIME,
    M_POSITION,
    M_ROWS,
    M_STRIDE,
    M_TOP,
    OK,
    P_DEDUPE,
    P_FINGERPRINT,
    P_N_SECTIONS,
    P_RAW_LIMIT,
    PARTITIONS,
    RAW,
    S_AREA,
    S_CAPACITY,
    S_CELLS,
    S_COUNT_BYTES,
    S_INDEX_BYTES,
    S_N_CELLS,
    S_TILE_US,
    W_EXISTS,
    W_FORM,
    W_NEWEST_US,
)

HEADER_BYTES: Final = 16
_FLOAT_CODE: Final = 9  # the four bits that say: a value column of float64
_WIDEST_CODE: Final = 15  # ... and: a signed column of 16 bytes


@outlined
def reset(program: list[int], work: list[int]) -> None:
    """No state yet."""
    work[W_NEWEST_US] = 0
    work[W_EXISTS] = 0
    work[W_FORM] = FORM_RAW if program[P_RAW_LIMIT] > 0 else FORM_TILES
    for section in range(program[P_N_SECTIONS]):
        clear(program, work, section)


@inner
def is_written(program: list[int], work: list[int], section: int) -> bool:
    """Whether a section appears in the bytes."""
    if section == PARTITIONS:
        return True
    if section == IDS:
        return program[P_DEDUPE] > 0
    if section == LIFETIME:
        return program[section_facts(program, section) + S_N_CELLS] > 0
    if section == RAW:
        return work[W_FORM] == FORM_RAW
    return work[W_FORM] == FORM_TILES


@outlined
def load_state(
    program: list[int], work: list[int], buffer: int, source: int, start: int, end: int, in_place: bool
) -> int:
    """Take up the state in source[start:end]; nothing there is no state.

    Args:
        program: the opcode table.
        work: receives where everything lies.
        buffer: receives the rows, unless in_place.
        source: the bytes, with slack behind them.
        start: of the state.
        end: of the state.
        in_place: leave the rows in the source, for reading only.

    Returns OK, or which rule the bytes break: everything that could lead a later access out of bounds is checked here.
    """
    reset(program, work)
    if end == start:
        return OK
    if end - start < HEADER_BYTES:
        return BAD_LENGTH
    head = load(source, start)
    if head & 0xFF != STATE_VERSION:
        return BAD_VERSION
    if get_unsigned(source, start + 2, 6) != program[P_FINGERPRINT]:
        return BAD_FINGERPRINT
    work[W_FORM] = (head >> 8) & 0xFF
    if work[W_FORM] > FORM_TILES or (work[W_FORM] == FORM_RAW and program[P_RAW_LIMIT] == 0):
        return BAD_CONTENT
    work[W_EXISTS] = 1
    work[W_NEWEST_US] = load(source, start + 8)
    position = start + HEADER_BYTES
    for section in range(program[P_N_SECTIONS]):
        if is_written(program, work, section):
            position = _load_section(program, work, buffer, source, position, end, section, in_place)
            if position < 0:
                return BAD_CONTENT
        if section >= LEVELS:
            tile_us = program[section_facts(program, section) + S_TILE_US]
            work[section_state(section) + M_TOP] = work[W_NEWEST_US] // tile_us
    if not has_all_ids(program, work, source if in_place else buffer):
        return BAD_CONTENT
    return OK if position == end else BAD_LENGTH


@outlined
def _load_section(
    program: list[int], work: list[int], buffer: int, source: int, position: int, end: int, section: int, in_place: bool
) -> int:
    """Returns where the section ends, or -1 if it is broken."""
    facts, state = section_facts(program, section), section_state(section)
    size = program[facts + S_COUNT_BYTES]
    if position + size > end:
        return -1
    rows = get_unsigned(source, position, size)
    position += size
    if rows == 0:
        return position
    if rows > program[facts + S_CAPACITY]:
        return -1
    first, cells = program[facts + S_CELLS], program[facts + S_N_CELLS]
    if position + (cells + 1) // 2 > end:
        return -1
    offset = program[facts + S_INDEX_BYTES]
    codes = 0
    for cell in range(cells):
        if cell % 16 == 0:
            codes = load(source, position + cell // 2)
        code = codes & 15
        codes >>= 4
        size = _load_width(program, work, first + cell, code)
        if size < 0:
            return -1
        work[cell_state(program, first + cell) + D_OFFSET] = offset
        offset += size
    position += (cells + 1) // 2
    work[state + M_STRIDE] = offset
    work[state + M_ROWS] = rows
    if position + rows * offset > end:
        return -1
    if in_place:
        work[state + M_POSITION] = position
    else:
        move(buffer, program[facts + S_AREA], source, position, rows * offset)
    return position + rows * offset


@inner
def _load_width(program: list[int], work: list[int], cell: int, code: int) -> int:
    """Take up the width of a column; -1 if its kind has no such width."""
    kind = program[cell_facts(program, cell) + C_KIND]
    d = cell_state(program, cell)
    size = code
    work[d + D_FLOAT] = 0
    if kind == KIND_VALUE and code == _FLOAT_CODE:
        size = FLOAT_BYTES
        work[d + D_FLOAT] = 1
    elif kind == KIND_SIGNED:
        size = 16 if code == _WIDEST_CODE else code
    elif code > 8:
        return -1
    if size == 0:
        return -1
    work[d + D_BYTES] = size
    return size


@outlined
def state_bytes(program: list[int], work: list[int]) -> int:
    """How long the state will be."""
    size = HEADER_BYTES
    for section in range(program[P_N_SECTIONS]):
        if is_written(program, work, section):
            facts, state = section_facts(program, section), section_state(section)
            size += program[facts + S_COUNT_BYTES]
            if work[state + M_ROWS] > 0:
                size += (program[facts + S_N_CELLS] + 1) // 2 + work[state + M_ROWS] * work[state + M_STRIDE]
    return size


@outlined
def write_state(program: list[int], work: list[int], buffer: int, target: int, position: int) -> int:
    """Write the state; returns where it ends. The target has slack behind it."""
    store(target, position, STATE_VERSION | (work[W_FORM] << 8) | (program[P_FINGERPRINT] << 16))
    store(target, position + 8, work[W_NEWEST_US])
    position += HEADER_BYTES
    for section in range(program[P_N_SECTIONS]):
        if is_written(program, work, section):
            position = _write_section(program, work, buffer, target, position, section)
    return position


@outlined
def _write_section(program: list[int], work: list[int], buffer: int, target: int, position: int, section: int) -> int:
    facts, state = section_facts(program, section), section_state(section)
    rows = work[state + M_ROWS]
    put(target, position, program[facts + S_COUNT_BYTES], rows)
    position += program[facts + S_COUNT_BYTES]
    if rows == 0:
        return position
    first, cells = program[facts + S_CELLS], program[facts + S_N_CELLS]
    codes = 0
    for cell in range(cells):
        d = cell_state(program, first + cell)
        code = work[d + D_BYTES]
        if work[d + D_FLOAT] != 0:
            code = _FLOAT_CODE
        elif code == 16:
            code = _WIDEST_CODE
        codes |= code << (4 * (cell % 16))
        if cell % 16 == 15 or cell == cells - 1:
            store(target, position + (cell - cell % 16) // 2, codes)
            codes = 0
    position += (cells + 1) // 2
    size = rows * work[state + M_STRIDE]
    move(target, position, buffer, work[state + M_POSITION], size)
    return position + size
