"""Writes validated events and served predictions to the log, decoupled from the online store, with positions of its own.

    source ─▶ decode ─▶ one buffer per table ─▶ a commit when 2 s are over, 128 MB are full, or the source is at its end

A table's position is the one that its own commits carry, so rows and position change together or not at all. What may not live
here: tables (`headrace_schemas.stores.log`), Bytewax.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from headrace.events import Event
from headrace_schemas.batches import Decoded, RawBatch
from headrace_schemas.codecs import EventCodec
from headrace_schemas.framing import Schemas
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import PredictionCodec, prediction_topic
from headrace_schemas.settings import Settings
from headrace_schemas.stores.forgotten import read_forgotten
from headrace_schemas.stores.kafka import (
    TopicIdentity,
    answers_at_once,
    end_offsets,
    ensure_topics,
    first_offsets,
    refuse_compacted,
    topic_identity,
)
from headrace_schemas.stores.lanes import LaneRecord, Watermark
from headrace_schemas.stores.log import Compacted, LogTable, event_log, prediction_log
from headrace_schemas.stores.schema_registry import registry_of
from headrace_schemas.stores.upkeep import Upkeep
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.errors import STOPPED
from headrace_streams.flow import Course, Parts, run_flow
from headrace_streams.items import Opening, Polled, Span, Stop, Tick, TopicStart
from headrace_streams.journal import Journal
from headrace_streams.log_forgetting import LogForgetting
from headrace_streams.metrics import SourceMetrics, serve_metrics
from headrace_streams.poison import SURE, CarefulSource, PlaceFile, Poison, read_poison, sift, stands_still
from headrace_streams.preparing import check_marks
from headrace_streams.pulse import Pulse
from headrace_streams.schemas_known import schemas_known
from headrace_streams.source import Assignment, KafkaSource
from headrace_streams.starts import TopicFacts, start_positions

_SWEEP_S = 15.0  # between looks at what was found to be poison elsewhere
_RETAIN_S, _DAY_US = 3600.0, 86_400_000_000
_PAUSE_MS = 50  # nobody reads the log within milliseconds, and looking at the broker costs both sides


@dataclass(frozen=True, slots=True)
class Pace:
    """When the log commits.

    Args:
        longest_s: rows wait at most that long.
        most_bytes: a buffer holds at most that much.
        shortest_s: between two commits of an idle source; every commit makes a file, and commits take longer with more files.
    """

    longest_s: float = 2.0
    most_bytes: int = 128 << 20
    shortest_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch's rows for one table."""

    topic: str
    frame: pl.DataFrame
    spans: tuple[Span, ...]


@dataclass(slots=True)
class _Buffer:
    """What waits to be committed to one table."""

    table: LogTable
    upkeep: Upkeep
    frames: list[pl.DataFrame] = field(default_factory=list)
    progress: dict[int, tuple[int, int]] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    size_bytes: int = 0
    since_s: float = 0.0

    def add(self, rows: Rows, now_s: float) -> None:
        if not self.progress:
            self.since_s = now_s
        for span in rows.spans:
            start, _ = self.progress.get(span.partition, (span.start, 0))
            self.progress[span.partition] = (start, span.upto.next)
            self.digests[span.partition] = span.upto.digest
        if rows.frame.height:
            self.frames.append(rows.frame)
            self.size_bytes += int(rows.frame.estimated_size())

    def commit(self) -> int:
        """Write what waits; the number of rows that were new."""
        frame = pl.concat(self.frames) if self.frames else pl.DataFrame(schema=self.table.schema.frame_schema)
        added = self.table.append(frame, self.progress, self.digests)
        self.frames, self.progress, self.digests, self.size_bytes = [], {}, {}, 0
        return added


class LogSink:
    """Collects rows by table and commits them.

    Args:
        tables: the table of each topic.
        journal: where the first rows and the end are reported.
        pace: when to commit.
        clock: monotonic seconds.
        sweep: called now and then, between commits.
    """

    def __init__(
        self,
        tables: Mapping[str, LogTable],
        journal: Journal,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        sweep: Callable[[], None] = lambda: None,
    ) -> None:
        self._sweep, self._swept_s = sweep, clock()
        self._buffers = {topic: _Buffer(table, Upkeep(table)) for topic, table in tables.items()}
        self._journal, self._pace, self._clock = journal, pace or Pace(), clock
        self._committed_s = float("-inf")
        self.rows = 0

    def write(self, items: Sequence[Opening | Rows | Tick | Stop]) -> None:
        """Take items in their order.

        Raises:
            Fenced: another writer advanced a table.
            Gap: a batch does not follow a table's position.
            StoreError: the disk refused.
        """
        for item in items:
            if isinstance(item, Rows):
                self._buffers[item.topic].add(item, self._clock())
            elif isinstance(item, Stop):
                self._commit(self._buffers.values())
                self._journal.note("log-written", rows=self.rows)
            idle = isinstance(item, Tick) and self._clock() - self._committed_s >= self._pace.shortest_s
            self._commit(buffer for buffer in self._buffers.values() if idle or self._due(buffer))
        if self._clock() - self._swept_s > _SWEEP_S:
            self._sweep()
            self._swept_s = self._clock()

    def _due(self, buffer: _Buffer) -> bool:
        if buffer.size_bytes >= self._pace.most_bytes:
            return True
        return bool(buffer.progress) and self._clock() - buffer.since_s >= self._pace.longest_s

    def _commit(self, buffers: Iterable[_Buffer]) -> None:
        for buffer in buffers:
            if buffer.progress:
                self.rows += buffer.commit()
                self._committed_s = self._clock()
                self._keep_up(buffer)

    def _keep_up(self, buffer: _Buffer) -> None:
        """Merge files in the background where there are many; a failure makes the table slower, not wrong."""
        told = buffer.upkeep.step()
        if isinstance(told, Compacted):
            name, before, after = buffer.table.schema.name, told.files_before, told.files_after
            self._journal.note("log-compacted", table=name, files_before=before, files_after=after)
        elif told is not None:
            self._journal.note("log-not-compacted", reason=str(told))

    def close(self) -> None:
        """Wait for a compaction that is running; what was not committed comes again."""
        for buffer in self._buffers.values():
            buffer.upkeep.close()


class LogDecoder:
    """Decodes batches for the log.

    Args:
        loaded: the project.
        topic_ids: the broker's id of each topic.
        box: where rejects go that the feature pipeline does not see.
        poison: records that no reader may handle.
        schemas: the project's schema registry, if it has one.
        keep: the rows of a topic that may be written.
    """

    def __init__(
        self,
        loaded: LoadedProject,
        topic_ids: Mapping[str, str],
        box: DeadLetterBox,
        poison: Poison,
        schemas: Schemas | None = None,
        keep: Callable[[str, pl.DataFrame], pl.DataFrame] = lambda _, frame: frame,
    ) -> None:
        self._keep = keep
        project = loaded.project
        self._topic_ids, self._box = topic_ids, box
        self.learn(poison)
        # The contract of every view counts here too, so that the log holds exactly the events that states can hold.
        self._decoders: dict[str, Callable[[RawBatch], Decoded]] = {
            event.topic: EventCodec(event, project.views, schemas).decode for event in project.events
        }
        self._decoders[prediction_topic(loaded.settings.namespace)] = PredictionCodec().decode_batch
        self._elsewhere = {view.event.topic for view in project.views}

    def learn(self, poison: Poison) -> None:
        """Records that no reader may handle from now on."""
        self._poison = {topic: poison.get(topic_id, {}) for topic, topic_id in self._topic_ids.items()}

    def decode(self, polled: Polled) -> list[tuple[int, Rows]]:
        """The rows for the log, all of which go to the one shard."""
        topic = polled.raw.topic
        raw, poisoned = sift(polled.raw, self._poison[topic])
        decoded = self._decoders[topic](raw)
        if topic not in self._elsewhere:
            self._box.write(polled.raw, self._topic_ids[topic], poisoned)
            self._box.write(raw, self._topic_ids[topic], decoded.rejects)
        return [(0, Rows(topic, self._keep(topic, decoded.frame), polled.spans))]


class _Sweep:
    """What is done between commits: rows leave the log that are too old, forgotten, or poison."""

    def __init__(
        self,
        settings: Settings,
        tables: Mapping[str, LogTable],
        topic_ids: Mapping[str, str],
        decoder: LogDecoder,
        forgetting: LogForgetting,
        journal: Journal,
    ) -> None:
        self._settings, self._tables, self._topic_ids = settings, tables, topic_ids
        self._decoder, self._forgetting, self._journal = decoder, forgetting, journal
        self._retained_s = float("-inf")

    def __call__(self) -> None:
        self._retain()
        self._forgetting.learn(read_forgotten(self._settings))
        for topic, rows in self._forgetting.sweep().items():
            self._journal.note("log-forgotten", table=self._tables[topic].schema.name, rows=rows)
        poison = read_poison(self._settings)
        self._decoder.learn(poison)
        for topic, table in self._tables.items():
            if dropped := table.drop(poison.get(self._topic_ids[topic], ())):
                self._journal.note("poison-dropped", table=table.schema.name, rows=dropped)

    def _retain(self) -> None:
        days, now_s = self._settings.log_keep_days, time.monotonic()
        if not days or now_s - self._retained_s <= _RETAIN_S:
            return
        self._retained_s = now_s
        for table in self._tables.values():
            if expired := table.retain(time.time_ns() // 1000 - days * _DAY_US):
                self._journal.note("log-expired", table=table.schema.name, rows=expired)


def run_log_writer(
    loaded: LoadedProject,
    *,
    pace: Pace | None = None,
    stop: threading.Event | None = None,
    journal: Journal | None = None,
    pulse: Pulse | None = None,
    careful: str = "",
) -> int:
    """Write the log until stopped.

    Args:
        loaded: the project.
        pace: when to commit.
        stop: set it to stop cleanly: everything read is committed.
        journal: where changes of state are reported; by default standard error.
        pulse: shows a supervisor that the writer goes on.
        careful: whether to take one record at a time for a while, and say which: not, `MAYBE` (if it is stuck), or `SURE`.

    Returns:
        0 when it was stopped.

    Raises:
        ConfigError: a topic is compacted.
        Fenced: another writer advanced a table.
        IdentityError: a topic is not the one that was read before.
        ServiceUnavailable: Kafka is away.
        StoreError: the disk refused.
    """
    journal, pulse = journal or Journal("log"), pulse or Pulse()
    settings, events = loaded.settings, loaded.project.events
    predictions = prediction_topic(settings.namespace)
    identities = {event.topic: topic_identity(settings.kafka, event.topic) for event in events}
    for topic in identities:
        refuse_compacted(settings.kafka, topic)
    identities |= ensure_topics(settings.kafka, {predictions: 1})
    tables = {event.topic: event_log(settings, event, identities[event.topic].topic_id) for event in events}
    tables[predictions] = prediction_log(settings, identities[predictions].topic_id)
    assignments = [
        _assignment(settings.kafka, topic, identities[topic], tables[topic], _name(events, topic)) for topic in tables
    ]
    starts = {a.topic: {p: mark.next for p, mark in a.starts.items()} for a in assignments}
    journal.note("starting", starts=starts)
    topics = {a.topic: TopicStart(a.identity.topic_id, a.identity.partitions, a.starts, a.firsts) for a in assignments}
    box = DeadLetterBox(settings.kafka, settings.namespace, journal, waiting=pulse.beat)
    ids = {topic: identity.topic_id for topic, identity in identities.items()}
    registry = registry_of(settings)
    forgetting = LogForgetting(loaded.project, tables, ids, predictions)
    decoder = LogDecoder(loaded, ids, box, {}, registry, forgetting.keep)
    sweep = _Sweep(settings, tables, ids, decoder, forgetting, journal)
    sweep()
    at_once = answers_at_once(settings.kafka)
    source = KafkaSource(settings.kafka, assignments, journal, pause_ms=_PAUSE_MS, at_once=at_once)
    known = schemas_known(source, events, registry, journal)
    parts = Parts(0, 1, Opening(0, 1, topics), known, decoder.decode, LogSink(tables, journal, pace, sweep=sweep))
    stuck = stands_still(settings, "log", 0, starts)
    if careful == SURE or (careful and stuck):
        handling = PlaceFile(settings, "log", 0).open()
        handling.begins(ids)
        parts = replace(parts, poller=CarefulSource(known, handling), decode=handling.decoding(parts.decode))
        journal.note("careful", worker=0)
    try:
        with serve_metrics(settings, settings.workers, SourceMetrics(source, box, "headrace_log")):
            run_flow("headrace_log", parts, Course(stop or threading.Event(), alone=True, pulse=pulse))
    finally:
        source.close()
    journal.note("stopped")
    return STOPPED


def _name(events: Sequence[Event], topic: str) -> str:
    name = next((event.name for event in events if event.topic == topic), None)
    return f"the log of event {name!r}" if name else "the log of predictions"


def _assignment(bootstrap: str, topic: str, identity: TopicIdentity, table: LogTable, name: str) -> Assignment:
    """Where the log continues: a table's position is checked like that of a lane."""
    next_, digests = table.watermark(), table.digests()
    marks = {(identity.topic_id, p): Watermark(offset, digest=digests.get(p, "")) for p, offset in next_.items()}
    facts = TopicFacts(topic, identity.topic_id, first_offsets(bootstrap, topic), end_offsets(bootstrap, topic), {})
    lanes = {name: [LaneRecord(watermarks=marks)]}
    starts = start_positions(facts, lanes)
    check_marks(bootstrap, facts, lanes)
    return Assignment(topic, identity, starts, facts.first)
