"""Is it still the same topic? Checked at the start, and every few seconds while running.

A topic that was deleted and made again, a broker that lost its memory and a partition that was cut off and grew again all look
healthy: offsets exist and records come. What tells them apart is the broker's topic id, the number of partitions, and the
record before the position: its digest and the epoch of the leader that wrote it. The record is read again for that, because
an answer to ListOffsets alone may be wrong on the embedded broker. What may not live here: what to do about it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.errors import HeadraceError, IdentityError, ServiceUnavailable
from headrace_schemas.stores.kafka import TopicIdentity, consumer, end_offsets
from headrace_schemas.stores.lanes import Watermark
from headrace_streams.errors import RestartNeeded
from headrace_streams.starts import AGAIN

_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})
_SILENCE_S = 10.0  # the embedded broker says nothing at all to a fetch beyond its end


def digest(offset: int, key: bytes | None, value: bytes | None) -> str:
    """A digest of a record, the same whenever it is read.

    It stands in a lane's watermark for the record before the next offset.
    """
    hashed = hashlib.blake2b(str(offset).encode(), digest_size=8)
    for part in (key, value):
        hashed.update(b"-" if part is None else b"%d:%s" % (len(part), part))
    return hashed.hexdigest()


def mark_after(offset: int, epoch: int, key: bytes | None, value: bytes | None) -> Watermark:
    """The watermark of a reader whose last record this is; the epoch is -1 where the broker told none."""
    return Watermark(offset + 1, epoch, digest(offset, key, value))


def _bytes(part: str | bytes | None) -> bytes | None:
    return part.encode() if isinstance(part, str) else part


class Auditor:
    """Compares topics with what is known of them.

    Args:
        bootstrap: addresses of brokers.
        request_s: how long one request may take.
    """

    def __init__(self, bootstrap: str, request_s: float = 5.0) -> None:
        self._bootstrap, self._request_s = bootstrap, request_s
        self._admin = AdminClient(
            {"bootstrap.servers": bootstrap, "socket.timeout.ms": int(request_s * 1000), "log_level": 0}
        )
        self._reader: Consumer | None = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def check_topics(self, known: Mapping[str, TopicIdentity]) -> None:
        """Compare ids and numbers of partitions.

        Raises:
            IdentityError: a topic is gone, is another one, or has fewer partitions.
            RestartNeeded: a topic has more partitions.
            ServiceUnavailable: the broker does not answer.
        """
        futures = self._admin.describe_topics(TopicCollection(list(known)), request_timeout=self._request_s)
        for topic, identity in known.items():
            try:
                described = futures[topic].result(timeout=2 * self._request_s)
            except (KafkaException, TimeoutError) as error:
                raise self._trouble(topic, identity, error) from error
            topic_id, partitions = str(described.topic_id), len(described.partitions)
            if topic_id != identity.topic_id:
                raise IdentityError(topic, f"topic id {identity.topic_id}", f"{topic_id}: it was made anew", AGAIN)
            if partitions < identity.partitions:
                raise IdentityError(topic, f"{identity.partitions} partitions", f"{partitions}", AGAIN)
            if partitions > identity.partitions:
                raise RestartNeeded(
                    f"topic {topic!r} grew from {identity.partitions} to {partitions} partitions", "read them"
                )

    def _trouble(self, topic: str, identity: TopicIdentity, error: Exception) -> HeadraceError:
        code = error.args[0].code() if isinstance(error, KafkaException) else None
        if code in _GONE:
            return IdentityError(topic, f"topic id {identity.topic_id}", "no topic of that name", AGAIN)
        return ServiceUnavailable("Kafka", self._bootstrap, str(error) or "no answer in time")

    def check_record(self, topic: str, partition: int, mark: Watermark) -> None:
        """Read the record before a position again and compare it.

        Where it expired or was compacted away since, there is nothing to compare; the offsets behind it must still exist.

        Raises:
            IdentityError: another record stands there, or the partition ends before it.
            ServiceUnavailable: the broker does not answer.
        """
        if mark.next == 0:
            return
        found = self._read_at(topic, partition, mark.next - 1)
        where = f"offset {mark.next - 1} of partition {partition}"
        if found is None:
            raise IdentityError(topic, f"the record at {where} that was read before", "an end before it", AGAIN)
        error = found.error()
        if error is not None or found.offset() != mark.next - 1:
            return  # compacted away, or a transaction's mark: the partition goes on behind it
        epoch = found.leader_epoch()
        again = mark_after(mark.next - 1, -1 if epoch is None else epoch, _bytes(found.key()), _bytes(found.value()))
        if mark.digest and again.digest != mark.digest:
            raise IdentityError(topic, f"the record at {where} that was read before", "another record", AGAIN)
        if mark.digest and min(mark.epoch, again.epoch) >= 0 and again.epoch != mark.epoch:
            got = f"the same one, written by the leader of epoch {again.epoch}"
            raise IdentityError(topic, f"the record at {where}, of leader epoch {mark.epoch}", got, AGAIN)

    def _read_at(self, topic: str, partition: int, offset: int) -> Message | None:
        """The record at an offset or the next one behind it, an end-of-partition event behind it, or None: it ends before.

        Raises:
            IdentityError: there is no such partition.
            ServiceUnavailable: the broker does not say.
        """
        if self._reader is None:
            self._reader = consumer(self._bootstrap, enable_partition_eof=True, queued_max_messages_kbytes=64)
        self._reader.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + _SILENCE_S
        try:
            while time.monotonic() < deadline:
                message = self._reader.poll(0.1)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    return message
                if error.code() == KafkaError._PARTITION_EOF:
                    return message if (message.offset() or 0) > offset else None
                if error.code() in _LOST:
                    return message if self._has_expired(topic, partition, offset) else None
                if error.code() in _GONE:
                    raise IdentityError(topic, f"partition {partition}", "no such partition", AGAIN)
        finally:
            self._reader.unassign()
        # Silence is what the embedded broker answers beyond its end, and any broker that is starved.
        end = end_offsets(self._bootstrap, topic, patience_s=_SILENCE_S).get(partition, 0)
        if end > offset:
            reason = f"topic {topic!r}, partition {partition}: no fetch from offset {offset} was answered"
            raise ServiceUnavailable("Kafka", self._bootstrap, reason)
        return None

    def _has_expired(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record is gone because the topic keeps only younger ones, and the topic still goes on behind it."""
        assert self._reader is not None
        try:
            first, end = self._reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._request_s)
        except KafkaException as error:
            raise ServiceUnavailable("Kafka", self._bootstrap, str(error)) from error
        return offset < first and offset < end


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a reader has come in one partition."""

    topic: str
    partition: int
    mark: Watermark


class Watch:
    """Checks identity in the background every few seconds; what it finds is raised by `check` in the reader's thread.

    Args:
        bootstrap: addresses of brokers.
        known: the identities of the topics.
        reached: tells how far the reader has come now; called from the background.
        every_s: time between checks.
        outage_s: how long the broker may be away before that is an error.
        also: something more to check.
    """

    def __init__(
        self,
        bootstrap: str,
        known: Mapping[str, TopicIdentity],
        reached: Callable[[], Iterable[Reached]],
        *,
        every_s: float = 3.0,
        outage_s: float = 60.0,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._also = also
        self._auditor = Auditor(bootstrap)
        self._known, self._reached = known, reached
        self._every_s, self._outage_s = every_s, outage_s
        self._stop = threading.Event()
        self._now = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="identity", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the last checks found, if anything."""
        if self._error is not None:
            raise self._error

    def hurry(self) -> None:
        """Check now: the connection was lost, or another leader took over."""
        self._now.set()

    def close(self) -> None:
        self._stop.set()
        self._now.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        away_since: float | None = None
        while not self._stop.is_set():
            self._now.wait(self._every_s)
            self._now.clear()
            try:
                if not self._stop.is_set():
                    self._check_all()
                away_since = None
            except ServiceUnavailable as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self._outage_s:
                    self._error = error
                    break
            except Exception as error:  # noqa: BLE001  (whatever it is, the reader's thread has to know)
                self._error = error
                break
        self._auditor.close()

    def _check_all(self) -> None:
        self._auditor.check_topics(self._known)
        self._also()
        for reached in self._reached():
            if self._stop.is_set():
                break
            if reached.mark.digest:
                self._auditor.check_record(reached.topic, reached.partition, reached.mark)
