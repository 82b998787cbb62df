"""The cache of states against a dictionary, over generated batches."""

from __future__ import annotations

import hashlib
import io

import hiredis
import numpy as np
import pytest

from headrace_streams.cache import BatchKeys, Packed, StateCache, pack_names
from headrace_streams.folding import pack

LANES = 4
PREFIXES = pack([b"{n:v:f:%d}s" % lane for lane in range(LANES)])


def key_hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def batch_of(keys: list[bytes]) -> BatchKeys:
    rows = pack(keys)
    return BatchKeys(
        np.array([key_hash(key) for key in keys], np.uint64),
        np.arange(len(keys), dtype=np.int64),
        rows.data,
        rows.offsets,
    )


class World:
    """A cache, the Redis behind it, and what both together should know."""

    def __init__(self, capacity_bytes: int, seed: int) -> None:
        self.cache, self.redis, self.truth = StateCache(capacity_bytes), {}, {}  # type: ignore[var-annotated]
        self.random = np.random.default_rng(seed)
        self.sent: dict[bytes, bytes] = {}

    def fold(self, names: list[bytes], grow: int) -> None:
        keys = batch_of(names)
        numbers = self.cache.find(keys)
        loaded_of, loaded = np.zeros(len(names), np.int32), [b""]
        for index, name in enumerate(names):
            if numbers[index] < 0:
                loaded_of[index] = len(loaded)
                loaded.append(self.redis.get(name, b""))
        before = self.cache.gather(numbers, pack(loaded), loaded_of)
        after, dirty = [], self.random.random(len(names)) < 0.8
        for index, name in enumerate(names):
            state = before.data[before.offsets[index] : before.offsets[index + 1]].tobytes()
            assert state == self.truth.get(name, b""), "what is cached, or else in Redis, is the newest state"
            if dirty[index]:
                state += self.random.bytes(int(self.random.integers(0, grow)))
                self.truth[name] = state
            after.append(state)
        self.cache.store(keys, numbers, pack(after), dirty)

    def send(self) -> None:
        """Pack commits, read them as Redis would."""
        numbers, lanes = self.cache.dirty_by_lane(LANES)
        ends = self.cache.cut(numbers, lanes, np.diff(PREFIXES.offsets), 7, 4000)
        counts = np.diff(ends, prepend=0)
        heads = pack([b"*%d\r\n$4\r\nHEAD\r\n" % (1 + 2 * count) for count in counts])
        bounds = self.cache.commit_bounds(numbers, lanes, np.diff(PREFIXES.offsets), ends, heads.offsets)
        out = np.empty(int(bounds[-1]), np.uint8)
        self.cache.pack_commits(numbers, lanes, PREFIXES, ends, heads, out)
        for index in range(len(ends)):
            reader = hiredis.Reader()
            reader.feed(out[bounds[index] : bounds[index + 1]].tobytes())
            command = reader.gets()
            assert command[0] == b"HEAD"
            assert len(command) == 1 + 2 * counts[index]
            assert counts[index] <= 7
            self._take(command[1:], int(lanes[ends[index] - 1]))
        self.cache.depart(numbers)
        assert self.cache.dirty == 0

    def _take(self, pairs: list[bytes], lane: int) -> None:
        for name, state in zip(pairs[::2], pairs[1::2], strict=True):
            key = name.removeprefix(b"{n:v:f:%d}s" % lane)
            assert key_hash(key) % LANES == lane
            self.sent[key] = state

    def acknowledge(self) -> None:
        self.redis.update(self.sent)
        self.sent = {}
        self.cache.settle()


@pytest.mark.parametrize("capacity_bytes", [1, 20_000, 1 << 22])
@pytest.mark.parametrize("seed", range(3))
def test_no_event_is_lost_whatever_is_evicted_between_folds_and_flushes(capacity_bytes: int, seed: int) -> None:
    """A state that is dirty or under way must never be read back from Redis, which does not have it yet."""
    world = World(capacity_bytes, seed)
    names = [b"e%d" % i * (1 + i % 5) for i in range(600)]
    under_way = False
    for _ in range(150):
        chosen = world.random.choice(len(names), int(world.random.integers(1, 80)), replace=False)
        world.fold([names[i] for i in chosen], grow=int(world.random.choice([20, 200, 800])))
        step = world.random.random()
        if under_way and step < 0.5:
            world.acknowledge()
            under_way = False
        elif not under_way and step < 0.8:
            world.send()
            under_way = True
    if under_way:
        world.acknowledge()
    world.send()
    world.acknowledge()
    assert world.redis == world.truth
    assert (world.cache.evicted > 0) == (capacity_bytes < 1 << 22)


def test_a_full_cache_keeps_to_its_bytes_and_drops_the_longest_untouched() -> None:
    world = World(150_000, seed=1)
    for i in range(500):
        world.fold([b"hot", b"entity %d" % i], grow=300)
        world.send()
        world.acknowledge()
    assert world.cache.used_bytes <= 150_000
    assert world.cache.evicted > 50
    assert world.cache.find(batch_of([b"hot"]))[0] >= 0, "the one that every batch touches stays"
    assert world.cache.find(batch_of([b"entity 0"]))[0] < 0


def test_keys_that_share_a_hash_are_told_apart_by_their_bytes() -> None:
    cache = StateCache(1 << 16)
    rows = pack([b"one", b"two"])
    keys = BatchKeys(np.array([7, 7], np.uint64), np.arange(2, dtype=np.int64), rows.data, rows.offsets)
    numbers = cache.find(keys)
    cache.store(keys, numbers, pack([b"state of one", b"state of two"]), np.ones(2, np.bool_))
    found = cache.find(keys)
    packed = cache.gather(found, Packed(np.zeros(0, np.uint8), np.zeros(2, np.int64)), np.zeros(2, np.int32))
    assert packed.data.tobytes() == b"state of onestate of two"


def test_names_of_missing_entities_are_packed_as_a_command_s_arguments() -> None:
    keys = batch_of([b"a", b"bb", b"ccc"])
    rows = np.array([2, 0], np.int64)
    packed = pack_names(keys, rows, np.array([3, 1], np.int32), PREFIXES)
    reader = hiredis.Reader()
    reader.feed(io.BytesIO(b"*3\r\n$4\r\nMGET\r\n" + packed).getvalue())
    assert reader.gets() == [b"MGET", b"{n:v:f:3}sccc", b"{n:v:f:1}sa"]
