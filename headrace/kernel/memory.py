"""Unaligned loads and stores, moves, and the unsigned and 128-bit arithmetic that numba has no types for.

Compiled functions pass pointers instead of arrays: indexing one neither wraps negative indices nor carries a shape, and shares one
signature. Everything is int64 to the caller: mixing numba's int64 and uint64 would silently go through float64. A 128-bit number is a pair
(high, low). No bounds are checked: `sections.py` checks the lengths of a state once, when it is loaded.
What may not live here: the layout of anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import NoneType
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if sys.byteorder != "little":
    raise ImportError("Headrace's kernel reads little-endian states in place and needs a little-endian machine")


R = TypeVar("R")


def generated(result: type[R]) -> Callable[[Callable[..., Any]], Callable[..., R]]:
    """An operation given as LLVM instructions, and the Python type of its result; see `numba.extending.intrinsic`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., R]:
        return cast("Callable[..., R]", intrinsic(function))

    return decorate


def generated_pointer(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `generated`, for results that are pointers: compiled code indexes them as lists, and has no type of its own for them."""
    return cast("Callable[..., Any]", intrinsic(function))


_I8, _I64, _I128, _F64 = ir.IntType(8), ir.IntType(64), ir.IntType(128), ir.DoubleType()
_PAIR = types.UniTuple(types.int64, 2)

# Each function below has the shape that `intrinsic` asks for: types in, (signature, code generator) out.
_Generated = tuple[Any, Callable[..., Any]]


def _at(builder: Any, pointer: Any, position: Any, item: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [position]), item.as_pointer())


@generated_pointer
def pointer(typing: Any, array: Any) -> _Generated:
    """Where an array's data begins. Whoever takes it keeps the array alive: pass arrays in from outside."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@generated_pointer
def item(typing: Any, start: Any, count: Any) -> _Generated:
    """A pointer, `count` items further."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return start(start, types.int64), generate


def _pointer_at(item: Any, kind: Any) -> _Generated:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], item.as_pointer())

    return types.CPointer(kind)(types.int64), generate


@generated_pointer
def words_at(typing: Any, address: Any) -> _Generated:
    """The 64-bit integers at an address. Whoever passes addresses keeps their arrays alive."""
    return _pointer_at(_I64, types.int64)


@generated_pointer
def bytes_at(typing: Any, address: Any) -> _Generated:
    """As `words_at`: bytes."""
    return _pointer_at(_I8, types.uint8)


@generated_pointer
def floats_at(typing: Any, address: Any) -> _Generated:
    """As `words_at`: float64."""
    return _pointer_at(_F64, types.float64)


@generated(int)
def load(typing: Any, buffer: Any, position: Any) -> _Generated:
    """The 8 bytes at a position."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _at(builder, args[0], args[1], _I64)
        return builder.load(place, align=1)

    return types.int64(buffer, types.int64), generate


@generated(NoneType)
def store(typing: Any, buffer: Any, position: Any, value: Any) -> _Generated:
    """Write 8 bytes at a position."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _at(builder, args[0], args[1], _I64)
        builder.store(args[2], place, align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.int64), generate


@generated(NoneType)
def move(typing: Any, target: Any, to: Any, source: Any, start: Any, size: Any) -> _Generated:
    """Copy `size` bytes; the ranges may overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target_pointer = _at(builder, args[0], args[1], _I8)
        source_pointer = _at(builder, args[2], args[3], _I8)
        cgutils.raw_memmove(builder, target_pointer, source_pointer, args[4], 1, align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


@generated(int)
def shift_right(typing: Any, value: Any, bits: Any) -> _Generated:
    """Shift in zeros from the left; 0 <= bits < 64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.lshr(args[0], args[1])

    return types.int64(types.int64, types.int64), generate


@generated(bool)
def unsigned_less(typing: Any, left: Any, right: Any) -> _Generated:
    """Compare as unsigned numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.icmp_unsigned("<", args[0], args[1])

    return types.boolean(types.int64, types.int64), generate


@generated(int)
def float_bits(typing: Any, value: Any) -> _Generated:
    """The bits of a float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I64)

    return types.int64(types.float64), generate


@generated(float)
def bits_float(typing: Any, bits: Any) -> _Generated:
    """The float64 of some bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _F64)

    return types.float64(types.int64), generate


@generated(float)
def unsigned_float(typing: Any, value: Any) -> _Generated:
    """The float64 nearest to a number read as unsigned; ties go to even."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.uitofp(args[0], _F64)

    return types.float64(types.int64), generate


@generated(int)
def leading_zeros(typing: Any, value: Any) -> _Generated:
    """How many zero bits stand before the first one; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


def _wide(builder: Any, high: Any, low: Any) -> Any:
    return builder.or_(builder.shl(builder.zext(high, _I128), ir.Constant(_I128, 64)), builder.zext(low, _I128))


def _narrow(context: Any, builder: Any, wide: Any) -> Any:
    high = builder.trunc(builder.lshr(wide, ir.Constant(_I128, 64)), _I64)
    return context.make_tuple(builder, _PAIR, [high, builder.trunc(wide, _I64)])


@generated(tuple[int, int])
def add_wide(typing: Any, high: Any, low: Any, other_high: Any, other_low: Any) -> _Generated:
    """The 128-bit sum, wrapping."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _narrow(context, builder, builder.add(_wide(builder, *args[:2]), _wide(builder, *args[2:])))

    return _PAIR(types.int64, types.int64, types.int64, types.int64), generate


@generated(tuple[int, int])
def subtract_wide(typing: Any, high: Any, low: Any, other_high: Any, other_low: Any) -> _Generated:
    """The 128-bit difference, wrapping."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _narrow(context, builder, builder.sub(_wide(builder, *args[:2]), _wide(builder, *args[2:])))

    return _PAIR(types.int64, types.int64, types.int64, types.int64), generate


@generated(tuple[int, int])
def multiply_wide(typing: Any, high: Any, low: Any, factor: Any) -> _Generated:
    """A 128-bit number times a signed 64-bit one, wrapping."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factor = builder.sext(args[2], _I128)
        return _narrow(context, builder, builder.mul(_wide(builder, *args[:2]), factor))

    return _PAIR(types.int64, types.int64, types.int64), generate
