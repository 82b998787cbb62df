"""Folds one view's slices into the states of one shard's lanes.

    slice ──▶ which rows are new? ──▶ distinct entities ──▶ cached? ──no──▶ MGET ─┐
                                                              └───────yes─────────┴──▶ kernel.update ──▶ cache (dirty)

Asking and folding are two steps, so that the reads of several views are under way together. What may not live here: commits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace import kernel
from headrace.errors import Stale
from headrace.layout import Layout
from headrace.views import FeatureView
from headrace_schemas.keys import ViewKeys
from headrace_schemas.stores.lanes import LaneRecord
from headrace_schemas.stores.resp import Reply
from headrace_schemas.stores.resp import pack as resp_pack
from headrace_streams.cache import BatchKeys, Packed, StateCache, pack_names
from headrace_streams.items import Slice, Span, TopicStart
from headrace_streams.positions import Positions

_STATUSES = 1 + max(kernel.FOLDED, kernel.SKIPPED_OFFSET, kernel.DUPLICATE, kernel.TOO_LATE, kernel.FILTERED)
_LONG_AGO_US = -(2**63)
_MOST_NAMES = 1000  # of one MGET: a longer one stalls other readers
_NOTHING = Packed(
    np.zeros(0, np.uint8), np.zeros(2, np.int64)
)  # one empty state: that of an entity that Redis does not know


@dataclass(slots=True)
class Pending:
    """A slice whose entities are known, and whose states may still be on their way.

    Args:
        spans: the slice's ranges.
        events: its new rows.
        slot: for each row, its entity's place in the batch.
        keys: the distinct entities.
        numbers: their numbers in the cache, −1 where absent.
        loaded_of: for each absent entity its place among the loaded states.
        reads: for each answer that is under way, the lanes whose heads come with it.
    """

    spans: Sequence[Span]
    events: kernel.EventBatch
    slot: npt.NDArray[np.int32]
    keys: BatchKeys
    numbers: npt.NDArray[np.int32]
    loaded_of: npt.NDArray[np.int32]
    reads: Sequence[Sequence[int]]


class ViewFolder:
    """One view in one shard.

    Args:
        view: the view.
        keys: its keys in Redis.
        shard: this shard.
        shards: how many there are.
        cache_bytes: what the cache of states may take.
        by_lane: one command may only name keys of one lane.
    """

    def __init__(
        self, view: FeatureView, keys: ViewKeys, shard: int, shards: int, cache_bytes: int, *, by_lane: bool = False
    ) -> None:
        self.view, self.keys = view, keys
        self._layout = Layout.of(view)
        self._shards, self._by_lane = shards, by_lane
        self.positions = Positions(range(shard, view.lanes, shards), self.lane_name)
        self._ask_head = {lane: resp_pack("HGET", keys.lane_key(lane), "head") for lane in self.positions.lanes}
        self.cache = StateCache(cache_bytes)
        self.prefixes = pack(keys.state_prefixes)
        # A lane that nobody ever committed to has no states, so as long as nothing of it was evicted, what is not in the
        # cache is nowhere, and a bulk load of a new view reads nothing.
        self._complete = np.zeros(view.lanes, np.bool_)
        self._records: Sequence[LaneRecord] = ()
        self.counts = np.zeros(_STATUSES, np.int64)
        self.rows = 0
        self.late = 0  # rows older than the newest before them
        self.newest_us = _LONG_AGO_US

    def lane_name(self, lane: int) -> str:
        """A lane's name for messages."""
        return f"lane {lane} of view {self.view.name!r}"

    def claimed(self, records: Sequence[LaneRecord]) -> None:
        """The lanes are ours; these are their records, in the order of `positions.lanes`."""
        self._records = records
        for lane, record in zip(self.positions.lanes, records, strict=True):
            self._complete[lane] = not record.head

    def summary(self) -> dict[str, object]:
        """What became of the rows since the start, for the journal; a row that a restart brings again is counted again."""
        return {
            "view": self.view.name,
            "rows": self.rows,
            "too_late": int(self.counts[kernel.TOO_LATE]),
            "duplicates": int(self.counts[kernel.DUPLICATE]),
            "entities_cached": len(self.cache),
            "entities_evicted": self.cache.evicted,
        }

    def open(self, topic: TopicStart) -> None:
        """A source begins; see `Positions.open`."""
        self.positions.open(topic.topic_id, topic.partitions, self._records, topic.starts, topic.firsts)

    def begin(self, piece: Slice, ask: Callable[[bytes, Sequence[bytes]], None]) -> Pending | None:
        """Find the slice's entities and ask for the states that are not cached; None where no row is new.

        Args:
            piece: the slice.
            ask: sends reading commands that see one moment of the store, of which one key is told; their answers are given to
                `finish`.

        Raises:
            Gap: offsets are missing before the slice.
        """
        if self.positions.is_old(piece.spans):
            return None
        keys, events = piece.keys, piece.events
        if not self.positions.all_new(piece.spans):
            keys, events = self._new_rows(keys, events)
        if not len(events.offset):
            self.positions.advance(piece.spans)
            return None
        groups = kernel.group_keys(keys.data, keys.offsets)
        batch_keys = BatchKeys(groups.hash, groups.first, keys.data, keys.offsets)
        numbers = self.cache.find(batch_keys)
        loaded_of, reads = self._missing(batch_keys, numbers)
        for command, of in reads:
            ask(self.keys.lane_key(of[0]), [command, *(self._ask_head[lane] for lane in of)])
        return Pending(piece.spans, events, groups.slot, batch_keys, numbers, loaded_of, [of for _, of in reads])

    def _new_rows(self, keys: Packed, events: kernel.EventBatch) -> tuple[Packed, kernel.EventBatch]:
        """Only after a restart: some lanes hold some of these rows already."""
        lanes = self.keys.lanes_of(kernel.hash_keys(keys.data, keys.offsets)) // self._shards
        rows = self.positions.new_rows(lanes, events.partition, events.offset)
        return take_keys(keys, rows), events.take(rows)

    def _missing(
        self, keys: BatchKeys, numbers: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int32], list[tuple[bytes, list[int]]]]:
        """Place of each absent entity among what will be loaded (0: the empty state), and the commands that load, with their lanes."""
        loaded_of = np.zeros(len(numbers), np.int32)
        absent = np.flatnonzero(numbers < 0)
        lanes = self.keys.lanes_of(keys.hashes[absent])
        unknown = ~self._complete[lanes]
        absent, lanes = absent[unknown], lanes[unknown]
        if not len(absent):
            return loaded_of, []
        cuts = np.zeros(0, np.int64)
        if self._by_lane:
            order = np.argsort(lanes, kind="stable")
            absent, lanes = absent[order], lanes[order]
            cuts = np.flatnonzero(np.diff(lanes)) + 1
        loaded_of[absent] = np.arange(1, len(absent) + 1, dtype=np.int32)
        bounds = np.union1d(np.arange(0, len(absent), _MOST_NAMES), cuts).tolist()
        reads = []
        for start, end in zip(bounds, [*bounds[1:], len(absent)], strict=True):
            names = pack_names(keys, keys.first[absent[start:end]], lanes[start:end], self.prefixes)
            reads.append((b"*%d\r\n$4\r\nMGET\r\n%s" % (1 + end - start, names), np.unique(lanes[start:end]).tolist()))
        return loaded_of, reads

    def finish(self, pending: Pending, replies: Sequence[Reply], knows: Callable[[int, bytes], bool]) -> None:
        """Fold a slice whose states have arrived.

        Args:
            pending: what `begin` gave.
            replies: to what was asked: the states, then the heads of their lanes.
            knows: whether a head is one that this worker's lane has or may have by now.

        Raises:
            Stale: a lane has another head, so the states that were read belong to another past (docs/adr/0023).
        """
        for of, reply in zip(pending.reads, replies, strict=True):
            assert isinstance(reply, list)
            for lane, head in zip(of, reply[1:], strict=True):
                if not knows(lane, head if isinstance(head, bytes) else b""):
                    raise Stale(self.lane_name(lane))
        states = self.cache.gather(pending.numbers, _loaded(replies), pending.loaded_of)
        updated = kernel.update(self._layout, kernel.States(states.data, states.offsets), pending.events, pending.slot)
        after = Packed(updated.states.data, updated.states.offsets)
        if self.cache.store(pending.keys, pending.numbers, after, updated.dirty):
            self._complete[:] = False
        self.positions.advance(pending.spans)
        self.counts += np.bincount(updated.status, minlength=len(self.counts))
        self.rows += len(updated.status)
        times = pending.events.time_us
        self.late += int(np.count_nonzero(times < self.newest_us))
        self.newest_us = max(self.newest_us, int(times.max()))


def pack(parts: Sequence[bytes]) -> Packed:
    """Byte strings behind one another."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return Packed(np.frombuffer(bytearray().join(parts), np.uint8), offsets)


def _loaded(replies: Sequence[Reply]) -> Packed:
    """The empty state, then the answers' states in order."""
    lists = [reply[0] for reply in replies if isinstance(reply, list)]
    found = [
        value if isinstance(value, bytes) else b"" for values in lists if isinstance(values, list) for value in values
    ]
    return pack([b"", *found]) if found else _NOTHING


def take_keys(keys: Packed, rows: npt.NDArray[np.int64]) -> Packed:
    """Some rows' keys."""
    lengths = (keys.offsets[1:] - keys.offsets[:-1])[rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    shift = np.repeat(keys.offsets[rows] - offsets[:-1], lengths)
    return Packed(keys.data[np.arange(offsets[-1]) + shift], offsets)
