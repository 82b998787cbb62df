"""Avro datums, from bytes that lie one behind the other to columns.

A datum is good if it is a valid encoding of its record and ends exactly where its bytes end; a malformed one takes no byte of
its neighbours and leaves no trace in their columns. Strict where readers differ: a union index that names no branch, a boolean
that is neither 0 nor 1, a varint of more than 64 bits, a length below zero, text that is not UTF-8 (surrogates and overlong
forms included) are malformed. Texts are not copied: a column of texts is Arrow's string views into the body.
What may not live here: schemas (``headrace_schemas/avro.py``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace_schemas.compiled.compiling import entry, inlined
from headrace_schemas.compiled.texts import is_utf8, put_view

# Types of a field.
LONG, DOUBLE, FLOAT, BOOLEAN, STRING, ENUM = 0, 1, 2, 3, 4, 5

# What became of a datum.
GOOD = 0
ENDS_EARLY = 1
BYTES_LEFT = 2
BAD_VARINT = 3
BAD_BRANCH = 4
BAD_BOOLEAN = 5
BAD_LENGTH = 6
BAD_SYMBOL = 7
BAD_TEXT = 8


@inlined
def _varint(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """A zigzag varint at `at`: (value, position behind it); the position is −1 where it ends early, −2 where it is too long."""
    bits = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        byte = body[at]
        at += 1
        # The tenth byte holds bit 63 alone.
        if shift == np.uint64(63) and byte > 1:
            return 0, -2
        bits |= np.uint64(byte & 0x7F) << shift
        if byte < 0x80:
            return int(np.int64(bits >> np.uint64(1)) ^ -np.int64(bits & np.uint64(1))), at
        shift += np.uint64(7)
    return 0, -1


@inlined
def _fixed(body: npt.NDArray[np.uint8], at: int, size: int) -> np.uint64:
    """The bits of a little-endian value of `size` bytes."""
    bits = np.uint64(0)
    for i in range(size):
        bits |= np.uint64(body[at + i]) << np.uint64(8 * i)
    return bits


@inlined
def _value(body: npt.NDArray[np.uint8], at: int, end: int, kind: int, symbols: int) -> tuple[int, int, int]:
    """A value that is not null: (what became of it, position behind it, its bits; a text's length)."""
    if kind == DOUBLE:
        if end - at < 8:
            return ENDS_EARLY, at, 0
        return GOOD, at + 8, int(np.int64(_fixed(body, at, 8)))
    if kind == FLOAT:
        if end - at < 4:
            return ENDS_EARLY, at, 0
        single = np.uint32(_fixed(body, at, 4)).view(np.float32)
        return GOOD, at + 4, int(np.float64(single).view(np.int64))
    if kind == BOOLEAN:
        if at >= end:
            return ENDS_EARLY, at, 0
        return (GOOD, at + 1, int(body[at])) if body[at] <= 1 else (BAD_BOOLEAN, at, 0)
    number, after = _varint(body, at, end)
    if after < 0:
        return ENDS_EARLY if after == -1 else BAD_VARINT, at, 0
    if kind == ENUM and (number < 0 or number >= symbols):
        return BAD_SYMBOL, at, 0
    if kind == STRING:
        if number < 0:
            return BAD_LENGTH, at, 0
        if number > end - after:
            return ENDS_EARLY, at, 0
        if not is_utf8(body, after, after + number):
            return BAD_TEXT, at, 0
        return GOOD, after + number, number
    return GOOD, after, number


@inlined
def _branch(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int, int]:
    """The index of a union of two: (what became of it, position behind it, index)."""
    branch, after = _varint(body, at, end)
    if after < 0:
        return ENDS_EARLY if after == -1 else BAD_VARINT, at, 0
    if branch < 0 or branch > 1:
        return BAD_BRANCH, at, 0
    return GOOD, after, branch


@inlined
def _datum(
    body: npt.NDArray[np.uint8],
    begin: int,
    end: int,
    types: npt.NDArray[np.uint8],
    null_branch: npt.NDArray[np.int8],
    extra: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    valid: npt.NDArray[np.uint8],
    views: npt.NDArray[np.uint8],
    row: int,
) -> tuple[int, int, int]:
    """Decode a datum into row `row` of the columns: (what became of it, the field at fault, where that begins)."""
    at = begin
    for field in range(len(types)):
        kind, after, is_null = types[field], at, False
        if null_branch[field] >= 0:
            fault, after, branch = _branch(body, at, end)
            if fault != GOOD:
                return fault, field, at
            is_null = branch == null_branch[field]
        number = 0
        if not is_null:
            fault, after, number = _value(body, after, end, kind, extra[field])
            if fault != GOOD:
                return fault, field, at
        valid[field, row] = not is_null
        if kind == STRING:
            put_view(body, after - number, number, views[extra[field], row])
        else:
            numbers[field, row] = number
        at = after
    return (GOOD if at == end else BYTES_LEFT), 0, at


@entry
def decode(
    body: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    types: npt.NDArray[np.uint8],
    null_branch: npt.NDArray[np.int8],
    extra: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    valid: npt.NDArray[np.uint8],
    views: npt.NDArray[np.uint8],
    row_of: npt.NDArray[np.int64],
    status: npt.NDArray[np.uint8],
    status_field: npt.NDArray[np.int16],
    status_at: npt.NDArray[np.int64],
) -> int:
    """Decode datums; the good ones fill the columns from the front.

    Args:
        body: the datums one behind the other.
        offsets: where each begins and the last ends, [rows + 1].
        types: type of each field.
        null_branch: which branch of a field's union is null: 0, 1, or −1 where it is no union.
        extra: the number of symbols of an enum; the row of `views` of a text.
        numbers: per field the values, floats as their bits, [fields, rows].
        valid: per field whether there is a value, [fields, rows].
        views: per text field Arrow's string views, [texts, rows, 16].
        row_of: the row of each good datum.
        status: per row what became of it.
        status_field: per malformed row the field at fault.
        status_at: per malformed row the byte of the datum at which that field begins.

    Returns:
        The number of good datums.
    """
    good = 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        fault, field, at = _datum(body, begin, end, types, null_branch, extra, numbers, valid, views, good)
        status[row] = fault
        if fault == GOOD:
            row_of[good] = row
            good += 1
        else:
            status_field[row] = field
            status_at[row] = at - begin
    return good
