"""The worker's states of one view: newest state of the active entities, bounded by bytes.

A state in the cache is newer than what Redis holds until its commit is acknowledged. Such states are pinned: an evicted one
would be read back from Redis and lose its events. The rest may be evicted at any time, the longest untouched first. The worker
drops the whole cache, and itself, on any answer but APPLIED, so nothing that Redis refused is ever built upon
(docs/adr/0008). What may not live here: Redis, lanes' positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace_streams import arena

_I32 = npt.NDArray[np.int32]
_I64 = npt.NDArray[np.int64]
_U8 = npt.NDArray[np.uint8]
_U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class BatchKeys:
    """The distinct entities of one batch.

    Args:
        hashes: 64-bit hash of each distinct key.
        first: the row of the batch that shows each distinct key.
        data, offsets: keys of all rows, packed.
    """

    hashes: _U64
    first: _I64
    data: _U8
    offsets: _I64


@dataclass(frozen=True, slots=True)
class Packed:
    """States behind one another; state i is ``data[offsets[i]:offsets[i + 1]]``, empty where there is none."""

    data: _U8
    offsets: _I64


class StateCache:
    """Newest states of one view's active entities.

    Args:
        capacity_bytes: what records may take; more is taken only while more than that is pinned.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = max(capacity_bytes, 1 << 12)
        self._arena: _U8 = np.empty(min(self._capacity_bytes, 1 << 20), np.uint8)
        self._head = 0
        self._count = 0  # numbers ever given out; freed ones are in _free
        self._free_count = 0
        self._dirty_count = 0
        self._now = 0
        self._grow_numbers(1024)
        self._in_flight: _I32 = np.zeros(0, np.int32)
        self.evicted = 0  # entities, since the start

    def _grow_numbers(self, size: int) -> None:
        """Room for `size` numbers, and a table that is at most half full with them."""
        old = self._count
        for name, dtype in (
            ("_hashes", np.uint64), ("_places", np.int64), ("_key_bytes", np.int32), ("_state_bytes", np.int32),
            ("_touched", np.int64), ("_flags", np.uint8), ("_free", np.int32), ("_dirty", np.int32),
        ):  # fmt: skip
            array = np.zeros(size, dtype)
            if old:
                array[: len(getattr(self, name))] = getattr(self, name)
            setattr(self, name, array)
        self._table: _I32 = np.empty(1 << (2 * size - 1).bit_length(), np.int32)  # a power of two
        arena.rebuild(self._table, self._hashes, self._flags, old)

    _hashes: _U64
    _places: _I64
    _key_bytes: _I32
    _state_bytes: _I32
    _touched: _I64
    _flags: _U8
    _free: _I32
    _dirty: _I32

    def __len__(self) -> int:
        return self._count - self._free_count

    @property
    def used_bytes(self) -> int:
        """Bytes of the arena up to its head, garbage included."""
        return self._head

    @property
    def dirty(self) -> int:
        """How many entities wait to be sent."""
        return self._dirty_count

    def dirty_bytes(self) -> int:
        """Bytes of the states that wait to be sent."""
        return int(self._state_bytes[self._dirty[: self._dirty_count]].sum())

    def find(self, keys: BatchKeys) -> _I32:
        """The number of each distinct entity, −1 where it is not cached."""
        numbers = np.empty(len(keys.hashes), np.int32)
        arena.find(
            self._table, self._hashes, self._places, self._key_bytes, self._arena,
            keys.hashes, keys.data, keys.offsets, keys.first, numbers,
        )  # fmt: skip
        return numbers

    def gather(self, numbers: _I32, loaded: Packed, loaded_of: _I32) -> Packed:
        """The batch's states in one piece.

        Args:
            numbers: what `find` gave.
            loaded: states of the entities that are not cached.
            loaded_of: for each entity that is not cached, its place in `loaded`.
        """
        size = arena.packed_size(self._state_bytes, numbers, loaded.offsets, loaded_of)
        data, offsets = np.empty(size, np.uint8), np.empty(len(numbers) + 1, np.int64)
        arena.gather(
            self._arena, self._places, self._key_bytes, self._state_bytes, numbers,
            loaded.data, loaded.offsets, loaded_of, data, offsets,
        )  # fmt: skip
        return Packed(data, offsets)

    def store(self, keys: BatchKeys, numbers: _I32, states: Packed, dirty: npt.NDArray[np.bool_]) -> bool:
        """Take a batch's new states; they are pinned where `dirty`.

        Returns:
            Whether entities had to be evicted, so that "not cached" no longer means "not in Redis".
        """
        need = arena.needed(
            self._arena, self._places, self._key_bytes, numbers, states.offsets, keys.offsets, keys.first
        )
        self._now += 1
        known = numbers[numbers >= 0]
        self._touched[known] = self._now  # what this batch uses is not what its own arrival evicts
        before = self.evicted
        if self._head + need > len(self._arena):
            self._make_room(need, known)
        if self._count + len(numbers) > len(self._hashes):
            self._grow_numbers(max(2 * len(self._hashes), self._count + len(numbers)))
        self._head, self._free_count, self._count, self._dirty_count = arena.store(
            self._arena, self._head, self._table, self._hashes, self._places, self._key_bytes, self._state_bytes,
            self._touched, self._flags, self._free, self._free_count, self._count, self._now,
            numbers, states.data, states.offsets, dirty, keys.hashes, keys.data, keys.offsets, keys.first,
            self._dirty, self._dirty_count,
        )  # fmt: skip
        return self.evicted > before

    def _make_room(self, need: int, in_use: _I32) -> None:
        """Drop garbage and, if that is not enough, the longest untouched entities; grow only for what is pinned."""
        sizes = np.zeros(self._count, np.int64)
        live = int(arena.live_sizes(self._arena, self._places, self._flags, self._count, sizes))
        keep = sizes > 0
        room = self._capacity_bytes - need
        if live > room:
            pinned = (self._flags[: self._count] & (arena.DIRTY | arena.IN_FLIGHT)) != 0
            pinned[in_use] = True
            # Down to half of the room: compacting costs a pass over the arena, and must not come with every batch.
            newest_first = np.argsort(-self._touched[: self._count], kind="stable")
            free_for_others = max(room // 2 - int(sizes[pinned].sum()), 0)
            weights = np.where(pinned, 0, sizes)[newest_first]
            keep[newest_first] &= np.cumsum(weights) <= free_for_others
            keep |= pinned & (sizes > 0)
            live = int(sizes[keep].sum())
        wanted = live + need
        target = self._arena
        if wanted > len(self._arena) or (len(self._arena) < self._capacity_bytes and 2 * wanted > len(self._arena)):
            target = np.empty(max(wanted, min(self._capacity_bytes, 4 * wanted)), np.uint8)
        free_before = self._free_count
        self._head, self._free_count = arena.compact(
            self._arena, target, self._head, self._places, self._flags, keep, self._free, self._free_count
        )
        self._arena = target
        self.evicted += self._free_count - free_before
        if self._free_count > free_before:
            arena.rebuild(self._table, self._hashes, self._flags, self._count)

    def depart(self, numbers: _I32) -> None:
        """These entities, which were `dirty_numbers`, are being sent."""
        arena.depart(self._flags, numbers)
        self._in_flight = numbers
        self._dirty_count = 0

    def settle(self) -> None:
        """What was sent is acknowledged."""
        arena.settle(self._flags, self._in_flight)
        self._in_flight = np.zeros(0, np.int32)

    def dirty_by_lane(self, lanes: int) -> tuple[_I32, _I32]:
        """The entities that wait to be sent, sorted by lane, and the lane of each."""
        numbers = self._dirty[: self._dirty_count]
        of = (self._hashes[numbers] % np.uint64(lanes)).astype(np.int32)
        order = np.argsort(of, kind="stable")
        return numbers[order], of[order]

    def cut(self, numbers: _I32, lanes: _I32, prefix_bytes: _I64, most_keys: int, most_bytes: int) -> _I64:
        """Where each commit ends, if entities sorted by lane are cut into commits of one lane each."""
        ends = np.empty(len(numbers), np.int64)
        count = arena.cut(lanes, self._key_bytes, self._state_bytes, numbers, prefix_bytes, most_keys, most_bytes, ends)
        return ends[:count]

    def commit_bounds(self, numbers: _I32, lanes: _I32, prefix_bytes: _I64, ends: _I64, head_offsets: _I64) -> _I64:
        """Where each packed commit begins, and the last ends; arguments as for `pack_commits`."""
        bounds = np.empty(len(ends) + 1, np.int64)
        arena.commit_sizes(lanes, self._key_bytes, self._state_bytes, numbers, prefix_bytes, ends, head_offsets, bounds)
        return bounds

    def pack_commits(self, numbers: _I32, lanes: _I32, prefixes: Packed, ends: _I64, heads: Packed, out: _U8) -> None:
        """Write commits as they go over the wire.

        Args:
            numbers: entities, from `dirty_by_lane`.
            lanes: the lane of each.
            prefixes: what stands before an entity's key in Redis, by lane.
            ends: where each commit ends among them, from `cut`.
            heads: the packed beginning of each commit, up to its first state's key.
            out: where to; as long as `commit_bounds` says.
        """
        arena.pack_commits(
            self._arena, self._places, self._key_bytes, self._state_bytes, numbers, lanes,
            prefixes.data, prefixes.offsets, ends, heads.data, heads.offsets, out,
        )  # fmt: skip


def warm() -> None:
    """Compile or load everything once, so that the first batch does not wait for it: seconds the first time on a machine."""
    from headrace.kernel.compiling import compiling_alone

    with compiling_alone("cache"):
        cache = StateCache(1 << 12)
        key = Packed(np.zeros(1, np.uint8), np.array([0, 1]))
        read_only = np.frombuffer(b"\0", np.uint8)  # as the keys of a batch are: it is another type to the compiler
        keys = BatchKeys(np.zeros(1, np.uint64), np.zeros(1, np.int64), read_only, key.offsets)
        absent, none, marked = np.full(1, -1, np.int32), np.zeros(1, np.int32), np.ones(1, np.bool_)
        for _ in range(2):  # the first time the entity is new, the second time it is found
            states = cache.gather(cache.find(keys), Packed(key.data, np.zeros(2, np.int64)), none)
            cache.store(keys, absent if not len(cache) else cache.find(keys), states, marked)
        numbers, lanes = cache.dirty_by_lane(1)
        prefix_bytes, heads = np.ones(1, np.int64), key
        ends = cache.cut(numbers, lanes, prefix_bytes, 1, 1)
        bounds = cache.commit_bounds(numbers, lanes, prefix_bytes, ends, heads.offsets)
        cache.pack_commits(numbers, lanes, key, ends, heads, np.empty(int(bounds[-1]), np.uint8))
        cache.depart(numbers)
        cache.settle()
        cache._make_room(1, numbers)
        pack_names(keys, keys.first, lanes, key)


def pack_names(keys: BatchKeys, rows: _I64, lanes: _I32, prefixes: Packed) -> bytes:
    """The Redis keys of rows' entities as a command's arguments.

    Args:
        keys: the batch's keys.
        rows: rows of the batch.
        lanes: the lane of each of them.
        prefixes: what stands before an entity's key in Redis, by lane.
    """
    out = np.empty(arena.names_size(lanes, prefixes.offsets, keys.offsets, rows), np.uint8)
    arena.pack_names(lanes, prefixes.data, prefixes.offsets, keys.data, keys.offsets, rows, out)
    return out.tobytes()
