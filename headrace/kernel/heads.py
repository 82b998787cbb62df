"""What many states say of the offsets that they include, without their programs.

What may not live here: the sections behind the partitions (`codec.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.errors import CodecError
from headrace.kernel.codec import HEADER_BYTES
from headrace.kernel.compiling import entry
from headrace.kernel.engine import I32, I64, U8
from headrace.kernel.memory import pointer
from headrace.kernel.numbers import get_unsigned
from headrace.states import States, header

_COUNT_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Included:
    """The included offsets of many states as columns.

    Args:
        ends: how many rows the states up to each one have; those of the first begin at 0.
        partition: of each row; rising within a state.
        offset: the last included one of the partition.
    """

    ends: npt.NDArray[np.int64]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]


def included(states: States) -> Included:
    """Which offsets states include; none for an entity without a state. O(bytes of the heads).

    Raises:
        CodecError: a list of partitions is broken.

    >>> included(States.from_list([None])).ends.tolist()
    [0]
    """
    ends = np.empty(len(states), np.int64)
    broken = _count(states.data, states.offsets, ends)
    if broken >= 0:
        header(states[broken])  # says what is broken
        raise CodecError("state", f"the list of partitions of state {broken} is broken")
    rows = int(ends[-1]) if len(ends) else 0
    partition, offset = np.empty(rows, np.int32), np.empty(rows, np.int64)
    _fill(states.data, states.offsets, partition, offset)
    return Included(ends, partition, offset)


@entry
def _count(data: U8, offsets: I64, ends: I64) -> int:
    """Count the rows; returns the state whose list is broken, or -1."""
    source, total = pointer(data), 0
    for s in range(len(ends)):
        begin, end = offsets[s], offsets[s + 1]
        if end > begin:
            at = begin + HEADER_BYTES + _COUNT_BYTES
            if end < at:
                return s
            count = get_unsigned(source, at - _COUNT_BYTES, _COUNT_BYTES)
            if count > 0:
                widths = get_unsigned(source, at, 1)
                width, stride = widths & 15, _COUNT_BYTES + (widths & 15) + (widths >> 4)
                if width < 1 or width > 8 or at + 1 + count * stride > end:
                    return s
            total += count
        ends[s] = total
    return -1


@entry
def _fill(data: U8, offsets: I64, partition: I32, offset: I64) -> None:
    source, row = pointer(data), 0
    for s in range(len(offsets) - 1):
        begin = offsets[s]
        if offsets[s + 1] > begin:
            at = begin + HEADER_BYTES + _COUNT_BYTES
            count = get_unsigned(source, at - _COUNT_BYTES, _COUNT_BYTES)
            widths = get_unsigned(source, at, 1)
            width, stride = widths & 15, _COUNT_BYTES + (widths & 15) + (widths >> 4)
            at += 1
            for _ in range(count):
                partition[row] = get_unsigned(source, at, _COUNT_BYTES)
                offset[row] = get_unsigned(source, at + _COUNT_BYTES, width)
                row += 1
                at += stride
