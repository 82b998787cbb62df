"""Texts: whether bytes are UTF-8, and Arrow's views of them, which point into a batch's bytes without a copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace_schemas.compiled.compiling import inlined, inner

_INLINE = 12  # Arrow's string views hold texts up to this length themselves


@inner
def is_utf8(body: npt.NDArray[np.uint8], at: int, end: int) -> bool:
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


@inlined
def put_view(body: npt.NDArray[np.uint8], at: int, length: int, out: npt.NDArray[np.uint8]) -> None:
    """Arrow's 16-byte view of a text: its length, then the text itself, or its first four bytes, buffer 0 and its position."""
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
        out[8 + i] = 0
        out[12 + i] = (at >> (8 * i)) & 0xFF
