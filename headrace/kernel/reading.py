"""Reading a state: merge what each window covers, finalize, and run the code of the features.

    windows   tiles floor((at - W) / g) ... floor(at / g), none before the horizon      rows -> registers
    finals    count, sum, mean ... by one fixed sequence of operations                  registers -> values
    code      arithmetic over values                                                    values -> features

A state in raw form is read event by event, with the same tile boundaries, so that the form never shows. Reading changes nothing.
What may not live here: anything that writes a section.
"""

from __future__ import annotations

import math
from typing import Final

from headrace.aggregations import Accumulator, Finalizer
from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import add_wide, bits_float, float_bits, load, multiply_wide
from headrace.kernel.numbers import get_signed, get_unsigned, get_wide, quantise, second_moment, square_wide, wide_float
from headrace.kernel.raw import is_valid
from headrace.kernel.retention import horizon, raw_time, tile_index
from headrace.kernel.sections import (
    cell_facts,
    cell_position,
    cell_state,
    get_count,
    get_integer,
    get_value,
    section_facts,
    section_state,
)
from headrace.program import (
    C_SCALE,
    D_BYTES,
    D_FLOAT,
    D_OFFSET,
    F_RAW_CELL,
    F_SCALE,
    F_SIZE,
    FORM_RAW,
    G_HIGH,
    G_LOW,
    G_SIZE,
    G_VALUE,
    I_FIELD,
    I_SIZE,
    LIFETIME,
    M_POSITION,
    M_ROWS,
    M_STRIDE,
    O_ARGUMENT,
    O_CODE,
    O_SIZE,
    OP_ADD,
    OP_CONSTANT,
    OP_DEFAULT,
    OP_DIVIDE,
    OP_FINAL,
    OP_MULTIPLY,
    OP_NEGATE,
    OP_STORE,
    OP_SUBTRACT,
    P_CODE,
    P_FIELDS,
    P_FINALS,
    P_INPUTS,
    P_N_CODE,
    P_N_WINDOWS,
    P_READS,
    P_WINDOWS,
    P_WORK_REGISTERS,
    P_WORK_STACK,
    R_CELL,
    R_COUNT_CELL,
    R_INPUT,
    R_OP,
    R_REGISTER,
    R_SIZE,
    RAW,
    S_TILE_US,
    V_N_READS,
    V_READS,
    V_SECTION,
    V_SIZE,
    V_WINDOW_US,
    W_EXISTS,
    W_FORM,
    W_NEWEST_US,
    Z_COUNT,
    Z_DDOF,
    Z_DEFAULT,
    Z_FIRST,
    Z_HAS_DEFAULT,
    Z_OP,
    Z_SCALE,
    Z_SECOND,
    Z_SIZE,
)

_COUNT: Final = int(Accumulator.COUNT)
_SUM: Final = int(Accumulator.SUM)
_SUM_SQUARES: Final = int(Accumulator.SUM_SQUARES)
_MIN: Final = int(Accumulator.MIN)
_MAX: Final = int(Accumulator.MAX)
_FIRST: Final = int(Accumulator.FIRST)
_LAST: Final = int(Accumulator.LAST)
_LATEST: Final = int(Accumulator.LATEST)

_FINAL_COUNT: Final = int(Finalizer.COUNT)
_FINAL_SUM: Final = int(Finalizer.SUM)
_FINAL_MEAN: Final = int(Finalizer.MEAN)
_FINAL_VAR: Final = int(Finalizer.VAR)
_FINAL_STD: Final = int(Finalizer.STD)
_FINAL_VALUE: Final = int(Finalizer.VALUE)
_FINAL_SINCE: Final = int(Finalizer.SINCE)

_NARROW_BYTES: Final = 6  # thousands of cells of this width still sum in 64 bits


@outlined
def read_state(program: list[int], work: list[int], buffer: int, at_us: int, target: list[float], first: int) -> None:
    """Write the features of the loaded state, as seen at a moment, to target[first:].

    Args:
        program: the opcode table.
        work: where the state lies.
        buffer: the bytes in which it lies.
        at_us: the moment.
        target: receives the features; null is NaN.
        first: the place of the first one.
    """
    for number in range(program[P_N_WINDOWS]):
        window = program[P_WINDOWS] + number * V_SIZE
        section, window_us = program[window + V_SECTION], program[window + V_WINDOW_US]
        raw = section != LIFETIME and work[W_FORM] == FORM_RAW
        begin, end = _covered(program, work, buffer, section, window_us, at_us, raw)
        for i in range(program[window + V_N_READS]):
            read = program[P_READS] + (program[window + V_READS] + i) * R_SIZE
            register = program[P_WORK_REGISTERS] + program[read + R_REGISTER] * G_SIZE
            work[register + G_HIGH] = work[register + G_LOW] = 0
            if begin < end and raw:
                _merge_raw(program, work, buffer, read, register, begin, end)
            elif begin < end:
                _merge_tiles(program, work, buffer, section, read, register, begin, end)
    _run_code(program, work, at_us, target, first)


@outlined
def _covered(
    program: list[int], work: list[int], buffer: int, section: int, window_us: int, at_us: int, raw: bool
) -> tuple[int, int]:
    """The rows that a window covers: from the first, up to the second."""
    rows = work[section_state(RAW if raw else section) + M_ROWS]
    if section == LIFETIME or work[W_EXISTS] == 0 or rows == 0:
        return 0, rows
    tile_us = program[section_facts(program, section) + S_TILE_US]
    oldest = max((at_us - window_us) // tile_us, horizon(program, section, work[W_NEWEST_US]))
    newest = at_us // tile_us
    if raw:
        oldest, newest = oldest * tile_us, newest * tile_us + tile_us - 1
    begin = _lower_bound(program, work, buffer, section, raw, rows, oldest)
    if work[W_NEWEST_US] // tile_us <= newest and not raw:
        return begin, rows
    return begin, _lower_bound(program, work, buffer, section, raw, rows, newest + 1)


@inner
def _lower_bound(
    program: list[int], work: list[int], buffer: int, section: int, raw: bool, rows: int, index: int
) -> int:
    """The first row at or after a tile (raw: a time)."""
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if raw:
            found = raw_time(program, work, buffer, middle)
        else:
            found = tile_index(program, work, buffer, section, middle)
        if found < index:
            low = middle + 1
        else:
            high = middle
    return low


# --- tiles -> registers ----------------------------------------------------------------------------------------------


@outlined
def _merge_tiles(
    program: list[int], work: list[int], buffer: int, section: int, read: int, register: int, begin: int, end: int
) -> None:
    op, cell = program[read + R_OP], program[read + R_CELL]
    if op == _COUNT:
        work[register + G_LOW] = _total_count(program, work, buffer, section, cell, begin, end)
    elif op in (_SUM, _SUM_SQUARES):
        high, low = _total(program, work, buffer, section, cell, begin, end)
        work[register + G_HIGH], work[register + G_LOW] = high, low
    elif op in (_MIN, _MAX):
        sign = 1 if op == _MAX else -1
        value = _extreme(program, work, buffer, section, cell, program[read + R_COUNT_CELL], begin, end, sign)
        work[register + G_VALUE] = float_bits(value)
    else:
        row, step = (begin, 1) if op == _FIRST else (end - 1, -1)
        while begin <= row < end and get_count(program, work, buffer, section, row, program[read + R_COUNT_CELL]) == 0:
            row += step
        if row < begin or row >= end:
            return
        if op == _LATEST:
            start_us = 0
            if section != LIFETIME:
                tile_us = program[section_facts(program, section) + S_TILE_US]
                start_us = tile_index(program, work, buffer, section, row) * tile_us
            work[register + G_LOW] = start_us + get_integer(program, work, buffer, section, row, cell)
        else:
            value = get_value(program, work, buffer, section, row, cell + 3)
            work[register + G_VALUE] = float_bits(value)


@inner
def _total_count(
    program: list[int], work: list[int], buffer: int, section: int, cell: int, begin: int, end: int
) -> int:
    size, stride = work[cell_state(program, cell) + D_BYTES], work[section_state(section) + M_STRIDE]
    position = cell_position(program, work, section, begin, cell)
    total = 0
    for _ in range(begin, end):
        total += get_unsigned(buffer, position, size)
        position += stride
    return total


@inner
def _total(
    program: list[int], work: list[int], buffer: int, section: int, cell: int, begin: int, end: int
) -> tuple[int, int]:
    size, stride = work[cell_state(program, cell) + D_BYTES], work[section_state(section) + M_STRIDE]
    position = cell_position(program, work, section, begin, cell)
    low = high = 0
    if size <= _NARROW_BYTES:
        for _ in range(begin, end):
            low += get_signed(buffer, position, size)
            position += stride
        return low >> 63, low
    for _ in range(begin, end):
        more_high, more_low = get_wide(buffer, position, size)
        high, low = add_wide(high, low, more_high, more_low)
        position += stride
    return high, low


@inner
def _extreme(
    program: list[int],
    work: list[int],
    buffer: int,
    section: int,
    cell: int,
    count_cell: int,
    begin: int,
    end: int,
    sign: int,
) -> float:
    """The largest (sign 1) or smallest (sign -1) value; NaN if all rows are empty."""
    state = section_state(section)
    d, counts = cell_state(program, cell), cell_state(program, count_cell)
    stride = work[state + M_STRIDE]
    position = work[state + M_POSITION] + begin * stride
    offset, size = work[d + D_OFFSET], work[d + D_BYTES]
    count_offset, count_size = work[counts + D_OFFSET], work[counts + D_BYTES]
    found = False
    best, best_units = math.nan, 0
    for _ in range(begin, end):
        if get_unsigned(buffer, position + count_offset, count_size) != 0:
            if work[d + D_FLOAT] != 0:
                value = bits_float(load(buffer, position + offset))
                if not found or (value - best) * sign > 0.0:
                    best = value
            else:
                units = get_signed(buffer, position + offset, size)
                if not found or (units - best_units) * sign > 0:
                    best_units = units
            found = True
        position += stride
    if found and work[d + D_FLOAT] == 0:
        best = float(best_units) / float(program[cell_facts(program, cell) + C_SCALE])
    return best


# --- events -> registers ---------------------------------------------------------------------------------------------


@outlined
def _merge_raw(
    program: list[int], work: list[int], buffer: int, read: int, register: int, begin: int, end: int
) -> None:
    op, index = program[read + R_OP], program[read + R_INPUT]
    field = program[program[P_INPUTS] + index * I_SIZE + I_FIELD]
    cell, scale = -1, 1
    if field >= 0:
        cell = program[program[P_FIELDS] + field * F_SIZE + F_RAW_CELL]
        scale = program[program[P_FIELDS] + field * F_SIZE + F_SCALE]
    high = low = 0
    best, found = math.nan, False
    for row in range(begin, end):
        if not is_valid(program, work, buffer, row, index):
            continue
        if op == _COUNT:
            low += 1
        elif op == _LATEST:
            low = raw_time(program, work, buffer, row)
        elif op == _SUM:
            units = _units(program, work, buffer, row, cell, scale)
            high, low = add_wide(high, low, units >> 63, units)
        elif op == _SUM_SQUARES:
            square_high, square_low = square_wide(_units(program, work, buffer, row, cell, scale))
            high, low = add_wide(high, low, square_high, square_low)
        else:
            value = get_value(program, work, buffer, RAW, row, cell)
            if not found or op == _LAST or (op == _MIN and value < best) or (op == _MAX and value > best):
                best = value
            found = True
    work[register + G_HIGH], work[register + G_LOW], work[register + G_VALUE] = high, low, float_bits(best)


@inner
def _units(program: list[int], work: list[int], buffer: int, row: int, cell: int, scale: int) -> int:
    """The value of a retained event in whole quanta."""
    if work[cell_state(program, cell) + D_FLOAT] == 0:
        return get_integer(program, work, buffer, RAW, row, cell)
    return quantise(get_value(program, work, buffer, RAW, row, cell), scale)


# --- registers -> values -> features ---------------------------------------------------------------------------------


@outlined
def _final(program: list[int], work: list[int], number: int, at_us: int) -> float:
    """The value of one aggregation; NaN for null. The sequence of operations is that of `aggregations/`."""
    z = program[P_FINALS] + number * Z_SIZE
    op, scale = program[z + Z_OP], program[z + Z_SCALE]
    registers = program[P_WORK_REGISTERS]
    first = registers + program[z + Z_FIRST] * G_SIZE
    count = 0
    if program[z + Z_COUNT] >= 0:
        count = work[registers + program[z + Z_COUNT] * G_SIZE + G_LOW]
    if op == _FINAL_COUNT:
        return float(count)
    if op == _FINAL_SUM:
        return wide_float(work[first + G_HIGH], work[first + G_LOW]) / float(scale)
    value = math.nan
    if count > 0:
        if op == _FINAL_MEAN:
            high, low = multiply_wide(0, count, scale)
            value = wide_float(work[first + G_HIGH], work[first + G_LOW]) / wide_float(high, low)
        elif op == _FINAL_VALUE:
            value = bits_float(work[first + G_VALUE])
        elif op == _FINAL_SINCE:
            value = float(at_us - work[first + G_LOW]) / 1e6
        elif count > program[z + Z_DDOF]:
            second = registers + program[z + Z_SECOND] * G_SIZE
            moment, d = second_moment(
                count, work[first + G_HIGH], work[first + G_LOW], work[second + G_HIGH], work[second + G_LOW]
            )
            freedom = float(count - program[z + Z_DDOF])
            value = (float(count) * moment - d * d) / (float(count) * freedom * (float(scale) * float(scale)))
            if op == _FINAL_STD:
                value = math.sqrt(value)
    if math.isnan(value) and program[z + Z_HAS_DEFAULT] != 0:
        value = bits_float(program[z + Z_DEFAULT])
    return value


@outlined
def _run_code(program: list[int], work: list[int], at_us: int, target: list[float], first: int) -> None:
    """Run the stack code of all features; whatever is not finite is null."""
    top = program[P_WORK_STACK] - 1
    for number in range(program[P_N_CODE]):
        code = program[P_CODE] + number * O_SIZE
        op, argument = program[code + O_CODE], program[code + O_ARGUMENT]
        if op == OP_FINAL:
            top += 1
            work[top] = float_bits(_final(program, work, argument, at_us))
        elif op == OP_CONSTANT:
            top += 1
            work[top] = argument
        elif op == OP_NEGATE:
            work[top] = float_bits(-bits_float(work[top]))
        elif op == OP_STORE:
            value = bits_float(work[top])
            target[first + argument] = value if math.isfinite(value) else math.nan
            top -= 1
        else:
            top -= 1
            work[top] = float_bits(_binary(op, bits_float(work[top]), bits_float(work[top + 1])))


@inner
def _binary(op: int, left: float, right: float) -> float:
    if op == OP_DEFAULT:
        return left if math.isfinite(left) else right
    if op == OP_ADD:
        result = left + right
    elif op == OP_SUBTRACT:
        result = left - right
    elif op == OP_MULTIPLY:
        result = left * right
    elif op == OP_DIVIDE and right != 0.0:
        result = left / right
    else:
        result = math.nan
    return result if math.isfinite(result) else math.nan
