"""Array functions for on-demand transforms, with the same bits for one value and for a million, on every machine.

numpy computes exp, log and their kind by vector code whose last bit depends on the processor and on where in an array a value
stands. These are compiled from fixed sequences of exact operations (``kernel.elementary``), loaded at the first call. All take
arrays or numbers, compute in float64, and keep null: NaN in, NaN out. What is not a number for other reasons (``log(-1)``) is
null too. What may not live here: anything that looks at more than one row.
"""

from __future__ import annotations

import importlib
import types
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.expressions import nulls

Floats: TypeAlias = npt.NDArray[np.float64]
#: An array of numbers, or one number.
Operand: TypeAlias = npt.NDArray[Any] | float


def exp(x: Operand) -> Floats:
    """Euler's number to the power of x, within one unit of the last place.

    >>> exp(np.array([0.0, 1.0]))
    array([1.        , 2.71828183])
    """
    return _unary("exp", x)


def expm1(x: Operand) -> Floats:
    """exp(x) - 1, exact also for x near 0.

    >>> expm1(np.array([1e-12]))
    array([1.e-12])
    """
    return _unary("expm1", x)


def log(x: Operand) -> Floats:
    """The natural logarithm; -inf at 0 and null below.

    >>> log(np.array([1.0, 0.0, -1.0]))
    array([  0., -inf,  nan])
    """
    return _unary("log", x)


def log1p(x: Operand) -> Floats:
    """log(1 + x), exact also for x near 0.

    >>> log1p(np.array([0.0, 1e-12]))
    array([0.e+00, 1.e-12])
    """
    return _unary("log1p", x)


def sqrt(x: Operand) -> Floats:
    """The square root; null below 0.

    >>> sqrt(np.array([4.0, -1.0]))
    array([ 2., nan])
    """
    with np.errstate(invalid="ignore"):
        roots: Floats = np.sqrt(_floats(x))
    return roots


def sin(x: Operand) -> Floats:
    """The sine of an angle in radians of at most 1e6 in magnitude; null beyond.

    >>> sin(np.array([0.0, 3.141592653589793 / 2]))
    array([0., 1.])
    """
    return _unary("sin", x)


def cos(x: Operand) -> Floats:
    """The cosine of an angle in radians of at most 1e6 in magnitude; null beyond.

    >>> cos(np.array([0.0, 3.141592653589793]))
    array([ 1., -1.])
    """
    return _unary("cos", x)


def tanh(x: Operand) -> Floats:
    """The hyperbolic tangent.

    >>> tanh(np.array([0.0, 20.0]))
    array([0., 1.])
    """
    return _unary("tanh", x)


def pow(x: Operand, y: Operand) -> Floats:  # noqa: A001  (read as hr.pow)
    """The power of x by y; null for a negative x and a y that is not whole.

    >>> pow(np.array([2.0, 2.0, -2.0]), np.array([10.0, 0.5, 3.0]))
    array([1024.        ,    1.41421356,   -8.        ])
    """
    a, b = np.broadcast_arrays(_floats(x), _floats(y))
    result: Floats = _kernel().pow_of(np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel())
    return result.reshape(a.shape)


def abs(x: Operand) -> Floats:  # noqa: A001  (read as hr.abs)
    """The magnitude.

    >>> abs(np.array([-2.0, 3.0]))
    array([2., 3.])
    """
    return np.abs(_floats(x))


def minimum(x: Operand, y: Operand) -> Floats:
    """The smaller of two values, row by row; null if one is null.

    >>> minimum(np.array([1.0, 5.0, np.nan]), 3.0)
    array([ 1.,  3., nan])
    """
    # 0.0 is added because numpy does not say which of 0.0 and -0.0 it takes.
    return np.minimum(_floats(x), _floats(y)) + 0.0


def maximum(x: Operand, y: Operand) -> Floats:
    """The larger of two values, row by row; null if one is null.

    >>> maximum(np.array([1.0, 5.0, np.nan]), 3.0)
    array([ 3.,  5., nan])
    """
    return np.maximum(_floats(x), _floats(y)) + 0.0


def where(condition: npt.NDArray[Any], x: Operand, y: Operand) -> Floats:
    """The first value where the condition is true, else the second.

    >>> where(np.array([True, False]), 1.0, np.array([2.0, 3.0]))
    array([1., 3.])
    """
    return np.where(condition, _floats(x), _floats(y))


def is_null(x: npt.NDArray[Any] | float) -> npt.NDArray[np.bool_]:
    """Where a value is absent: NaN among numbers, None among texts.

    >>> is_null(np.array([1.0, np.nan])), is_null(np.array(["JFK", None], dtype=object))
    (array([False,  True]), array([False,  True]))
    """
    array = np.asarray(x)
    if array.dtype.kind == "O":
        return nulls(array)
    mask: npt.NDArray[np.bool_] = np.isnan(array)
    return mask


def _floats(x: Operand) -> Floats:
    return np.asarray(x, dtype=np.float64)


def _unary(name: str, x: Operand) -> Floats:
    array = _floats(x)
    result: Floats = getattr(_kernel(), f"{name}_of")(np.ascontiguousarray(array).ravel())
    return result.reshape(array.shape)


@cache
def _kernel() -> types.ModuleType:
    # It loads the compiler, which importing this package must not.
    return importlib.import_module("headrace.kernel.elementary")
