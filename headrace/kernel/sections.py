"""The sections of a state while it is worked on: rows of fixed stride, edited in place.

    a state in bytes       header | partitions | ids | lifetime | raw events, or one section per level
    a section in bytes     number of rows | width of each cell, 4 bits each | rows
    a row                  index | cell | cell | ...

The index of a tile, or the time of an event, is kept modulo 2**(8 x its bytes): what is retained spans less than that, and ends
at the newest event, so nothing is ambiguous and nothing is ever rebased. A cell has as many bytes as the largest value of its
column needed so far; a value that does not fit widens the column. In a loaded state, sections lie in areas of one buffer that
hold the most rows that a layout can retain (twice, so that dropping old rows only moves the start).

Every function takes `program` (the opcode table) and `work` (the mutable numbers), see `program.py`, and the bytes.
What may not live here: what the rows mean (`folding.py`, `reading.py`) and states as a whole (`codec.py`).
"""

from __future__ import annotations

from typing import Final

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import add_wide, bits_float, float_bits, load, move, store
from headrace.kernel.numbers import (
    NOT_EXACT,
    exact_units,
    fits_signed,
    get_signed,
    get_unsigned,
    get_wide,
    put,
    put_wide,
    signed_bytes,
    unsigned_bytes,
    wide_bytes,
)
from headrace.program import (
    C_KIND,
    C_SCALE,
    C_SIZE,
    D_BYTES,
    D_FLOAT,
    D_OFFSET,
    D_SIZE,
    KIND_UNSIGNED,
    M_POSITION,
    M_ROWS,
    M_SIZE,
    M_STRIDE,
    P_CELLS,
    P_SECTIONS,
    P_WORK_CELLS,
    S_AREA,
    S_AREA_BYTES,
    S_CELLS,
    S_INDEX_BYTES,
    S_N_CELLS,
    S_SIZE,
    SLACK_BYTES,
    W_SECTIONS,
)

FLOAT_BYTES: Final = 8
_WIDE_BYTES: Final = 8  # from this width on a signed cell is added to in 128 bits


@inner
def section_facts(program: list[int], section: int) -> int:
    """Where the facts `S_*` of a section lie in the program."""
    return program[P_SECTIONS] + section * S_SIZE


@inner
def section_state(section: int) -> int:
    """Where the numbers `M_*` of a section lie in the working array."""
    return W_SECTIONS + section * M_SIZE


@inner
def cell_facts(program: list[int], cell: int) -> int:
    """Where the facts `C_*` of a cell lie in the program."""
    return program[P_CELLS] + cell * C_SIZE


@inner
def cell_state(program: list[int], cell: int) -> int:
    """Where the numbers `D_*` of a cell lie in the working array."""
    return program[P_WORK_CELLS] + cell * D_SIZE


@outlined
def clear(program: list[int], work: list[int], section: int) -> None:
    """A section without rows, its cells one byte wide."""
    facts, state = section_facts(program, section), section_state(section)
    offset = program[facts + S_INDEX_BYTES]
    first = program[facts + S_CELLS]
    for cell in range(first, first + program[facts + S_N_CELLS]):
        d = cell_state(program, cell)
        work[d + D_OFFSET] = offset
        work[d + D_BYTES] = 1
        work[d + D_FLOAT] = 0
        offset += 1
    work[state + M_POSITION] = program[facts + S_AREA]
    work[state + M_ROWS] = 0
    work[state + M_STRIDE] = offset


@inner
def row_position(work: list[int], section: int, row: int) -> int:
    """Where a row begins."""
    state = section_state(section)
    return work[state + M_POSITION] + row * work[state + M_STRIDE]


@inner
def cell_position(program: list[int], work: list[int], section: int, row: int, cell: int) -> int:
    """Where a cell of a row begins."""
    return row_position(work, section, row) + work[cell_state(program, cell) + D_OFFSET]


@inner
def get_index(program: list[int], work: list[int], buffer: int, section: int, row: int) -> int:
    """The stored low bytes of a row's index."""
    size = program[section_facts(program, section) + S_INDEX_BYTES]
    return get_unsigned(buffer, row_position(work, section, row), size)


@inner
def set_index(program: list[int], work: list[int], buffer: int, section: int, row: int, index: int) -> None:
    """Store the low bytes of a row's index."""
    size = program[section_facts(program, section) + S_INDEX_BYTES]
    put(buffer, row_position(work, section, row), size, index)


@inner
def _make_room(program: list[int], work: list[int], buffer: int, section: int, size: int) -> None:
    """Bring the rows to the start of their area if `size` bytes from where they begin would leave it."""
    facts, state = section_facts(program, section), section_state(section)
    area = program[facts + S_AREA]
    position = work[state + M_POSITION]
    if position + size > area + program[facts + S_AREA_BYTES] - SLACK_BYTES:
        move(buffer, area, buffer, position, work[state + M_ROWS] * work[state + M_STRIDE])
        work[state + M_POSITION] = area


@outlined
def insert_row(program: list[int], work: list[int], buffer: int, section: int, row: int) -> None:
    """Open a row of zeros before the given one."""
    state = section_state(section)
    rows, stride = work[state + M_ROWS], work[state + M_STRIDE]
    _make_room(program, work, buffer, section, (rows + 1) * stride)
    position = row_position(work, section, row)
    if row < rows:
        move(buffer, position + stride, buffer, position, (rows - row) * stride)
    after = load(buffer, position + stride)
    for at in range(position, position + stride, 8):
        store(buffer, at, 0)
    store(buffer, position + stride, after)
    work[state + M_ROWS] = rows + 1


@outlined
def drop_rows(program: list[int], work: list[int], section: int, count: int) -> None:
    """Forget the first rows."""
    state = section_state(section)
    if count == work[state + M_ROWS]:
        clear(program, work, section)
    else:
        work[state + M_POSITION] += count * work[state + M_STRIDE]
        work[state + M_ROWS] -= count


@outlined
def resize(program: list[int], work: list[int], buffer: int, section: int, cell: int, size: int) -> None:
    """Give a column cells of another width; the values must fit it."""
    facts, state, d = section_facts(program, section), section_state(section), cell_state(program, cell)
    rows, stride, old = work[state + M_ROWS], work[state + M_STRIDE], work[d + D_BYTES]
    grown = stride + size - old
    if size > old:
        _make_room(program, work, buffer, section, rows * grown)
    position, head = work[state + M_POSITION], work[d + D_OFFSET]
    unsigned = program[cell_facts(program, cell) + C_KIND] == KIND_UNSIGNED
    for step in range(rows):
        # Growing rows are moved from the last one on, shrinking ones from the first, so that none is overwritten unread.
        row = rows - 1 - step if size > old else step
        source, target = position + row * stride, position + row * grown
        if unsigned:
            high, low = 0, get_unsigned(buffer, source + head, old)
        else:
            high, low = get_wide(buffer, source + head, old)
        if size > old:
            move(buffer, target + head + size, buffer, source + head + old, stride - head - old)
            move(buffer, target, buffer, source, head)
            put_wide(buffer, target + head, size, high, low)
        else:
            move(buffer, target, buffer, source, head)
            # put_wide keeps the bytes behind the cell, so the unread tail survives it even where they overlap.
            put_wide(buffer, target + head, size, high, low)
            move(buffer, target + head + size, buffer, source + head + old, stride - head - old)
    work[state + M_STRIDE] = grown
    work[d + D_BYTES] = size
    first = program[facts + S_CELLS]
    for other in range(cell + 1, first + program[facts + S_N_CELLS]):
        work[cell_state(program, other) + D_OFFSET] += size - old


# --- cells -----------------------------------------------------------------------------------------------------------


@inner
def get_count(program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int) -> int:
    """The value of an unsigned cell."""
    size = work[cell_state(program, cell) + D_BYTES]
    return get_unsigned(buffer, cell_position(program, work, section, row, cell), size)


@inner
def set_count(program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int, value: int) -> None:
    """Write an unsigned cell, widening its column if needed."""
    size = unsigned_bytes(value)
    if size > work[cell_state(program, cell) + D_BYTES]:
        resize(program, work, buffer, section, cell, size)
    size = work[cell_state(program, cell) + D_BYTES]
    put(buffer, cell_position(program, work, section, row, cell), size, value)


@inner
def get_integer(program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int) -> int:
    """The value of a signed cell of at most 8 bytes."""
    size = work[cell_state(program, cell) + D_BYTES]
    return get_signed(buffer, cell_position(program, work, section, row, cell), size)


@inner
def set_integer(
    program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int, value: int
) -> None:
    """Write a signed cell, widening its column if needed."""
    d = cell_state(program, cell)
    if not fits_signed(value, work[d + D_BYTES]):
        resize(program, work, buffer, section, cell, signed_bytes(value))
    put(buffer, cell_position(program, work, section, row, cell), work[d + D_BYTES], value)


@inner
def add_integer(
    program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int, high: int, low: int
) -> None:
    """Add a 128-bit number to a signed cell, widening its column if needed."""
    d = cell_state(program, cell)
    size = work[d + D_BYTES]
    position = cell_position(program, work, section, row, cell)
    if size < _WIDE_BYTES and high == low >> 63 and -(1 << 62) < low < 1 << 62:
        total = get_signed(buffer, position, size) + low
        if fits_signed(total, size):
            put(buffer, position, size, total)
            return
    total_high, total_low = get_wide(buffer, position, size)
    total_high, total_low = add_wide(total_high, total_low, high, low)
    needed = wide_bytes(total_high, total_low)
    if needed > size:
        resize(program, work, buffer, section, cell, needed)
        position = cell_position(program, work, section, row, cell)
    put_wide(buffer, position, work[d + D_BYTES], total_high, total_low)


@inner
def get_value(program: list[int], work: list[int], buffer: int, section: int, row: int, cell: int) -> float:
    """The value of a value cell: whole quanta over the scale, or a float64."""
    d = cell_state(program, cell)
    position = cell_position(program, work, section, row, cell)
    if work[d + D_FLOAT] != 0:
        return bits_float(load(buffer, position))
    return float(get_signed(buffer, position, work[d + D_BYTES])) / float(program[cell_facts(program, cell) + C_SCALE])


@inner
def set_value(
    program: list[int],
    work: list[int],
    buffer: int,
    section: int,
    row: int,
    cell: int,
    value: float,
    units: int,
    exact: int,
) -> None:
    """Write a value cell: as whole quanta if they are the value exactly, else as a float64, as its whole column then is."""
    d = cell_state(program, cell)
    if work[d + D_FLOAT] == 0:
        if exact != 0:
            set_integer(program, work, buffer, section, row, cell, units)
            return
        to_floats(program, work, buffer, section, cell)
    store_at = cell_position(program, work, section, row, cell)
    put(buffer, store_at, FLOAT_BYTES, float_bits(value))


@outlined
def to_floats(program: list[int], work: list[int], buffer: int, section: int, cell: int) -> None:
    """Turn a column of whole quanta into float64."""
    d = cell_state(program, cell)
    if work[d + D_BYTES] != FLOAT_BYTES:
        resize(program, work, buffer, section, cell, FLOAT_BYTES)
    for row in range(work[section_state(section) + M_ROWS]):
        value = get_value(program, work, buffer, section, row, cell)
        put(buffer, cell_position(program, work, section, row, cell), FLOAT_BYTES, float_bits(value))
    work[d + D_FLOAT] = 1


@outlined
def shrink(program: list[int], work: list[int], buffer: int, section: int) -> None:
    """Give every column the narrowest width that holds its values: bytes that do not tell in which order they came."""
    facts = section_facts(program, section)
    first = program[facts + S_CELLS]
    for cell in range(first, first + program[facts + S_N_CELLS]):
        if work[cell_state(program, cell) + D_FLOAT] != 0:
            _from_floats(program, work, buffer, section, cell)
        if work[cell_state(program, cell) + D_FLOAT] == 0:
            size = _needed_bytes(program, work, buffer, section, cell)
            if size < work[cell_state(program, cell) + D_BYTES]:
                resize(program, work, buffer, section, cell, size)


@outlined
def _needed_bytes(program: list[int], work: list[int], buffer: int, section: int, cell: int) -> int:
    needed, size = 1, work[cell_state(program, cell) + D_BYTES]
    unsigned = program[cell_facts(program, cell) + C_KIND] == KIND_UNSIGNED
    for row in range(work[section_state(section) + M_ROWS]):
        position = cell_position(program, work, section, row, cell)
        if unsigned:
            needed = max(needed, unsigned_bytes(get_unsigned(buffer, position, size)))
        else:
            high, low = get_wide(buffer, position, size)
            needed = max(needed, wide_bytes(high, low))
    return needed


@outlined
def _from_floats(program: list[int], work: list[int], buffer: int, section: int, cell: int) -> None:
    """Turn a column of float64 into whole quanta, if they are its values exactly."""
    d = cell_state(program, cell)
    scale = program[cell_facts(program, cell) + C_SCALE]
    rows = work[section_state(section) + M_ROWS]
    for row in range(rows):
        value = get_value(program, work, buffer, section, row, cell)
        if exact_units(value, scale) == NOT_EXACT:
            return
    for row in range(rows):
        value = get_value(program, work, buffer, section, row, cell)
        put(buffer, cell_position(program, work, section, row, cell), FLOAT_BYTES, exact_units(value, scale))
    work[d + D_FLOAT] = 0
