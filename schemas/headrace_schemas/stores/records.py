"""Reading assigned partitions in bulk: batches of records in columns, and what is no record.

    NativeRecords   librdkafka's messages, read by compiled code: no object for a record
    ObjectRecords   confluent_kafka's messages, where the library's own functions cannot be reached

Both tell the same. What may not live here: positions, what is done about troubles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace_schemas.batches import NO_TIMESTAMP, RawBatch
from headrace_schemas.columns import PackedValues
from headrace_schemas.stores.kafka import consumer, consumer_settings
from headrace_schemas.stores.librdkafka import Handle, UnavailableError, address_of

Place = tuple[str, int, int]
"""Topic, partition, offset."""

_SLACK_BYTES = 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records of one topic, and the epoch of the leader that gave each; -1 where it told none."""

    raw: RawBatch
    epoch: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What came instead of a record: an end of partition, or an error; the code is one of `KafkaError`."""

    code: int
    text: str
    topic: str | None
    partition: int | None
    offset: int | None


class Records(Protocol):
    """Reads assigned partitions."""

    def assign(self, places: Sequence[Place]) -> None:
        """Begin to read."""

    def fetch(self, most: int, received_us: int) -> tuple[list[Fetched], list[Trouble]]:
        """What is there, without waiting: at most so many records, one batch per topic, and what is no record."""

    def watermarks(self, topic: str, partition: int, timeout_s: float | None = None) -> tuple[int, int]:
        """The first offset of a partition and the one behind its last; without a time, as the broker has told last.

        Raises:
            KafkaException: the broker does not answer, or has told nothing.
            RuntimeError: it is closed.
        """

    def close(self) -> None:
        """Leave the broker."""


def open_records(bootstrap: str, **settings: object) -> Records:
    """A reader without a group; see `kafka.consumer`.

    Args:
        bootstrap: addresses of brokers.
        settings: librdkafka's settings with ``_`` for ``.``.
    """
    try:
        return NativeRecords(bootstrap, **settings)
    except UnavailableError:
        return ObjectRecords(consumer(bootstrap, **settings))


class NativeRecords:
    """Reads through the library's own functions. `watermarks` and `close` may be called from any thread.

    Args:
        bootstrap: addresses of brokers.
        settings: librdkafka's settings with ``_`` for ``.``.

    Raises:
        UnavailableError: the functions cannot be reached.
    """

    def __init__(self, bootstrap: str, **settings: object) -> None:
        from headrace_schemas.compiled import records

        self._compiled: Any = records
        _warm()
        self._handle = Handle(consumer_settings(bootstrap, settings))
        library = self._handle.library
        self._timestamp = address_of(library.rd_kafka_message_timestamp)
        self._epoch = address_of(library.rd_kafka_message_leader_epoch)
        self._destroy = address_of(library.rd_kafka_message_destroy)
        self._messages = np.empty(0, np.int64)
        self._lock, self._closed = threading.Lock(), False

    def assign(self, places: Sequence[Place]) -> None:
        """Begin to read."""
        self._handle.assign(list(places))

    def fetch(self, most: int, received_us: int) -> tuple[list[Fetched], list[Trouble]]:
        """See `Records`."""
        if len(self._messages) < most:
            self._messages = np.empty(most, np.int64)
        with self._lock:
            self._check_open()
            count = self._handle.consume(self._messages.__array_interface__["data"][0], most)
        if not count:
            return [], []
        messages = self._messages[:count]
        try:
            return self._told(messages, received_us)
        finally:
            self._compiled.destroy(messages, self._destroy)

    def _told(self, messages: npt.NDArray[np.int64], received_us: int) -> tuple[list[Fetched], list[Trouble]]:
        compiled = self._compiled
        heads = np.empty((compiled.HEADS, len(messages)), np.int64)
        compiled.read_heads(messages, self._timestamp, self._epoch, heads)
        troubles = []
        errors = heads[compiled.ERROR]
        if errors.any():
            troubles = [self._trouble(int(messages[row]), heads[:, row]) for row in np.flatnonzero(errors).tolist()]
            messages, heads = messages[errors == 0], heads[:, errors == 0]
        topics = heads[compiled.TOPIC]
        if not len(messages) or (topics == topics[0]).all():
            found = [(messages, heads)] if len(messages) else []
        else:
            # In the order of their first records; numpy's own order is that of addresses.
            _, firsts = np.unique(topics, return_index=True)
            every = [topics == topics[first] for first in np.sort(firsts)]
            found = [(messages[rows], heads[:, rows]) for rows in every]
        return [self._fetched(mine, head, received_us) for mine, head in found], troubles

    def _fetched(self, messages: npt.NDArray[np.int64], heads: npt.NDArray[np.int64], received_us: int) -> Fetched:
        compiled = self._compiled
        kind = heads[compiled.TIME_KIND]
        stamped = kind > 0  # not available is 0, create time 1, append time 2
        raw = RawBatch(
            topic=self._handle.library.rd_kafka_topic_name(int(heads[compiled.TOPIC, 0])).decode(),
            partition=heads[compiled.PARTITION].astype(np.int32),
            offset=heads[compiled.OFFSET].copy(),
            timestamp_us=np.where(stamped, heads[compiled.TIME_MS] * 1000, -1),
            timestamp_type=np.where(stamped, kind - 1, NO_TIMESTAMP).astype(np.uint8),
            received_us=received_us,
            keys=self._packed(messages, compiled.KEY, heads[compiled.KEY_LENGTH]),
            values=self._packed(messages, compiled.PAYLOAD, heads[compiled.LENGTH]),
        )
        return Fetched(raw, heads[compiled.EPOCH].astype(np.int32))

    def _packed(self, messages: npt.NDArray[np.int64], part: int, lengths: npt.NDArray[np.int64]) -> PackedValues:
        data, offsets = self._compiled.gather(
            np.ascontiguousarray(messages), part, np.ascontiguousarray(lengths), _SLACK_BYTES
        )
        return PackedValues(data, offsets, lengths == self._compiled.ABSENT)

    def _trouble(self, message: int, head: npt.NDArray[np.int64]) -> Trouble:
        compiled, library = self._compiled, self._handle.library
        text = library.rd_kafka_message_errstr(message) or library.rd_kafka_err2str(int(head[compiled.ERROR]))
        topic = int(head[compiled.TOPIC])
        return Trouble(
            code=int(head[compiled.ERROR]),
            text=(text or b"").decode(errors="replace"),
            topic=library.rd_kafka_topic_name(topic).decode() if topic else None,
            partition=int(head[compiled.PARTITION]),
            offset=int(head[compiled.OFFSET]),
        )

    def watermarks(self, topic: str, partition: int, timeout_s: float | None = None) -> tuple[int, int]:
        """See `Records`."""
        with self._lock:
            self._check_open()
            return self._handle.watermarks(topic, partition, timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the reader is closed")

    def close(self) -> None:
        """Leave the broker."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._handle.close()


@cache
def _warm() -> None:
    """Compile or load what reads messages, which the first records would wait for."""
    from headrace.kernel.compiling import compiling_alone
    from headrace_schemas.compiled import records

    none = np.empty(0, np.int64)
    with compiling_alone("records"):
        records.read_heads(none, 0, 0, np.empty((records.HEADS, 0), np.int64))
        records.gather(none, records.PAYLOAD, none, 0)
        records.destroy(none, 0)


class ObjectRecords:
    """Reads through confluent_kafka's consumer.

    Args:
        found: the consumer.
    """

    def __init__(self, found: Consumer) -> None:
        self._consumer = found

    def assign(self, places: Sequence[Place]) -> None:
        """Begin to read."""
        self._consumer.assign([TopicPartition(*place) for place in places])

    def fetch(self, most: int, received_us: int) -> tuple[list[Fetched], list[Trouble]]:
        """See `Records`."""
        by_topic: dict[str, list[Any]] = {}
        troubles = []
        for message in self._consumer.consume(most, 0):
            error = message.error()
            if error is None:
                by_topic.setdefault(message.topic() or "", []).append(message)
            else:
                troubles.append(
                    Trouble(error.code(), error.str(), message.topic(), message.partition(), message.offset())
                )
        return [self._fetched(topic, of_topic, received_us) for topic, of_topic in by_topic.items()], troubles

    def _fetched(self, topic: str, messages: Sequence[Any], received_us: int) -> Fetched:
        epochs: Iterable[int | None] = (message.leader_epoch() for message in messages)
        epoch = np.array([-1 if one is None else one for one in epochs], np.int32)
        return Fetched(RawBatch.from_messages(topic, messages, received_us), epoch)

    def watermarks(self, topic: str, partition: int, timeout_s: float | None = None) -> tuple[int, int]:
        """See `Records`."""
        place = TopicPartition(topic, partition)
        if timeout_s is None:
            low, high = self._consumer.get_watermark_offsets(place, cached=True)
        else:
            low, high = self._consumer.get_watermark_offsets(place, timeout=timeout_s)
        return low, high

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def is_end(trouble: Trouble) -> bool:
    """Whether it is only an end of partition, for now."""
    return trouble.code == KafkaError._PARTITION_EOF
