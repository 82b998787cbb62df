"""The broker client: topics and their identity, offsets, a safe producer and a plain reader.

Two rules hold here. A topic is identified by the broker's topic id and its partition count, never by its name, because a
topic that was deleted and made again counts its offsets from zero. And the end of a partition is where a fetch ends, never the
answer to ListOffsets alone: an embedded broker answers that with the last batch's base plus one. Readers see committed records
only, so an open transaction is an end.
What may not live here: the feature pipelines' source, which fetches in batches and tracks ranges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # its stub does not export it
from confluent_kafka.cimpl import NewTopic

from headrace.errors import ConfigError, NotFound, ServiceUnavailable, StoreError

_Result = TypeVar("_Result")

PATIENCE_S = 15.0  # how long a missing broker is waited for before the error
_REQUEST_S = 5.0
_PAUSE_S = 0.25
EMBEDDED = "headrace-"  # what the embedded broker's cluster id begins with
_NO_GROUP = "headrace-reader"  # librdkafka wants a group id even where nothing is ever committed
# librdkafka writes every failed connection to stderr by itself; what matters comes back as an error with a message.
_QUIET = {"log_level": 0}
_TRANSIENT = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    }
)

# How a consumer is told that its position is below the first record, or beyond the last.
_REMOVED = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})

#: Settings of a topic whose records count as long as the project: a broker keeps seven days unless it is told otherwise.
FOR_EVER: Mapping[str, str] = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What makes a topic this topic: the broker's id of it, and how many partitions it has."""

    topic_id: str
    partitions: int


def ensure_topics(
    bootstrap: str,
    topics: Mapping[str, int],
    *,
    config: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> dict[str, TopicIdentity]:
    """Create the topics that are not there yet, with the broker's default replication; existing ones stay as they are.

    Args:
        bootstrap: addresses of brokers.
        topics: partitions to create, by topic name.
        config: topic settings for those that are created.
        patience_s: how long a missing broker is waited for.

    Returns:
        The identity of each topic, whoever created it.

    Raises:
        ServiceUnavailable: no broker answered in time.
        StoreError: the broker refused a topic.
    """
    admin = _admin(bootstrap)
    new = [
        NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config or {}))
        for topic, partitions in topics.items()
    ]

    def create() -> None:
        for topic, future in admin.create_topics(new, request_timeout=_request_s(patience_s)).items():
            try:
                future.result(timeout=2 * _request_s(patience_s))
            except KafkaException as error:
                if _code(error) in _TRANSIENT:
                    raise
                if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StoreError(
                        f"Kafka at {bootstrap}: topic {topic!r} could not be created with {topics[topic]} partitions "
                        f"({_reason(error)}); create it by hand, or correct its name"
                    ) from error

    if new:
        _patiently(bootstrap, create, patience_s)
    # A broker may answer a creation before every node knows of the topic.
    return {topic: topic_identity(bootstrap, topic, patience_s=patience_s, appears=True) for topic in topics}


def delete_topics(bootstrap: str, topics: Sequence[str], *, patience_s: float = PATIENCE_S) -> None:
    """Delete topics with all that they hold; those that do not exist are passed over."""
    admin = _admin(bootstrap)

    def delete() -> None:
        for topic, future in admin.delete_topics(list(topics), request_timeout=_request_s(patience_s)).items():
            try:
                future.result(timeout=2 * _request_s(patience_s))
            except KafkaException as error:
                if _code(error) in _TRANSIENT:
                    raise
                if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise StoreError(
                        f"Kafka at {bootstrap}: topic {topic!r} could not be deleted ({_reason(error)}); "
                        f"check the broker's permissions"
                    ) from error

    if topics:
        _patiently(bootstrap, delete, patience_s)


def answers_at_once(bootstrap: str) -> bool:
    """Whether the broker answers a waiting fetch as soon as there is a record, as Apache Kafka does.

    The embedded broker answers when the fetch's time is over. False too where the broker does not say what it is.
    """
    admin = _admin(bootstrap)  # a client that is dropped takes its answers with it
    try:
        described = admin.describe_cluster(request_timeout=_REQUEST_S).result(timeout=2 * _REQUEST_S)
    except (KafkaException, TimeoutError):
        return False
    return not str(described.cluster_id).startswith(EMBEDDED)


def topic_names(bootstrap: str, *, patience_s: float = PATIENCE_S) -> list[str]:
    """Every topic of the broker, sorted. Asks for no topic by name, because that creates it on some brokers."""
    admin = _admin(bootstrap)
    return _patiently(bootstrap, lambda: sorted(admin.list_topics(timeout=_request_s(patience_s)).topics), patience_s)


def topic_identity(
    bootstrap: str, topic: str, *, patience_s: float = PATIENCE_S, appears: bool = False
) -> TopicIdentity:
    """The identity of a topic now.

    Args:
        bootstrap: addresses of brokers.
        topic: its name.
        patience_s: how long a missing broker is waited for.
        appears: the topic was just created, so its absence is waited out as well.

    Raises:
        NotFound: there is no such topic.
        ServiceUnavailable: no broker answered in time.
    """
    admin = _admin(bootstrap)

    def describe() -> TopicIdentity:
        # DescribeTopics and not a metadata request by name: the latter re-creates a lost topic on some brokers.
        futures = admin.describe_topics(TopicCollection([topic]), request_timeout=_request_s(patience_s))
        described = futures[topic].result(timeout=2 * _request_s(patience_s))
        return TopicIdentity(topic_id=str(described.topic_id), partitions=len(described.partitions))

    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _patiently(bootstrap, describe, patience_s)
        except KafkaException as error:
            if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise StoreError(
                    f"Kafka at {bootstrap}: topic {topic!r} could not be described ({_reason(error)}); "
                    f"check its name and the broker's permissions"
                ) from error
            if not appears or time.monotonic() > deadline:
                raise NotFound("topic", topic, topic_names(bootstrap, patience_s=patience_s)) from error
            time.sleep(_PAUSE_S)


def first_offsets(bootstrap: str, topic: str, *, patience_s: float = PATIENCE_S) -> dict[int, int]:
    """The first offset that each partition still keeps."""
    return {partition: first for partition, (first, _) in _offsets(bootstrap, topic, patience_s).items()}


def end_offsets(bootstrap: str, topic: str, *, patience_s: float = PATIENCE_S) -> dict[int, int]:
    """The offset behind the last record of each partition that a reader of committed records can reach now."""
    return {partition: end for partition, (_, end) in _offsets(bootstrap, topic, patience_s).items()}


def _offsets(bootstrap: str, topic: str, patience_s: float) -> dict[int, tuple[int, int]]:
    """The first offset of each partition, and where a reader of committed records comes to its end."""
    partitions = topic_identity(bootstrap, topic, patience_s=patience_s).partitions
    reader = consumer(bootstrap, enable_partition_eof=True)
    try:

        def listed() -> dict[int, tuple[int, int]]:
            return {
                partition: reader.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=_request_s(patience_s)
                )
                for partition in range(partitions)
            }

        deadline = time.monotonic() + patience_s
        while True:
            found = _patiently(bootstrap, listed, patience_s)
            # Reading the last known record makes the broker tell the true end along with it.
            filled = {p: max(first, end - 1) for p, (first, end) in found.items() if end > first}
            ends = _read_to_ends(reader, topic, filled, deadline)
            if ends is not None:
                break
        if len(ends) < len(filled):
            raise ServiceUnavailable("Kafka", bootstrap, f"no fetch of topic {topic!r} was answered")
        return found | {partition: (found[partition][0], end) for partition, end in ends.items()}
    finally:
        reader.close()


def _read_to_ends(reader: Consumer, topic: str, starts: Mapping[int, int], deadline: float) -> dict[int, int] | None:
    """Where each partition ends: at the high watermark, or before it, where a transaction is open or the rest was aborted.

    None where the broker has removed a record to start at since it was listed: the listing is to be repeated.
    """
    ends: dict[int, int] = {}
    if starts:
        reader.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
    while len(ends) < len(starts) and time.monotonic() < deadline:
        message = reader.poll(0.05)
        error = None if message is None else message.error()
        if message is not None and error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                ends[int(message.partition() or 0)] = int(message.offset() or 0)
            elif error.code() in _REMOVED:
                return None
        for partition, start in starts.items():
            if partition not in ends:
                place = TopicPartition(topic, partition)
                high = reader.get_watermark_offsets(place, cached=True)[1]
                if start <= high <= reader.position([place])[0].offset:
                    ends[partition] = high  # records keep coming, so there may be no end of the partition to be told of
    return ends


def cleanup_policy(bootstrap: str, topic: str, *, patience_s: float = PATIENCE_S) -> str | None:
    """What the broker does with old records of a topic: ``delete``, ``compact`` or both; None where it does not say."""
    return topic_setting(bootstrap, topic, "cleanup.policy", patience_s=patience_s)


def topic_setting(bootstrap: str, topic: str, name: str, *, patience_s: float = PATIENCE_S) -> str | None:
    """A setting of a topic; None where the broker does not say."""
    admin = _admin(bootstrap)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        future = admin.describe_configs([resource], request_timeout=_request_s(patience_s))[resource]
        entry = future.result(timeout=2 * _request_s(patience_s)).get(name)
    except (KafkaException, TimeoutError):
        return None
    return None if entry is None else str(entry.value)


def refuse_compacted(bootstrap: str, topic: str) -> None:
    """Refuse a topic whose older records the broker removes one by one.

    Raises:
        ConfigError: it is compacted: what is read again would not be what was read, and events would be missing.
    """
    policy = cleanup_policy(bootstrap, topic)
    if policy is not None and "compact" in policy:
        raise ConfigError(
            f"topic {topic!r}: events need a topic that keeps every record until it deletes old ones, but its cleanup.policy is "
            f"{policy}: compaction removes all but the newest record of each key, so a replay would count less than was counted; "
            f"set cleanup.policy=delete, or copy the records to a topic that has it"
        )


def producer(bootstrap: str, **settings: object) -> Producer:
    """A producer that loses and doubles nothing by itself: idempotent, acknowledged by all replicas.

    Args:
        bootstrap: addresses of brokers.
        settings: librdkafka's settings with ``_`` for ``.``, such as ``linger_ms=5``.

    Delivery failures come to the callback of each ``produce``; a caller that needs certainty waits for it.
    """
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            **_QUIET,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )


def consumer(bootstrap: str, **settings: object) -> Consumer:
    """A consumer without a group: positions are assigned, nothing is committed, a lost position is an error.

    Args:
        bootstrap: addresses of brokers.
        settings: librdkafka's settings with ``_`` for ``.``.
    """
    return Consumer(consumer_settings(bootstrap, settings))


def consumer_settings(bootstrap: str, settings: Mapping[str, object]) -> dict[str, object]:
    """What makes a consumer one without a group; see `consumer`."""
    return {
        "bootstrap.servers": bootstrap,
        "group.id": _NO_GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": False,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "fetch.queue.backoff.ms": 2,  # the default of 1000 makes reading five times slower
        "fetch.wait.max.ms": 50,
        **_QUIET,
        **{name.replace("_", "."): value for name, value in settings.items()},
    }


class TopicReader:
    """Reads whole topics in plain code: listings, reports, tests.

    Args:
        bootstrap: addresses of brokers.
        topic: the topic; it must exist.
        start: the offset to begin at, by partition; absent partitions begin at their first record.
        patience_s: how long a silent broker is waited for.
    """

    def __init__(
        self, bootstrap: str, topic: str, start: Mapping[int, int] | None = None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._bootstrap, self._topic, self._patience_s = bootstrap, topic, patience_s
        self.identity = topic_identity(bootstrap, topic, patience_s=patience_s)
        self._consumer = consumer(bootstrap, enable_partition_eof=True)
        starts = dict(start or {})
        self._consumer.assign(
            [TopicPartition(topic, p, starts.get(p, OFFSET_BEGINNING)) for p in range(self.identity.partitions)]
        )

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def read(self, most: int = 10_000, timeout_s: float = 1.0) -> list[Message]:
        """The next records, fewer where the time runs out first.

        Raises:
            StoreError: the broker reports that the position is lost or reading is refused.
        """
        return self._consume(most, timeout_s)[0]

    def _consume(self, most: int, timeout_s: float) -> tuple[list[Message], dict[int, int]]:
        """The next records, and the ends that were come to: an offset by partition."""
        records: list[Message] = []
        ends: dict[int, int] = {}
        for message in self._consumer.consume(most, timeout_s):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[int(message.partition() or 0)] = int(message.offset() or 0)
            elif error.code() not in _TRANSIENT:
                raise StoreError(
                    f"Kafka at {self._bootstrap}: topic {self._topic!r}, partition {message.partition()} "
                    f"cannot be read ({error.str()}); check that the topic is the one that was read before"
                )
        return records, ends

    def read_to_end(self) -> Iterator[Message]:
        """Every record up to the end of the topic as it is now.

        Raises:
            ServiceUnavailable: the broker falls silent before that.
        """
        known = _offsets(self._bootstrap, self._topic, self._patience_s)
        ends = {partition: end for partition, (_, end) in known.items()}
        left = {partition for partition, (first, end) in known.items() if end > first}
        silent_since = time.monotonic()
        while left:
            records, reached = self._consume(10_000, 0.05)
            for message in records:
                silent_since = time.monotonic()
                partition, offset = message.partition(), message.offset()
                assert partition is not None  # a record without an error has both
                assert offset is not None
                if offset < ends[partition]:
                    yield message
            # Positions and not records decide: the last offsets of a partition may be aborted or compacted away. A reader
            # that got no record has no position; where the rest was removed meanwhile, it is told of the end alone.
            left -= {partition for partition, end in reached.items() if end >= ends[partition]}
            left = {tp.partition for tp in self._positions(left) if tp.offset < ends[tp.partition]}
            if left and time.monotonic() - silent_since > self._patience_s:
                raise ServiceUnavailable("Kafka", self._bootstrap, f"topic {self._topic!r} fell silent before its end")

    def _positions(self, partitions: set[int]) -> list[TopicPartition]:
        return list(self._consumer.position([TopicPartition(self._topic, partition) for partition in partitions]))


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": int(_REQUEST_S * 1000), **_QUIET})


def _patiently(bootstrap: str, action: Callable[[], _Result], patience_s: float) -> _Result:
    """The action's result; while the broker is away it is tried again, until the patience is used up."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return action()
        except KafkaException as error:
            if _code(error) not in _TRANSIENT:
                raise
            if time.monotonic() > deadline:
                raise ServiceUnavailable("Kafka", bootstrap, _reason(error)) from error
        except TimeoutError as error:
            if time.monotonic() > deadline:
                raise ServiceUnavailable("Kafka", bootstrap, "no answer in time") from error
        time.sleep(_PAUSE_S)


def _request_s(patience_s: float) -> float:
    """The time-out of one request: never much longer than the patience with all of them."""
    return max(0.5, min(_REQUEST_S, patience_s))


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())
