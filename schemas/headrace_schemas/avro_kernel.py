"""The compiled reader of Avro datums: from bytes that lie one behind the other to columns, one pass, every datum by itself.

A datum is good if it is a valid encoding of its record and ends exactly where its bytes end; a malformed one takes no byte of
its neighbours and leaves no trace in their columns. Strict where readers differ: a union index that names no branch, a boolean
that is neither 0 nor 1, a varint of more than 64 bits, a length below zero, text that is not UTF-8 (surrogates and overlong
forms included) are malformed. Texts are not copied: a column of texts is Arrow's string views into the body.
What may not live here: schemas and Arrow (``avro.py``). Importing this module loads the compiler.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

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

_INLINE = 12  # Arrow's string views hold texts up to this length themselves

_READ_VARINT = "Tuple((int64, int64))(uint8[::1], int64, int64)"


@njit(_READ_VARINT, cache=True, nogil=True)
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


@njit("boolean(uint8[::1], int64, int64)", cache=True, nogil=True)
def _is_utf8(body: npt.NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether bytes are UTF-8 by the table of well-formed sequences (Unicode 15, table 3-7)."""
    while at < end:
        first = body[at]
        if first < 0x80:
            at += 1
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0x9F
        elif 0xF0 <= first <= 0xF4:
            more = 3
            if first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x8F
        else:
            return False
        if at + more >= end or body[at + 1] < low or body[at + 1] > high:
            return False
        for step in range(2, more + 1):
            if body[at + step] & 0xC0 != 0x80:
                return False
        at += more + 1
    return True


@njit("void(uint8[::1], int64, int64, int64, uint8[::1])", cache=True, nogil=True)
def _view(body: npt.NDArray[np.uint8], at: int, length: int, buffer: int, out: npt.NDArray[np.uint8]) -> None:
    """Arrow's 16-byte view of a text: length, then the text itself or its first four bytes, buffer and position."""
    for i in range(4):
        out[i] = (length >> (8 * i)) & 0xFF
    if length <= _INLINE:
        for i in range(length):
            out[4 + i] = body[at + i]
        for i in range(length, _INLINE):
            out[4 + i] = 0
        return
    for i in range(4):
        out[4 + i] = body[at + i]
        out[8 + i] = (buffer >> (8 * i)) & 0xFF
        out[12 + i] = (at >> (8 * i)) & 0xFF


@njit(
    "int64(uint8[::1], int64[::1], uint8[::1], int8[::1], int64[::1], int64[:,::1], uint8[:,::1], uint8[:,:,::1], "
    "int64[::1], uint8[::1], int16[::1], int64[::1])",
    cache=True,
    nogil=True,
)
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
        status_at: per malformed row the byte of the datum at which that field began.

    Returns:
        The number of good datums.
    """
    good = 0
    fields = len(types)
    word = np.zeros(8, np.uint8)
    as_double = word.view(np.float64)
    as_float = word[:4].view(np.float32)
    as_long = word.view(np.int64)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        fault = GOOD
        field = 0
        begin = at
        while field < fields:
            begin = at
            kind = types[field]
            if null_branch[field] >= 0:
                branch, at = _varint(body, at, end)
                if at < 0:
                    fault = ENDS_EARLY if at == -1 else BAD_VARINT
                    break
                if branch != 0 and branch != 1:  # noqa: PLR1714  (compiled: no tuple)
                    fault = BAD_BRANCH
                    break
                if branch == null_branch[field]:
                    valid[field, good] = 0
                    numbers[field, good] = 0
                    if kind == STRING:
                        _view(body, at, 0, 0, views[extra[field], good])
                    field += 1
                    continue
            valid[field, good] = 1
            if kind == DOUBLE:
                if end - at < 8:
                    fault = ENDS_EARLY
                    break
                for i in range(8):
                    word[i] = body[at + i]
                numbers[field, good] = as_long[0]
                at += 8
            elif kind == FLOAT:
                if end - at < 4:
                    fault = ENDS_EARLY
                    break
                for i in range(4):
                    word[i] = body[at + i]
                as_double[0] = np.float64(as_float[0])
                numbers[field, good] = as_long[0]
                at += 4
            elif kind == BOOLEAN:
                if at >= end:
                    fault = ENDS_EARLY
                    break
                if body[at] > 1:
                    fault = BAD_BOOLEAN
                    break
                numbers[field, good] = body[at]
                at += 1
            else:
                value, at = _varint(body, at, end)
                if at < 0:
                    fault = ENDS_EARLY if at == -1 else BAD_VARINT
                    break
                if kind == STRING:
                    if value < 0:
                        fault = BAD_LENGTH
                        break
                    if value > end - at:
                        fault = ENDS_EARLY
                        break
                    if not _is_utf8(body, at, at + value):
                        fault = BAD_TEXT
                        break
                    _view(body, at, value, 0, views[extra[field], good])
                    at += value
                else:
                    if kind == ENUM and (value < 0 or value >= extra[field]):
                        fault = BAD_SYMBOL
                        break
                    numbers[field, good] = value
            field += 1
        if fault == GOOD and at != end:
            fault = BYTES_LEFT
            begin = at
        status[row] = fault
        if fault == GOOD:
            row_of[good] = row
            good += 1
        else:
            status_field[row] = field
            status_at[row] = begin - offsets[row]
    return good
