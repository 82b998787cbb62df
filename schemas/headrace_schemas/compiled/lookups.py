"""The part of a prediction's record that differs from state to state, as Avro: found, newest time, included offsets, ahead.

What may not live here: the rest of the record (`headrace_schemas/prediction_encoder.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace_schemas.compiled.compiling import entry, inner

_LONGEST = 10  # bytes of a varint
_LOW_BITS = 0x01FF_FFFF_FFFF_FFFF  # what a shift by seven leaves


@inner
def _put_long(target: npt.NDArray[np.uint8], at: int, value: int) -> int:
    """Write a zigzag varint; returns the place behind it."""
    rest = (value << 1) ^ (value >> 63)
    while rest & ~0x7F:
        target[at] = (rest & 0x7F) | 0x80
        rest = (rest >> 7) & _LOW_BITS
        at += 1
    target[at] = rest
    return at + 1


@entry
def encode_lookups(
    newest_us: npt.NDArray[np.int64],
    never: int,
    at_us: npt.NDArray[np.int64],
    included: npt.NDArray[np.int64],
    partition: npt.NDArray[np.int32],
    offset: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The pieces of all states one behind the other.

    Args:
        newest_us: of each state; those of the first lookup for each row, then those of the second.
        never: the newest time of an entity without a state.
        at_us: the moment of each row.
        included: how many included offsets the states up to each one have.
        partition: of each included offset.
        offset: each of them.

    Returns:
        The bytes, and where the piece of each state ends.
    """
    states, rows = len(newest_us), len(at_us)
    ends = np.empty(states, np.int64)
    target = np.empty(states * (4 + 2 * _LONGEST) + len(offset) * 2 * _LONGEST, np.uint8)
    at = begin = 0
    for s in range(states):
        found = newest_us[s] != never
        target[at] = 1 if found else 0
        at = _put_long(target, at + 1, newest_us[s] if found else 0)
        if included[s] > begin:
            at = _put_long(target, at, included[s] - begin)
            for row in range(begin, included[s]):
                at = _put_long(target, at, int(partition[row]))
                at = _put_long(target, at, offset[row])
        target[at] = 0
        target[at + 1] = 1 if found and newest_us[s] >= at_us[s % rows] else 0
        at += 2
        ends[s] = at
        begin = included[s]
    return target[:at], ends
