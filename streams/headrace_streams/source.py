"""The partitioned Kafka source: polls batches, knows exactly which offsets they cover, and notices when the topic is another.

One consumer, positions assigned and never committed to Kafka. A poll's records of one topic become one batch; beside the
rows it carries, for each partition, the range [from, next) of offsets that it covers. Ranges follow one another without a gap,
so offsets without a record (aborted, compacted) lie inside them; those at the end of a partition come with its end-of-partition
event. What may not live here: Bytewax, decoding, Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import Gap, IdentityError, ServiceUnavailable, StoreError
from headrace_schemas.batches import RawBatch
from headrace_schemas.stores.kafka import TopicIdentity
from headrace_schemas.stores.lanes import Watermark
from headrace_schemas.stores.records import Fetched, Records, Trouble, is_end, open_records
from headrace_streams.clock import Clock
from headrace_streams.errors import RestartNeeded
from headrace_streams.fetching import FetchTime
from headrace_streams.identity import Reached, Watch, mark_after
from headrace_streams.items import Polled, Span
from headrace_streams.journal import Journal

_AWAY = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.REPLICA_NOT_AVAILABLE,
    }
)  # fmt: skip
_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID, KafkaError._UNKNOWN_TOPIC,
                   KafkaError._UNKNOWN_PARTITION})  # fmt: skip
_REQUEST_S = 5.0
SETTINGS: dict[str, object] = {
    "enable_partition_eof": True,
    "fetch_queue_backoff_ms": 2,
    "queued_min_messages": 100_000,
    "queued_max_messages_kbytes": 32_768,  # bounded memory at any lag
    "fetch_message_max_bytes": 4_194_304,
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a source reads of one topic.

    Args:
        topic: the topic.
        identity: what it was when the starts were decided.
        starts: by partition, the first offset to read and what stands before it.
        firsts: by partition, where a lane begins that holds nothing of it.
        history: by partition that is read from the log first, where the topic takes over.
    """

    topic: str
    identity: TopicIdentity
    starts: Mapping[int, Watermark]
    firsts: Mapping[int, int]
    history: Mapping[int, Watermark] = field(default_factory=dict)


class KafkaSource:
    """Reads assigned partitions from their starts on.

    Args:
        bootstrap: addresses of brokers.
        assignments: what to read.
        journal: where changes of state are reported.
        most: records of one poll.
        watch_s: time between checks of identity.
        outage_s: how long the broker may be away.
        pause_ms: how long a record may lie unseen: between two looks at a silent source, and at the broker
            (`headrace_streams.fetching`).
        at_once: the broker answers a waiting fetch as soon as there is a record (`kafka.answers_at_once`).
        also: something more that is checked in the background, with the identities.
    """

    def __init__(
        self,
        bootstrap: str,
        assignments: Sequence[Assignment],
        journal: Journal,
        *,
        most: int = 10_000,
        watch_s: float = 3.0,
        outage_s: float = 60.0,
        pause_ms: int = 2,
        at_once: bool = False,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self.pause_ms = pause_ms
        self._bootstrap, self._journal, self._most = bootstrap, journal, most
        self._reached: dict[tuple[str, int], Watermark] = {}
        for assignment in assignments:
            for partition, start in assignment.starts.items():
                self._reached[assignment.topic, partition] = assignment.history.get(partition, start)
        self._unfinished = set(self._reached)  # partitions whose end has not been seen since their last record
        self._away = self._closed = False
        self._heard: dict[tuple[str, int], float] = {}
        self._began = time.monotonic()
        self.clock = Clock()
        self._fetch_time = FetchTime(pause_ms, at_once=at_once)
        self._records = self._open()
        known = {assignment.topic: assignment.identity for assignment in assignments}
        self._watch = Watch(bootstrap, known, self.reached, every_s=watch_s, outage_s=outage_s, also=also)

    def _open(self) -> Records:
        """A reader that goes on from what is reached."""
        opened = open_records(self._bootstrap, **self._fetch_time.settings(), **SETTINGS)
        opened.assign([(t, p, mark.next) for (t, p), mark in self._reached.items()])
        self._unfinished = set(self._reached)
        return opened

    @property
    def at_end(self) -> bool:
        """Whether everything that was there has been read."""
        return not self._unfinished

    def reached(self) -> Iterable[Reached]:
        """How far each partition is read."""
        return [Reached(topic, partition, mark) for (topic, partition), mark in list(self._reached.items())]

    def lag(self) -> Iterator[tuple[str, int, int]]:
        """Topic, partition, and how many records are not read yet, as far as the broker has told; from any thread."""
        for (topic, partition), mark in list(self._reached.items()):
            try:
                high = self._records.watermarks(topic, partition)[1]
            except (KafkaException, RuntimeError):
                continue  # it is being closed
            yield topic, partition, max(0, high - mark.next)

    def heard_at(self, topic: str, partition: int) -> float:
        """When the last record of a partition came, on the monotonic clock; the start if none has."""
        return self._heard.get((topic, partition), self._began)

    def poll(self) -> list[Polled]:
        """What has arrived, without waiting; one batch per topic.

        Raises:
            IdentityError: a topic is not the one that was read before, or the position is lost.
            RestartNeeded: a topic has more partitions, or records expired before they were read.
            ServiceUnavailable: the broker has been away for too long.
        """
        self._watch.check()
        received_us = time.time_ns() // 1000
        fetched, troubles = self._records.fetch(self._most, received_us)
        if not fetched and not troubles:
            self._change_pace()
            return []
        self._fetch_time.heard()
        step_s = self.clock.look()
        if step_s is not None:
            self._journal.note("clock-step", seconds=round(step_s, 3))
        before = dict(self._reached)
        polled = [self._batch(one) for one in fetched]
        for trouble in troubles:
            polled += self._event(trouble, before, received_us)
        return polled

    def _change_pace(self) -> None:
        """Nothing has come: perhaps the broker needs more time for a fetch, or no longer."""
        if self._away or not self._reached:
            return
        wait_ms = self._fetch_time.silent(time.monotonic(), at_end=self.at_end)
        if wait_ms is not None:
            self._records.close()
            self._records = self._open()
            self._journal.note("fetch-time", milliseconds=wait_ms, at_end=self.at_end)

    def _batch(self, fetched: Fetched) -> Polled:
        raw, topic = fetched.raw, fetched.raw.topic
        spans = []
        for partition, first, last in _ends(raw):
            known = self._reached[topic, partition]
            begin, end = int(raw.offset[first]), int(raw.offset[last])
            if begin < known.next:
                raise Gap(f"topic {topic!r}, partition {partition}, which went back", known.next, begin)
            mark = mark_after(end, int(fetched.epoch[last]), raw.keys[last], raw.values[last])
            if mark.epoch > known.epoch >= 0:
                self._watch.hurry()  # another leader: is what we read before still what it has?
            spans.append(Span(partition, known.next, mark))
            self._reached[topic, partition] = mark
            self._unfinished.add((topic, partition))
            self._heard[topic, partition] = time.monotonic()
        if self._away:
            self._away = False
            self._journal.note("kafka-back")
            self._watch.hurry()
        return Polled(raw, tuple(spans))

    def _event(self, trouble: Trouble, before: Mapping[tuple[str, int], Watermark], received_us: int) -> list[Polled]:
        """An end of partition, or a trouble; `before` is what was reached before this poll."""
        topic, partition = trouble.topic, trouble.partition
        if is_end(trouble) and topic is not None and partition is not None:
            end = trouble.offset or 0
            if before[topic, partition].next <= end < self._reached[topic, partition].next:
                return []  # more has come behind this event, in the same poll
            return self._end(topic, partition, end, received_us)
        if trouble.code in _AWAY:
            if not self._away:
                self._away = True
                self._journal.note("kafka-trouble", reason=trouble.text, address=self._bootstrap)
            return []
        if trouble.code in _LOST and self._has_expired(topic or "", partition or 0):
            raise RestartNeeded(f"topic {topic!r}, partition {partition}: records expired before they were read",
                                "see whether the log has them")  # fmt: skip
        if trouble.code in _LOST or trouble.code in _GONE:
            where = f"partition {partition} from the position that was reached"
            raise IdentityError(
                topic or "?", where, trouble.text,
                "see whether the topic was deleted, made anew or cut off; if that was on purpose, begin anew with "
                "another [project] namespace in headrace.toml",
            )  # fmt: skip
        raise StoreError(
            f"Kafka at {self._bootstrap}: topic {topic!r}, partition {partition} cannot be read ({trouble.text}); "
            f"check the permissions of the client and the broker's log"
        )

    def _has_expired(self, topic: str, partition: int) -> bool:
        """Whether the position is lost because the topic keeps only younger records. The next start sees if the log has them."""
        next_ = self._reached[topic, partition].next
        try:
            first, end = self._records.watermarks(topic, partition, _REQUEST_S)
        except KafkaException as error:
            raise ServiceUnavailable("Kafka", self._bootstrap, str(error)) from error
        return next_ < first <= end

    def _end(self, topic: str, partition: int, end: int, received_us: int) -> list[Polled]:
        known = self._reached[topic, partition]
        if end < known.next:
            required = f"partition {partition} to reach offset {known.next}, which was read"
            raise IdentityError(topic, required, f"an end at {end}", "bring back the records, or begin anew with another "
                                "[project] namespace in headrace.toml")  # fmt: skip
        self._unfinished.discard((topic, partition))
        if end == known.next:
            return []
        # Offsets without a record at the end: a transaction's mark, or aborted records. Nothing there has a digest.
        mark = Watermark(end, known.epoch)
        self._reached[topic, partition] = mark
        empty = RawBatch.from_messages(topic, [], received_us)
        return [Polled(empty, (Span(partition, known.next, mark),))]

    def close(self) -> None:
        """Leave the broker."""
        if not self._closed:
            self._closed = True
            self._watch.close()
            self._records.close()


def _ends(raw: RawBatch) -> list[tuple[int, int, int]]:
    """Of each partition in a batch: its number, its first row and its last one."""
    if not len(raw):
        return []
    begins = [0, *(np.flatnonzero(np.diff(raw.partition)) + 1).tolist(), len(raw)]
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for (begin, end), partition in zip(pairwise(begins), raw.partition[begins[:-1]].tolist(), strict=True):
        first.setdefault(partition, begin)
        last[partition] = end - 1
    return [(partition, first[partition], row) for partition, row in last.items()]
