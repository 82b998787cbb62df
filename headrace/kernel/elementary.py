"""exp, log, pow and their kind as fixed sequences of exact operations: the same bits on every processor and operating system.

The C library's own functions differ by its version and by the processor's instructions, and numpy's by a value's place in an
array as well. Here only IEEE + - * /, rounding to an integer and the bits of a float are used, none of which has a choice;
the compiler may use vector instructions, but neither reorders nor fuses them without fast-math.

The algorithms and constants are those of fdlibm (Sun Microsystems, 1993; "Permission to use, copy, modify, and distribute this
software is freely granted, provided that this notice is preserved"), as FreeBSD and musl keep them. Errors stay below one unit
in the last place (tanh: three). NaN in gives NaN out, also in pow(NaN, 0). What may not live here: anything that Python calls on numbers;
see ``headrace.arrays``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.kernel.compiling import entry, inner

Floats: TypeAlias = npt.NDArray[np.float64]

#: sin and cos reduce their argument by three parts of pi/2; beyond this they give NaN rather than noise.
LARGEST_ANGLE = 1e6

LN2_HI = 6.93147180369123816490e-01
LN2_LO = 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700
_HIGH = -(1 << 32)
_LOW_20 = 0xFFFFF


# --- bits ------------------------------------------------------------------------------------------------------------


@inner
def _bits(x: float) -> int:
    return int(np.float64(x).view(np.int64))


@inner
def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))


@inner
def _high_word(x: float) -> int:
    """The sign, exponent and first 20 bits of the fraction, as a signed 32-bit number."""
    return _bits(x) >> 32


@inner
def _from_high_word(high: int) -> float:
    return _float(int(high) << 32)


@inner
def _short(x: float) -> float:
    """The value without its last 32 bits, so that products of two such values are exact."""
    return _float(_bits(x) & _HIGH)


@inner
def _power_of_2(k: int) -> float:
    return _float((int(k) + 1023) << 52)


@inner
def _scaled(x: float, k: int) -> float:
    """X · 2**k, rounded once even where the result is subnormal."""
    if k > 1023:
        x, k = x * 2.0**1023, k - 1023
        if k > 1023:
            x, k = x * 2.0**1023, min(k - 1023, 1023)
    elif k < -1022:
        # 2**-969 keeps 53 bits above the subnormals, so that only the last product rounds.
        x, k = x * 2.0**-969, k + 969
        if k < -1022:
            x, k = x * 2.0**-969, max(k + 969, -1022)
    return x * _power_of_2(k)


# --- exponentials ----------------------------------------------------------------------------------------------------


@inner
def exp(x: float) -> float:
    """e**x: x = k·ln 2 + r with |r| ≤ ln 2 / 2, and a rational approximation of e**r."""
    if np.isnan(x):
        return x
    if x > 7.09782712893383973096e02:
        return np.inf
    if x < -7.45133219101941108420e02:
        return 0.0
    k = int(INVERSE_LN2 * x + (0.5 if x >= 0.0 else -0.5))
    high = x - k * LN2_HI
    low = k * LN2_LO
    r = high - low
    t = r * r
    c = r - t * (
        1.66666666666666019037e-01
        + t
        * (
            -2.77777777770155933842e-03
            + t * (6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))
        )
    )
    return _scaled(1.0 - ((low - (r * c) / (2.0 - c)) - high), k)


@inner
def expm1(x: float) -> float:
    """e**x - 1, by a rational approximation that keeps what is lost by subtracting 1."""
    if np.isnan(x) or x == 0.0:
        return x
    if x > 7.09782712893383973096e02:
        return np.inf
    if x < -38.816242:  # 56 ln 2: e**x is below half a unit of 1
        return -1.0
    magnitude = abs(x)
    if magnitude < 2.0**-54:
        return x
    k, c = 0, 0.0
    if magnitude > 0.34657359027997264:
        k = int(INVERSE_LN2 * x + (0.5 if x >= 0.0 else -0.5))
        high = x - k * LN2_HI
        low = k * LN2_LO
        x = high - low
        c = (high - x) - low
    half = 0.5 * x
    square = x * half
    r = 1.0 + square * (
        -3.33333333333331316428e-02
        + square
        * (
            1.58730158725481460165e-03
            + square
            * (
                -7.93650757867487942473e-05
                + square * (4.00821782732936239552e-06 - square * 2.01099218183624371326e-07)
            )
        )
    )
    t = 3.0 - r * half
    e = square * ((r - t) / (6.0 - x * t))
    if k == 0:
        return x - (x * e - square)
    e = x * (e - c) - c - square
    return _expm1_scaled(x, e, k)


@inner
def _expm1_scaled(x: float, e: float, k: int) -> float:
    if k == -1:
        return 0.5 * (x - e) - 0.5
    if k == 1:
        return -2.0 * (e - (x + 0.5)) if x < -0.25 else 1.0 + 2.0 * (x - e)
    if k < 0 or k > 56:
        return _scaled(x - e + 1.0, k) - 1.0
    if k < 20:
        return (x - e + (1.0 - _power_of_2(-k))) * _power_of_2(k)
    return (x - (e + _power_of_2(-k)) + 1.0) * _power_of_2(k)


@inner
def tanh(x: float) -> float:
    """(e**2x - 1) / (e**2x + 1), in the form that keeps its digits."""
    if np.isnan(x):
        return x
    magnitude = abs(x)
    if magnitude > 22.0:
        result = 1.0
    elif magnitude > 0.5493061443340549:
        result = 1.0 - 2.0 / (expm1(2.0 * magnitude) + 2.0)
    elif magnitude > 0.25541281188299536:
        t = expm1(2.0 * magnitude)
        result = t / (t + 2.0)
    elif magnitude >= 2.0**-54:
        t = expm1(-2.0 * magnitude)
        result = -t / (t + 2.0)
    else:
        return x
    return -result if x < 0.0 else result


# --- logarithms ------------------------------------------------------------------------------------------------------


@inner
def _log_tail(s: float) -> float:
    """The series of log((1 + s) / (1 - s)) behind its first term, over s."""
    z = s * s
    w = z * z
    odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    even = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    return odd + even


@inner
def log(x: float) -> float:
    """Ln x: x = 2**k · (1 + f) with 1 + f between √½ and √2, and a series in f / (2 + f)."""
    if np.isnan(x) or x < 0.0:
        return np.nan
    if x == 0.0:
        return -np.inf
    if x == np.inf:
        return x
    k = 0
    if x < 2.2250738585072014e-308:
        x, k = x * 2.0**54, -54
    high = _high_word(x) + (0x3FF00000 - 0x3FE6A09E)
    k += (high >> 20) - 1023
    f = _float((((high & _LOW_20) + 0x3FE6A09E) << 32) | (_bits(x) & ~_HIGH)) - 1.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    return s * (half + _log_tail(s)) + k * LN2_LO - half + f + k * LN2_HI


@inner
def log1p(x: float) -> float:
    """ln(1 + x), with what rounding 1 + x loses added again."""
    if np.isnan(x) or x < -1.0:
        return np.nan
    if x == -1.0:
        return -np.inf
    if x == np.inf or abs(x) < 2.0**-54:
        return x
    k, c, f = 0, 0.0, x
    if x <= -0.29289321881345254 or x >= 0.41421356237309503:
        u = 1.0 + x
        high = _high_word(u) + (0x3FF00000 - 0x3FE6A09E)
        k = (high >> 20) - 1023
        if k < 54:
            c = (1.0 - (u - x) if k >= 2 else x - (u - 1.0)) / u
        f = _float((((high & _LOW_20) + 0x3FE6A09E) << 32) | (_bits(u) & ~_HIGH)) - 1.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    return s * (half + _log_tail(s)) + (k * LN2_LO + c) - half + f + k * LN2_HI


# --- angles ----------------------------------------------------------------------------------------------------------


@inner
def _reduced(x: float) -> tuple[int, float, float]:
    """X - n·pi/2 as a sum of two floats, and n; pi/2 in up to three parts, as many as cancellation asks for."""
    n = np.rint(x * 6.36619772367581382433e-01)
    r = x - n * 1.57079632673412561417
    w = n * 6.07710050650619224932e-11
    y = r - w
    exponent = (_bits(x) >> 52) & 0x7FF
    if exponent - ((_bits(y) >> 52) & 0x7FF) > 16:
        t = r
        w = n * 6.07710050630396597660e-11
        r = t - w
        w = n * 2.02226624879595063154e-21 - ((t - r) - w)
        y = r - w
        if exponent - ((_bits(y) >> 52) & 0x7FF) > 49:
            t = r
            w = n * 2.02226624871116645580e-21
            r = t - w
            w = n * 8.47842766036889956997e-32 - ((t - r) - w)
            y = r - w
    return int(n), y, (r - y) - w


@inner
def _sin_near_0(x: float, tail: float) -> float:
    z = x * x
    w = z * z
    r = (
        8.33333333332248946124e-03
        + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06)
        + z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
    )
    v = z * x
    return x - ((z * (0.5 * tail - v * r) - tail) - v * -1.66666666666666324348e-01)


@inner
def _cos_near_0(x: float, tail: float) -> float:
    z = x * x
    w = z * z
    r = z * (
        4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)
    ) + w * w * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))
    half = 0.5 * z
    w = 1.0 - half
    return w + (((1.0 - w) - half) + (z * r - x * tail))


@inner
def sin(x: float) -> float:
    """The sine, for |x| ≤ 1e6."""
    if not abs(x) <= LARGEST_ANGLE:
        return np.nan
    if abs(x) < 2.0**-26:
        return x
    n, y, tail = _reduced(x)
    value = _sin_near_0(y, tail) if n & 1 == 0 else _cos_near_0(y, tail)
    return -value if n & 2 else value


@inner
def cos(x: float) -> float:
    """The cosine, for |x| ≤ 1e6."""
    if not abs(x) <= LARGEST_ANGLE:
        return np.nan
    n, y, tail = _reduced(x)
    value = _cos_near_0(y, tail) if n & 1 == 0 else _sin_near_0(y, tail)
    return -value if (n + 1) & 2 else value


# --- powers ----------------------------------------------------------------------------------------------------------


@inner
def pow(x: float, y: float) -> float:  # noqa: A001
    """x**y = 2**(y · log2 x), with log2 x and the product carried in two floats each."""
    if np.isnan(x) or np.isnan(y):
        return np.nan
    if y == 0.0 or x == 1.0:
        return 1.0
    whole = abs(y) >= 2.0**53 or np.floor(y) == y
    odd = whole and abs(y) < 2.0**53 and int(y) & 1 == 1
    sign = -1.0 if odd and _bits(x) < 0 else 1.0
    magnitude = abs(x)
    if magnitude in (0.0, np.inf):
        return sign * (np.inf if (magnitude == 0.0) == (y < 0.0) else 0.0)
    if x < 0.0 and not whole:
        return np.nan
    if magnitude == 1.0:
        return sign
    if abs(y) > 2.0**63:
        # Every other magnitude is at least 2**-53 away from 1.
        return np.inf if (magnitude > 1.0) == (y > 0.0) else 0.0
    high, low = _log2(magnitude)
    y_high = _short(y)
    return sign * _exp2(y_high * high, (y - y_high) * high + y * low)


@inner
def _log2(x: float) -> tuple[float, float]:
    """log2 x as a short float and a remainder."""
    n = 0
    if x < 2.2250738585072014e-308:
        x, n = x * 2.0**53, -53
    high = _high_word(x)
    n += (high >> 20) - 1023
    fraction = high & _LOW_20
    high = fraction | 0x3FF00000
    base, base_log_high, base_log_low, k = 1.0, 0.0, 0.0, 0
    if fraction > 0x3988E:
        if fraction < 0xBB67A:
            base, base_log_high, base_log_low, k = (
                1.5,
                5.84962487220764160156e-01,
                1.35003920212974897128e-08,
                1,
            )
        else:
            n += 1
            high -= 0x100000
    x = _float((high << 32) | (_bits(x) & ~_HIGH))
    u = x - base
    v = 1.0 / (x + base)
    s = u * v
    s_high = _short(s)
    t_high = _from_high_word(((high >> 1) | 0x20000000) + 0x80000 + (k << 18))
    t_low = x - (t_high - base)
    s_low = v * ((u - s_high * t_high) - s_high * t_low)
    p_high, p_low = _log2_series(s, s_high, s_low)
    z_high = 9.61796700954437255859e-01 * p_high
    z_low = -7.02846165095275826516e-09 * p_high + p_low * 9.61796693925975554329e-01 + base_log_low
    t = float(n)
    first = _short(((z_high + z_low) + base_log_high) + t)
    return first, z_low - (((first - t) - base_log_high) - z_high)


@inner
def _log2_series(s: float, s_high: float, s_low: float) -> tuple[float, float]:
    square = s * s
    r = (
        square
        * square
        * (
            5.99999999999994648725e-01
            + square
            * (
                4.28571428578550184252e-01
                + square
                * (
                    3.33333329818377432918e-01
                    + square
                    * (
                        2.72728123808534006489e-01
                        + square * (2.30660745775561754067e-01 + square * 2.06975017800338417784e-01)
                    )
                )
            )
        )
    )
    r += s_low * (s_high + s)
    square = s_high * s_high
    t_high = _short(3.0 + square + r)
    t_low = r - ((t_high - 3.0) - square)
    u = s_high * t_high
    v = s_low * t_high + t_low * s
    p_high = _short(u + v)
    return p_high, v - (p_high - u)


@inner
def _exp2(high: float, low: float) -> float:
    """2**(high + low)."""
    z = low + high
    if z >= 1024.0:
        if z > 1024.0 or low + 8.0085662595372944372e-17 > z - high:
            return np.inf
    elif z < -1076.0:
        return 0.0
    n = np.rint(z)
    high -= n
    t = _short(low + high)
    u = t * 6.93147182464599609375e-01
    v = (low - (t - high)) * 6.93147180559945286227e-01 + t * -1.90465429995776804525e-09
    z = u + v
    w = v - (z - u)
    t = z * z
    c = z - t * (
        1.66666666666666019037e-01
        + t
        * (
            -2.77777777770155933842e-03
            + t * (6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))
        )
    )
    r = (z * c) / (c - 2.0) - (w + z * w)
    return _scaled(1.0 - (r - z), int(n))


# --- over arrays -----------------------------------------------------------------------------------------------------


@entry
def exp_of(x: Floats) -> Floats:
    """Exp of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = exp(x[i])
    return result


@entry
def expm1_of(x: Floats) -> Floats:
    """expm1 of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = expm1(x[i])
    return result


@entry
def log_of(x: Floats) -> Floats:
    """Log of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = log(x[i])
    return result


@entry
def log1p_of(x: Floats) -> Floats:
    """log1p of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = log1p(x[i])
    return result


@entry
def sin_of(x: Floats) -> Floats:
    """Sin of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = sin(x[i])
    return result


@entry
def cos_of(x: Floats) -> Floats:
    """Cos of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = cos(x[i])
    return result


@entry
def tanh_of(x: Floats) -> Floats:
    """Tanh of each value."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = tanh(x[i])
    return result


@entry
def pow_of(x: Floats, y: Floats) -> Floats:
    """x**y of each pair."""
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = pow(x[i], y[i])
    return result
