"""Exact numbers: cells of 1 to 16 bytes, rounding to the quantum, and 128-bit integers as floats.

Cells are two's complement, little-endian, of as many bytes as their column needs. What may not live here: rows and sections.
"""

from __future__ import annotations

import math
from typing import Final

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import (
    add_wide,
    float_bits,
    leading_zeros,
    load,
    multiply_wide,
    shift_right,
    store,
    subtract_wide,
    unsigned_float,
    unsigned_less,
)

NOT_EXACT: Final = 1 << 53
"""Beyond this a float64 no longer tells neighbouring integers apart."""
SUMMABLE: Final = 4.6e18  # 2**62: larger values are compared, never added
_SURE: Final = float(1 << 50)
_PRODUCT_ERROR: Final = 2.0**-52


@inner
def get_signed(buffer: int, position: int, size: int) -> int:
    """A signed cell of 1 to 8 bytes."""
    shift = 64 - 8 * size
    return (load(buffer, position) << shift) >> shift


@inner
def get_unsigned(buffer: int, position: int, size: int) -> int:
    """An unsigned cell of 1 to 8 bytes."""
    shift = 64 - 8 * size
    return shift_right(load(buffer, position) << shift, shift)


@inner
def put(buffer: int, position: int, size: int, value: int) -> None:
    """Write the low 1 to 8 bytes; the bytes behind them stay."""
    mask = shift_right(-1, 64 - 8 * size)
    store(buffer, position, (load(buffer, position) & ~mask) | (value & mask))


@inner
def get_wide(buffer: int, position: int, size: int) -> tuple[int, int]:
    """A signed cell of 1 to 16 bytes as (high, low)."""
    if size <= 8:
        low = get_signed(buffer, position, size)
        return low >> 63, low
    return get_signed(buffer, position + 8, size - 8), load(buffer, position)


@inner
def put_wide(buffer: int, position: int, size: int, high: int, low: int) -> None:
    """Write the low 1 to 16 bytes of a 128-bit number."""
    if size <= 8:
        put(buffer, position, size, low)
    else:
        store(buffer, position, low)
        put(buffer, position + 8, size - 8, high)


@inner
def fits_signed(value: int, size: int) -> bool:
    """Whether a signed cell of this size holds the value."""
    shift = 64 - 8 * size
    return (value << shift) >> shift == value


@inner
def signed_bytes(value: int) -> int:
    """The smallest signed cell that holds a value."""
    return (64 - leading_zeros(value ^ (value >> 63))) // 8 + 1


@inner
def unsigned_bytes(value: int) -> int:
    """The smallest unsigned cell that holds a value."""
    return max(1, (71 - leading_zeros(value)) // 8)


@inner
def wide_bytes(high: int, low: int) -> int:
    """The smallest signed cell that holds a 128-bit number; 15 is rounded up to 16, which a state writes in four bits."""
    if high == low >> 63:
        return signed_bytes(low)
    size = 8 + signed_bytes(high)
    return 16 if size >= 15 else size


@outlined
def wide_float(high: int, low: int) -> float:
    """The float64 nearest to a 128-bit integer; ties go to even."""
    if high == low >> 63:
        return float(low)
    negative = high < 0
    if negative:
        high, low = subtract_wide(0, 0, high, low)
    if high == 0:
        result = unsigned_float(low)
    else:
        # The upper 64 bits from the first one bit on; what is cut off is remembered in the last bit, which only breaks ties.
        zeros = leading_zeros(high)
        top, rest = high, low
        if zeros > 0:
            top = (high << zeros) | shift_right(low, 64 - zeros)
            rest = low << zeros
        if rest != 0:
            top |= 1
        result = math.ldexp(unsigned_float(top), 64 - zeros)
    return -result if negative else result


@inner
def quantise(value: float, scale: int) -> int:
    """The value times the scale, rounded to the nearest integer, ties to even, as if computed without limit of precision.

    A float product errs by at most 2**-53 of itself; only where that could change the rounding is it computed in integers.
    """
    product = value * scale
    if abs(product) < _SURE:
        whole = math.floor(product)
        fraction = product - whole
        if abs(fraction - 0.5) > abs(product) * _PRODUCT_ERROR:
            return int(whole) + (1 if fraction > 0.5 else 0)
    return _quantise_exactly(value, scale)


@outlined
def _quantise_exactly(value: float, scale: int) -> int:
    bits = float_bits(value)
    exponent = (bits >> 52) & 0x7FF
    if exponent == 0:
        return 0
    # value = mantissa * 2**(exponent - 1075), and the product of mantissa and scale has at most 93 bits.
    mantissa = (bits & ((1 << 52) - 1)) | (1 << 52)
    high, low = multiply_wide(0, mantissa, scale)
    cut = 1075 - exponent
    if cut >= 95:
        return 0
    if cut <= 0:
        result = low << -cut
    elif cut < 64:
        result = shift_right(low, cut) | (high << (64 - cut))
        result += _round_up(result, 0, low & ((1 << cut) - 1), 0, 1 << (cut - 1))
    elif cut == 64:
        result = high
        result += _round_up(result, 0, low, 0, -(1 << 63))
    else:
        result = high >> (cut - 64)
        result += _round_up(result, high & ((1 << (cut - 64)) - 1), low, 1 << (cut - 65), 0)
    return -result if bits < 0 else result


@inner
def _round_up(result: int, high: int, low: int, half_high: int, half_low: int) -> int:
    if high == half_high and low == half_low:
        return result & 1
    if high == half_high:
        return 1 if unsigned_less(half_low, low) else 0
    return 1 if high > half_high else 0


@outlined
def exact_units(value: float, scale: int) -> int:
    """The value in whole quanta if they are the value exactly, else NOT_EXACT."""
    if abs(value) * scale >= SUMMABLE:
        return NOT_EXACT
    units = quantise(value, scale)
    return units if abs(units) < NOT_EXACT and float(units) / float(scale) == value else NOT_EXACT


@inner
def square_wide(value: int) -> tuple[int, int]:
    """A square in 128 bits."""
    return multiply_wide(value >> 63, value, value)


@outlined
def second_moment(count: int, high: int, low: int, squares_high: int, squares_low: int) -> tuple[float, float]:
    """(Σ(x - m)², Σx - n·m) as floats, for m the integer nearest to the mean; every step before is exact.

    Σ(x - m)² = Σx² - m (Σx + d) with d = Σx - n·m. It is smaller than 2**127 even where Σx² has wrapped around.
    """
    m = math.floor(wide_float(high, low) / float(count) + 0.5)
    product_high, product_low = multiply_wide(m >> 63, m, count)
    _, d = subtract_wide(high, low, product_high, product_low)
    # The float quotient may have missed the nearest integer by a little.
    while 2 * d >= count:
        m += 1
        d -= count
    while 2 * d < -count:
        m -= 1
        d += count
    high, low = add_wide(high, low, d >> 63, d)
    high, low = multiply_wide(high, low, m)
    high, low = subtract_wide(squares_high, squares_low, high, low)
    return wide_float(high, low), float(d)
