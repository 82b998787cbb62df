"""Batches between the broker and the pipelines: raw records in columns, decoded frames, and what was rejected on the way.

What may not live here: formats (``avro.py``, ``ndjson.py``) and contracts (``contracts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace_schemas.tables import META

NO_TIMESTAMP = 255


class Record(Protocol):
    """The part of a Kafka client's message that a batch is made of."""

    def offset(self) -> Any: ...
    def partition(self) -> Any: ...
    def timestamp(self) -> Any: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...


@dataclass(slots=True)
class RawBatch:
    """Records of one topic as they came, one row each.

    Args:
        topic: the topic.
        partition: the partition of each row.
        offset: its offset there.
        timestamp_us: Kafka's timestamp in microseconds, -1 where there is none.
        timestamp_type: 0 set by the producer, 1 set by the broker, 255 none.
        received_us: when the batch was received.
        keys: Kafka keys; routing only.
        values: the records.
    """

    topic: str
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    timestamp_us: npt.NDArray[np.int64]
    timestamp_type: npt.NDArray[np.uint8]
    received_us: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def from_messages(cls, topic: str, messages: Sequence[Record], received_us: int) -> RawBatch:
        """A batch of messages of `confluent_kafka` that carry no error. About 1 µs per message."""
        stamps = [message.timestamp() for message in messages]
        types = np.array([kind for kind, _ in stamps], np.int64)
        stamped = types > 0  # TIMESTAMP_NOT_AVAILABLE is 0, create time 1, append time 2
        return cls(
            topic=topic,
            partition=np.array([message.partition() for message in messages], np.int32),
            offset=np.array([message.offset() for message in messages], np.int64),
            timestamp_us=np.where(stamped, np.array([ms for _, ms in stamps], np.int64) * 1000, -1),
            timestamp_type=np.where(stamped, types - 1, NO_TIMESTAMP).astype(np.uint8),
            received_us=received_us,
            keys=[message.key() for message in messages],
            values=[message.value() for message in messages],
        )

    def arrival_us(self) -> npt.NDArray[np.int64]:
        """The recorded arrival of each row: Kafka's timestamp, or the receive time where the topic keeps none.

        Never the later of both: readers of one topic receive at different times and have to judge alike.
        """
        return np.where(self.timestamp_type == NO_TIMESTAMP, self.received_us, self.timestamp_us)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that broke its contract.

    Args:
        row: its row in the raw batch.
        reason: the field, what was required, what came.
        code: the kind of reason, for counters: ``empty``, ``undecodable``, ``schema``, ``json-schema``, ``null``, ``not-finite``, ``range``, ``choice``,
            ``future``, ``key``.
    """

    row: int
    reason: str
    code: str


@dataclass(slots=True)
class Decoded:
    """What a raw batch holds: the good rows in their order, and the others with their reasons."""

    frame: pl.DataFrame
    rejects: list[Reject]


def meta_columns(
    raw: RawBatch,
    rows: npt.NDArray[np.int64],
    event_time_us: npt.NDArray[np.int64],
    id_hash: npt.NDArray[np.uint64],
) -> list[pl.Series]:
    """The meta columns of some rows of a raw batch."""
    columns: dict[str, npt.NDArray[Any]] = {
        "_partition": raw.partition[rows],
        "_offset": raw.offset[rows],
        "_timestamp_us": raw.timestamp_us[rows],
        "_timestamp_type": raw.timestamp_type[rows],
        "_received_us": np.full(len(rows), raw.received_us, np.int64),
        "_event_time_us": event_time_us,
        "_id_hash": id_hash,
    }
    return [pl.Series(name, columns[name], dtype=dtype) for name, dtype in META.items()]


def hash_values(values: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """The 64-bit hash of each value."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return hash_packed(np.frombuffer(b"".join(values), np.uint8), offsets)


def hash_packed(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The 64-bit hash of each of several byte strings that lie one behind the other: xxHash64 with seed 0."""
    from headrace.kernel import hash_keys

    hashes: npt.NDArray[np.uint64] = hash_keys(data, offsets)
    return hashes
