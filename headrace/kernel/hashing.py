"""xxHash64 of byte strings, and the grouping of a batch by key.

The hash is Yann Collet's xxHash64 with seed 0 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md): it decides the lane of
an entity, so it may never change. Grouping compares the bytes themselves; two keys with one hash stay two keys.
What may not live here: what keys are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.kernel.compiling import entry, inner, outlined
from headrace.kernel.memory import load, pointer, shift_right
from headrace.program import SLACK_BYTES

# The primes of the specification, as signed numbers of the same bits.
_PRIME_1: Final = 0x9E3779B185EBCA87 - (1 << 64)
_PRIME_2: Final = 0xC2B2AE3D27D4EB4F - (1 << 64)
_PRIME_3: Final = 0x165667B19E3779F9
_PRIME_4: Final = 0x85EBCA77C2B2AE63 - (1 << 64)
_PRIME_5: Final = 0x27D4EB2F165667C5
_SLACK: Final = bytes(SLACK_BYTES)


@dataclass(frozen=True, slots=True)
class Groups:
    """The distinct keys of a batch, in order of first appearance.

    Args:
        slot: for each row the index of its key.
        first: for each key the row in which it appears first.
        hash: for each key its xxHash64.
    """

    slot: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    hash: npt.NDArray[np.uint64]


def hash_keys(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """xxHash64 of data[offsets[i] : offsets[i + 1]] for each i."""
    hashes = np.empty(len(offsets) - 1, dtype=np.int64)
    _hash_all(_padded(data, offsets), np.ascontiguousarray(offsets, dtype=np.int64), hashes)
    return hashes.view(np.uint64)


def hash_bytes(value: bytes) -> int:
    """xxHash64 of one byte string.

    >>> f"{hash_bytes(b''):016x} {hash_bytes(b'abc'):016x}"
    'ef46db3751d8e999 44bc2cf5ad770999'
    """
    data = np.frombuffer(bytearray(value) + bytes(SLACK_BYTES), dtype=np.uint8)
    hashes = np.empty(1, dtype=np.int64)
    _hash_all(data, np.array([0, len(value)], dtype=np.int64), hashes)
    return int(hashes.view(np.uint64)[0])


def hash_list(values: Sequence[bytes]) -> list[int]:
    """xxHash64 of several byte strings, in one call into compiled code.

    >>> hash_list([b"", b"abc"]) == [hash_bytes(b""), hash_bytes(b"abc")]
    True
    """
    offsets = np.array([0, *accumulate(map(len, values))], dtype=np.int64)
    hashes = np.empty(len(values), dtype=np.int64)
    _hash_all(np.frombuffer(bytearray().join([*values, _SLACK]), dtype=np.uint8), offsets, hashes)
    found: list[int] = hashes.view(np.uint64).tolist()
    return found


def group_keys(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Groups:
    """The distinct keys among data[offsets[i] : offsets[i + 1]]; O(rows).

    >>> groups = group_keys(np.frombuffer(b"abcabd", dtype=np.uint8), np.array([0, 2, 3, 5, 6]))
    >>> groups.slot.tolist(), groups.first.tolist()
    ([0, 1, 0, 2], [0, 1, 3])
    """
    rows = len(offsets) - 1
    hashes, slot, first = np.empty(rows, np.int64), np.empty(rows, np.int32), np.empty(rows, np.int64)
    padded, offsets = _padded(data, offsets), np.ascontiguousarray(offsets, dtype=np.int64)
    _hash_all(padded, offsets, hashes)
    count = _group(padded, offsets, hashes, slot, first)
    first = first[:count].copy()
    return Groups(slot, first, hashes[first].view(np.uint64))


def _padded(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    end = int(offsets[-1])
    if len(data) >= end + SLACK_BYTES and data.flags.writeable and data.flags.c_contiguous:
        return data
    padded = np.zeros(end + SLACK_BYTES, dtype=np.uint8)
    padded[:end] = data[:end]
    return padded


@entry
def _hash_all(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], hashes: npt.NDArray[np.int64]) -> None:
    source = pointer(data)
    for i in range(len(hashes)):
        hashes[i] = _xxhash64(source, offsets[i], offsets[i + 1])


@entry
def _group(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.int64],
    slot: npt.NDArray[np.int32],
    first: npt.NDArray[np.int64],
) -> int:
    """Open addressing over at most half full places; returns how many keys there are.

    The table grows with the keys, not with the rows, and what a probe looks at lies close together: where few keys have many
    rows, all of it stays in the processor's cache.
    """
    source, places, count = pointer(data), 1 << 10, 0
    table, seen = np.full(places, -1, np.int32), np.empty(places // 2, np.int64)
    for row in range(len(hashes)):
        wanted = hashes[row]
        place = wanted & (places - 1)
        while True:
            known = table[place]
            if known < 0:
                table[place] = count
                first[count], seen[count], slot[row] = row, wanted, count
                count += 1
                break
            if seen[known] == wanted and _same(source, offsets, first[known], row):
                slot[row] = known
                break
            place = (place + 1) & (places - 1)
        if 2 * count >= places:
            places *= 4
            table, seen = _grown(seen[:count], places)
    return count


@inner
def _grown(seen: npt.NDArray[np.int64], places: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """A table of that many places with the keys of these hashes, and room for the hashes of half as many."""
    table, hashes = np.full(places, -1, np.int32), np.empty(places // 2, np.int64)
    hashes[: len(seen)] = seen
    for known in range(len(seen)):
        place = seen[known] & (places - 1)
        while table[place] >= 0:
            place = (place + 1) & (places - 1)
        table[place] = known
    return table, hashes


@inner
def _same(source: int, offsets: npt.NDArray[np.int64], left: int, right: int) -> bool:
    size = offsets[left + 1] - offsets[left]
    if offsets[right + 1] - offsets[right] != size:
        return False
    start, other = offsets[left], offsets[right]
    for at in range(0, size - 7, 8):
        if load(source, start + at) != load(source, other + at):
            return False
    rest = size & 7
    if rest == 0:
        return True
    shift, at = 64 - 8 * rest, size - rest
    return bool(load(source, start + at) << shift == load(source, other + at) << shift)


@inner
def _rotate(value: int, bits: int) -> int:
    return (value << bits) | shift_right(value, 64 - bits)


@inner
def _round(lane: int, word: int) -> int:
    return _rotate(lane + word * _PRIME_2, 31) * _PRIME_1


@inner
def _merge(result: int, lane: int) -> int:
    return (result ^ _round(0, lane)) * _PRIME_1 + _PRIME_4


@outlined
def _xxhash64(source: int, begin: int, end: int) -> int:
    size, at = end - begin, begin
    if size >= 32:
        a, b, c, d = _PRIME_1 + _PRIME_2, _PRIME_2 + 0, 0, -_PRIME_1
        while at + 32 <= end:
            a = _round(a, load(source, at))
            b = _round(b, load(source, at + 8))
            c = _round(c, load(source, at + 16))
            d = _round(d, load(source, at + 24))
            at += 32
        result = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        result = _merge(_merge(_merge(_merge(result, a), b), c), d)
    else:
        result = _PRIME_5 + 0
    result += size
    while at + 8 <= end:
        result = _rotate(result ^ _round(0, load(source, at)), 27) * _PRIME_1 + _PRIME_4
        at += 8
    if at + 4 <= end:
        result = _rotate(result ^ ((load(source, at) & 0xFFFFFFFF) * _PRIME_1), 23) * _PRIME_2 + _PRIME_3
        at += 4
    while at < end:
        result = _rotate(result ^ ((load(source, at) & 0xFF) * _PRIME_5), 11) * _PRIME_1
        at += 1
    result = (result ^ shift_right(result, 33)) * _PRIME_2
    result = (result ^ shift_right(result, 29)) * _PRIME_3
    return result ^ shift_right(result, 32)
