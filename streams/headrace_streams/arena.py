"""Compiled inner loops of the state cache: find, gather, store, compact, and pack for the wire.

Records lie behind one another in one byte array, the arena. All else that is known of an entity stands in parallel arrays
indexed by its number, so that a batch is handled without one Python object per entity:

    arena    | number i32 | size i32 | key … | state … | slack … |   next record
             ^ places[number]                                        (size: the whole record, a multiple of 8)

A record whose number points elsewhere is garbage. What may not live here: decisions; they are in `headrace_streams.cache`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

HEADER_BYTES = 8
DIRTY = 1  # folded, not sent yet
IN_FLIGHT = 2  # sent, not acknowledged yet
LIVE = 4  # the number is taken

if TYPE_CHECKING:
    from collections.abc import Callable

    Compiled = Callable[..., Any]

    def njit(function: Compiled) -> Compiled:
        """Compile on the first call, or load what was compiled before."""

else:
    njit = nb.njit(cache=True, nogil=True)


@njit
def _same_bytes(a: Any, i: int, b: Any, j: int, n: int) -> bool:
    for k in range(n):  # noqa: SIM110  (the compiler knows no generators)
        if a[i + k] != b[j + k]:
            return False
    return True


def _memmove_code(_typing: Any, target: Any, source: Any, size: Any) -> Any:
    """The C library's memmove on addresses: a loop over bytes that may overlap is not vectorised (measured: 8 times slower)."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.PointerType(ir.IntType(8))
        to, of = (builder.inttoptr(address, pointer) for address in arguments[:2])
        cgutils.raw_memmove(builder, to, of, arguments[2], itemsize=1)
        return _context.get_dummy_value()

    return types.void(target, source, size), generate


_memmove: Any = intrinsic(_memmove_code)


@njit
def _copy(target: Any, i: int, source: Any, j: int, n: int) -> None:
    if n > 0:
        _memmove(target.ctypes.data + i, source.ctypes.data + j, np.int64(n))


@njit
def _write_i32(target: Any, i: int, value: int) -> None:
    for k in range(4):
        target[i + k] = (value >> (8 * k)) & 255


@njit
def _read_i32(source: Any, i: int) -> Any:
    return (
        np.int64(source[i])
        | (np.int64(source[i + 1]) << 8)
        | (np.int64(source[i + 2]) << 16)
        | (np.int64(source[i + 3]) << 24)
    )


@njit
def find(
    table: Any, hashes: Any, places: Any, key_bytes: Any, arena: Any,
    batch_hashes: Any, key_data: Any, key_offsets: Any, first: Any, numbers: Any,
) -> int:  # fmt: skip
    """Number of each of a batch's distinct entities, −1 where it is not cached; returns how many are not.

    `first[i]` is the row of the batch whose key is entity i's key.
    """
    mask = np.uint64(len(table) - 1)
    missing = 0
    for i in range(len(batch_hashes)):
        h = batch_hashes[i]
        start = key_offsets[first[i]]
        n = key_offsets[first[i] + 1] - start
        at = h & mask
        numbers[i] = -1
        while table[at] >= 0:
            e = table[at]
            if (
                hashes[e] == h
                and key_bytes[e] == n
                and _same_bytes(arena, places[e] + HEADER_BYTES, key_data, start, n)
            ):
                numbers[i] = e
                break
            at = (at + np.uint64(1)) & mask
        if numbers[i] < 0:
            missing += 1
    return missing


@njit
def rebuild(table: Any, hashes: Any, flags: Any, count: int) -> None:
    """Enter all live entities into an emptied table."""
    mask = np.uint64(len(table) - 1)
    table[:] = -1
    for e in range(count):
        if flags[e] & LIVE:
            at = hashes[e] & mask
            while table[at] >= 0:
                at = (at + np.uint64(1)) & mask
            table[at] = e


@njit
def packed_size(state_bytes: Any, numbers: Any, loaded_offsets: Any, loaded_of: Any) -> int:
    """Bytes of a batch's states: cached ones by number, the others from what was loaded."""
    total = 0
    for i in range(len(numbers)):
        if numbers[i] >= 0:
            total += state_bytes[numbers[i]]
        else:
            k = loaded_of[i]
            total += loaded_offsets[k + 1] - loaded_offsets[k]
    return total


@njit
def gather(
    arena: Any, places: Any, key_bytes: Any, state_bytes: Any, numbers: Any,
    loaded_data: Any, loaded_offsets: Any, loaded_of: Any, data: Any, offsets: Any,
) -> None:  # fmt: skip
    """Pack a batch's states behind one another."""
    at: Any = 0
    offsets[0] = 0
    for i in range(len(numbers)):
        e = numbers[i]
        if e >= 0:
            n = np.int64(state_bytes[e])
            _copy(data, at, arena, places[e] + HEADER_BYTES + key_bytes[e], n)
        else:
            k = loaded_of[i]
            n = loaded_offsets[k + 1] - loaded_offsets[k]
            _copy(data, at, loaded_data, loaded_offsets[k], n)
        at += n
        offsets[i + 1] = at


@njit
def _record_size(key_n: int, state_n: int) -> int:
    slack = max(state_n >> 2, 32)  # states grow by an event at a time; a quarter of slack keeps most where they are
    return (HEADER_BYTES + key_n + state_n + slack + 7) & ~7


@njit
def needed(arena: Any, places: Any, key_bytes: Any, numbers: Any, offsets: Any, key_offsets: Any, first: Any) -> int:
    """Bytes that `store` will append for these new states."""
    total = 0
    for i in range(len(numbers)):
        state_n = offsets[i + 1] - offsets[i]
        e = numbers[i]
        if e >= 0:
            room = _read_i32(arena, places[e] + 4) - HEADER_BYTES - key_bytes[e]
            if state_n > room:
                total += _record_size(key_bytes[e], state_n)
        else:
            total += _record_size(key_offsets[first[i] + 1] - key_offsets[first[i]], state_n)
    return total


@njit
def store(
    arena: Any, head: int, table: Any, hashes: Any, places: Any, key_bytes: Any, state_bytes: Any, touched: Any, flags: Any,
    free: Any, free_count: int, count: int, now: int,
    numbers: Any, data: Any, offsets: Any, dirty: Any, batch_hashes: Any, key_data: Any, key_offsets: Any, first: Any,
    dirty_numbers: Any, dirty_count: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Put new states into the arena: in place where they fit, else behind the last record.

    Returns the new head of the arena, number of free numbers, count of numbers and length of the list of dirty numbers.
    """
    mask = np.uint64(len(table) - 1)
    for i in range(len(numbers)):
        state_n = offsets[i + 1] - offsets[i]
        e = numbers[i]
        if e < 0:
            if free_count:
                free_count -= 1
                e = free[free_count]
            else:
                e = count
                count += 1
            numbers[i] = e
            start = key_offsets[first[i]]
            n = key_offsets[first[i] + 1] - start
            hashes[e], key_bytes[e], flags[e], places[e] = batch_hashes[i], n, LIVE, head
            size = _record_size(n, state_n)
            _write_i32(arena, head, e)
            _write_i32(arena, head + 4, size)
            _copy(arena, head + HEADER_BYTES, key_data, start, n)
            head += size
            at = batch_hashes[i] & mask
            while table[at] >= 0:
                at = (at + np.uint64(1)) & mask
            table[at] = e
        elif state_n > _read_i32(arena, places[e] + 4) - HEADER_BYTES - key_bytes[e]:
            size = _record_size(key_bytes[e], state_n)
            _write_i32(arena, head, e)
            _write_i32(arena, head + 4, size)
            _copy(arena, head + HEADER_BYTES, arena, places[e] + HEADER_BYTES, np.int64(key_bytes[e]))
            places[e] = head
            head += size
        _copy(arena, places[e] + HEADER_BYTES + key_bytes[e], data, offsets[i], state_n)
        state_bytes[e] = state_n
        touched[e] = now
        if dirty[i] and not flags[e] & DIRTY:
            flags[e] |= DIRTY
            dirty_numbers[dirty_count] = e
            dirty_count += 1
    return head, free_count, count, dirty_count


@njit
def live_sizes(arena: Any, places: Any, flags: Any, count: int, sizes: Any) -> int:
    """Record size of each live entity, 0 for the others; returns their sum."""
    total = 0
    for e in range(count):
        sizes[e] = 0
        if flags[e] & LIVE:
            sizes[e] = _read_i32(arena, places[e] + 4)
            total += sizes[e]
    return total


@njit
def compact(arena: Any, target: Any, head: int, places: Any, flags: Any, keep: Any, free: Any, free_count: int) -> Any:
    """Move kept records to the front of `target` (which may be the arena itself) and free the others' numbers.

    Returns the new head and the number of free numbers.
    """
    at = 0
    end = 0
    while at < head:
        e = _read_i32(arena, at)
        size = _read_i32(arena, at + 4)
        if places[e] == at and flags[e] & LIVE:
            if keep[e]:
                _copy(target, end, arena, at, size)
                places[e] = end
                end += size
            else:
                flags[e] = 0
                places[e] = -1
                free[free_count] = e
                free_count += 1
        at += size
    return end, free_count


@njit
def settle(flags: Any, numbers: Any) -> None:
    """The flush that carried these entities is acknowledged."""
    for i in range(len(numbers)):
        flags[numbers[i]] &= ~IN_FLIGHT


@njit
def depart(flags: Any, numbers: Any) -> None:
    """These dirty entities are being sent."""
    for i in range(len(numbers)):
        flags[numbers[i]] = (flags[numbers[i]] | IN_FLIGHT) & ~DIRTY


# --- the wire --------------------------------------------------------------------------------------------------------


@njit
def _digits(n: int) -> Any:
    count = 1
    while n >= 10:
        n //= 10
        count += 1
    return count


@njit
def _write_size(out: Any, at: int, mark: int, n: int) -> Any:
    """A size line, such as ``$12``, with its line end; returns the position behind it."""
    out[at] = mark
    at += 1
    count = _digits(n)
    for k in range(count):
        out[at + count - 1 - k] = 48 + n % 10
        n //= 10
    at += count
    out[at], out[at + 1] = 13, 10
    return at + 2


@njit
def _bulk_size(n: int) -> Any:
    return 1 + _digits(n) + 2 + n + 2


@njit
def cut(
    lanes: Any, key_bytes: Any, state_bytes: Any, numbers: Any, prefix_bytes: Any, most_keys: int, most_bytes: int, ends: Any
) -> int:  # fmt: skip
    """Cut entities that are sorted by lane into commits of one lane each; returns how many, their ends in `ends`."""
    commits = 0
    keys = 0
    total = 0
    for i in range(len(numbers)):
        e = numbers[i]
        n = prefix_bytes[lanes[i]] + key_bytes[e] + state_bytes[e]
        if i and (lanes[i] != lanes[i - 1] or keys == most_keys or total + n > most_bytes):
            ends[commits] = i
            commits += 1
            keys = 0
            total = 0
        keys += 1
        total += n
    if len(numbers):
        ends[commits] = len(numbers)
        commits += 1
    return commits


@njit
def commit_sizes(
    lanes: Any, key_bytes: Any, state_bytes: Any, numbers: Any, prefix_bytes: Any, ends: Any, head_offsets: Any, bounds: Any
) -> None:  # fmt: skip
    """Where each packed commit will begin: its head, then a key and a value for each entity."""
    start = 0
    bounds[0] = 0
    for c in range(len(ends)):
        size = head_offsets[c + 1] - head_offsets[c]
        for i in range(start, ends[c]):
            e = numbers[i]
            size += _bulk_size(prefix_bytes[lanes[i]] + key_bytes[e]) + _bulk_size(np.int64(state_bytes[e]))
        start = ends[c]
        bounds[c + 1] = bounds[c] + size


@njit
def pack_commits(
    arena: Any, places: Any, key_bytes: Any, state_bytes: Any, numbers: Any, lanes: Any,
    prefix_data: Any, prefix_offsets: Any, ends: Any, heads: Any, head_offsets: Any, out: Any,
) -> None:  # fmt: skip
    """Write commits as they go over the wire, states straight from the arena."""
    at = 0
    start = 0
    for c in range(len(ends)):
        n = head_offsets[c + 1] - head_offsets[c]
        _copy(out, at, heads, head_offsets[c], n)
        at += n
        for i in range(start, ends[c]):
            e = numbers[i]
            lane = lanes[i]
            prefix_n = prefix_offsets[lane + 1] - prefix_offsets[lane]
            key_n = np.int64(key_bytes[e])
            state_n = np.int64(state_bytes[e])
            at = _write_size(out, at, 36, prefix_n + key_n)
            _copy(out, at, prefix_data, prefix_offsets[lane], prefix_n)
            at += prefix_n
            _copy(out, at, arena, places[e] + HEADER_BYTES, key_n)
            at += key_n
            out[at], out[at + 1] = 13, 10
            at = _write_size(out, at + 2, 36, state_n)
            _copy(out, at, arena, places[e] + HEADER_BYTES + key_n, state_n)
            at += state_n
            out[at], out[at + 1] = 13, 10
            at += 2
        start = ends[c]


@njit
def names_size(lanes: Any, prefix_offsets: Any, key_offsets: Any, rows: Any) -> int:
    """Bytes of `pack_names`."""
    total = 0
    for i in range(len(rows)):
        n = prefix_offsets[lanes[i] + 1] - prefix_offsets[lanes[i]]
        total += _bulk_size(n + key_offsets[rows[i] + 1] - key_offsets[rows[i]])
    return total


@njit
def pack_names(
    lanes: Any, prefix_data: Any, prefix_offsets: Any, key_data: Any, key_offsets: Any, rows: Any, out: Any
) -> None:
    """Write the Redis keys of these rows' entities as a command's arguments."""
    at = 0
    for i in range(len(rows)):
        prefix_n = prefix_offsets[lanes[i] + 1] - prefix_offsets[lanes[i]]
        start = key_offsets[rows[i]]
        key_n = key_offsets[rows[i] + 1] - start
        at = _write_size(out, at, 36, prefix_n + key_n)
        _copy(out, at, prefix_data, prefix_offsets[lanes[i]], prefix_n)
        at += prefix_n
        _copy(out, at, key_data, start, key_n)
        at += key_n
        out[at], out[at + 1] = 13, 10
        at += 2
