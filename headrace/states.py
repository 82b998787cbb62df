"""States of entities: the packed bytes that the online store keeps and the kernel works on.

What may not live here: numba (`kernel/codec.py` writes the bytes), stores.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import CodecError
from headrace.layout import STATE_VERSION
from headrace.program import SLACK_BYTES

HEADER: Final = struct.Struct("<BB6sq")
_PARTITIONS: Final = struct.Struct("<H")
_SLACK: Final = bytes(SLACK_BYTES)
_FORMS: Final[tuple[Literal["raw"], Literal["tiles"]]] = ("raw", "tiles")


@dataclass(frozen=True, slots=True)
class StateHeader:
    """What a state says of itself without its layout.

    Args:
        newest_us: the newest event time that it includes.
        offsets: (partition, last included offset), by partition.
        form: "raw" holds events, "tiles" holds tiles.
        version: of the codec.
        fingerprint: the first 48 bits of its view's layout fingerprint.
    """

    newest_us: int
    offsets: tuple[tuple[int, int], ...]
    form: Literal["raw", "tiles"]
    version: int
    fingerprint: int


@dataclass(frozen=True, eq=False)
class States:
    """The states of many entities, one behind the other; an empty slice is an entity without a state.

    Args:
        data: the bytes, with at least 16 bytes of slack behind the last state.
        offsets: where each state begins; one more than there are states.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def from_list(cls, states: Sequence[bytes | None]) -> States:
        """Pack states; None and b"" are entities without one.

        >>> States.from_list([b"abc", None, b"d"]).to_list()
        [b'abc', None, b'd']
        """
        present = [state or b"" for state in states]
        offsets = np.array([0, *accumulate(map(len, present))], dtype=np.int64)
        return cls(np.frombuffer(bytearray().join([*present, _SLACK]), dtype=np.uint8), offsets)

    @classmethod
    def empty(cls, count: int) -> States:
        """As many entities without a state."""
        return cls(np.zeros(SLACK_BYTES, dtype=np.uint8), np.zeros(count + 1, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.offsets.dtype != np.int64 or len(self.offsets) == 0:
            raise TypeError("states are uint8 data and int64 offsets, one more offset than states")
        if len(self.data) < self.offsets[-1] + SLACK_BYTES:
            padded = np.zeros(int(self.offsets[-1]) + SLACK_BYTES, dtype=np.uint8)
            padded[: self.offsets[-1]] = self.data[: self.offsets[-1]]
            object.__setattr__(self, "data", padded)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not -len(self) <= index < len(self):
            raise IndexError(f"state {index} of {len(self)}")
        index %= len(self)
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def to_list(self) -> list[bytes | None]:
        """One byte string per entity, None where there is no state."""
        packed, bounds = self.data[: self.offsets[-1]].tobytes(), self.offsets.tolist()
        return [packed[begin:end] or None for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of many states as columns.

    Args:
        exists: whether there is a state; the other columns are 0 where there is none.
        newest_us: the newest event time included.
        raw: whether it holds events themselves.
        fingerprint: the first 48 bits of the layout's fingerprint.
    """

    exists: npt.NDArray[np.bool_]
    newest_us: npt.NDArray[np.int64]
    raw: npt.NDArray[np.bool_]
    fingerprint: npt.NDArray[np.int64]


def header(state: bytes) -> StateHeader:
    """What a state says of itself.

    Raises:
        CodecError: too short, of another version, or with a broken list of partitions.
    """
    if len(state) < HEADER.size + _PARTITIONS.size:
        raise CodecError("state", f"{len(state)} bytes are shorter than a header")
    version, form, fingerprint, newest_us = HEADER.unpack_from(state)
    if version != STATE_VERSION:
        raise CodecError("state", f"version {version} is not the version {STATE_VERSION} that this program reads")
    if form >= len(_FORMS):
        raise CodecError("state", f"form {form} is neither 0 (raw events) nor 1 (tiles)")
    return StateHeader(newest_us, _offsets(state), _FORMS[form], version, int.from_bytes(fingerprint, "little"))


def _offsets(state: bytes) -> tuple[tuple[int, int], ...]:
    (count,) = _PARTITIONS.unpack_from(state, HEADER.size)
    if count == 0:
        return ()
    position = HEADER.size + _PARTITIONS.size
    width, ids_width = (state[position] & 15, state[position] >> 4) if position < len(state) else (0, 0)
    stride = _PARTITIONS.size + width + ids_width
    rows = state[position + 1 : position + 1 + count * stride]
    if not 1 <= width <= 8 or len(rows) != count * stride:
        raise CodecError("state", f"its list of {count} partitions is cut off or has no valid width")
    return tuple(
        (
            int.from_bytes(rows[at : at + _PARTITIONS.size], "little"),
            int.from_bytes(rows[at + _PARTITIONS.size : at + _PARTITIONS.size + width], "little"),
        )
        for at in range(0, len(rows), stride)
    )


def headers(states: States) -> Headers:
    """The headers of many states at once, without their offsets."""
    begins = states.offsets[:-1]
    exists = states.offsets[1:] - begins >= HEADER.size
    rows = states.data[np.where(exists, begins, 0)[:, None] + np.arange(HEADER.size)]
    words = np.where(exists[:, None], np.ascontiguousarray(rows).view(np.int64), 0)
    form, fingerprint = (words[:, 0] >> 8) & 0xFF, (words[:, 0] >> 16) & ((1 << 48) - 1)
    return Headers(exists, words[:, 1].copy(), exists & (form == 0), fingerprint)


def concatenate(parts: Iterable[States]) -> States:
    """Several packs as one."""
    every = list(parts)
    if not every:
        return States.empty(0)
    data = np.concatenate([part.data[: part.offsets[-1]] for part in every] + [np.zeros(SLACK_BYTES, dtype=np.uint8)])
    lengths = np.concatenate([np.diff(part.offsets) for part in every])
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return States(data, offsets)
