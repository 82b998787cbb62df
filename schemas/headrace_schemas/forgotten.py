"""The forgotten-list: entities that were deleted, and which of their events are gone for good.

One JSON record per deletion on the topic ``<namespace>.forgotten``: the entity, the 64-bit hash of its key (never the key itself), and for
every topic and partition the offset that came next at that moment. Events of the entity below these offsets are forgotten: whoever
reads events passes them over, today, after a rewind, from the topic and from the log. What comes later begins anew. What may not live
here: Kafka, Redis, tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headrace.errors import CodecError

Bounds = Mapping[str, Mapping[int, int]]
"""By topic id and partition, the first offset that is not forgotten."""


def forgotten_topic(namespace: str) -> str:
    """The topic of a namespace's deletions.

    >>> forgotten_topic("flights")
    'flights.forgotten'
    """
    return f"{namespace}.forgotten"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One deletion.

    Args:
        entity: the entity's name.
        key_hash: the 64-bit hash of its key (`headrace.kernel.hash_bytes` of its encoded key).
        bounds: which of its events are forgotten.
        at_us: when it was asked for.
        position: its place in the list.
    """

    entity: str
    key_hash: int
    bounds: Bounds
    at_us: int
    position: int = -1

    def encode(self) -> bytes:
        """The record."""
        bounds = {topic_id: {str(p): end for p, end in ends.items()} for topic_id, ends in self.bounds.items()}
        return json.dumps(
            {"entity": self.entity, "key_hash": f"{self.key_hash:016x}", "bounds": bounds, "at_us": self.at_us},
            sort_keys=True,
        ).encode()

    @classmethod
    def decode(cls, value: bytes, position: int) -> Forgotten:
        """The deletion of a record.

        Raises:
            CodecError: it is none.

        >>> one = Forgotten("card", 7, {"t": {0: 5}}, 1, 3)
        >>> Forgotten.decode(one.encode(), 3) == one
        True
        """
        try:
            found = json.loads(value)
            bounds = {
                topic_id: {int(p): int(end) for p, end in ends.items()} for topic_id, ends in found["bounds"].items()
            }
            return cls(str(found["entity"]), int(found["key_hash"], 16), bounds, int(found["at_us"]), position)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CodecError("forgotten-list", f"record {position} is no deletion ({error})") from None


@dataclass(slots=True)
class Sieve:
    """Tells which rows of a topic are forgotten events of one kind of entity.

    Args:
        hashes: of the keys, sorted.
        bounds: [keys, partitions]: the first offset that is not forgotten.
    """

    hashes: npt.NDArray[np.uint64]
    bounds: npt.NDArray[np.int64]
    _most: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._most = self.bounds.max(axis=0) if len(self.bounds) else np.zeros(0, np.int64)

    @classmethod
    def of(cls, entries: Iterable[Forgotten], entity: str, topic_id: str) -> Sieve | None:
        """The sieve of an entity and a topic; None where nothing of it was ever forgotten."""
        mine = [
            (one.key_hash, one.bounds[topic_id]) for one in entries if one.entity == entity and topic_id in one.bounds
        ]
        if not mine:
            return None
        hashes = np.unique(np.array([key_hash for key_hash, _ in mine], np.uint64))
        bounds = np.zeros((len(hashes), 1 + max(max(ends, default=0) for _, ends in mine)), np.int64)
        for key_hash, ends in mine:
            row = int(np.searchsorted(hashes, np.uint64(key_hash)))
            for partition, end in ends.items():
                bounds[row, partition] = max(bounds[row, partition], end)
        return cls(hashes, bounds)

    def may_hold(self, partition: npt.NDArray[np.int32], offset: npt.NDArray[np.int64]) -> bool:
        """Whether a row could be forgotten, by its place alone: never for events that came after the last deletion."""
        known = partition < len(self._most)
        return bool((offset[known] < self._most[partition[known]]).any())

    def forgotten(
        self, key_hashes: npt.NDArray[np.uint64], partition: npt.NDArray[np.int32], offset: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Which rows are forgotten.

        >>> sieve = Sieve.of([Forgotten("card", 7, {"t": {1: 5}}, 0)], "card", "t")
        >>> sieve.forgotten(np.array([7, 7, 8, 7], np.uint64), np.array([1, 1, 1, 0], np.int32), np.array([4, 5, 4, 4])).tolist()
        [True, False, False, False]
        """
        row = np.searchsorted(self.hashes, key_hashes).clip(max=len(self.hashes) - 1)
        known = (self.hashes[row] == key_hashes) & (partition < self.bounds.shape[1])
        place = np.where(known, partition, 0)
        gone: npt.NDArray[np.bool_] = known & (offset < self.bounds[row, place])
        return gone


def bounds_of(entries: Sequence[Forgotten], topic_id: str) -> dict[int, int]:
    """By partition, the offset below which some event of some entity is forgotten."""
    found: dict[int, int] = {}
    for one in entries:
        for partition, end in one.bounds.get(topic_id, {}).items():
            found[partition] = max(end, found.get(partition, 0))
    return found
