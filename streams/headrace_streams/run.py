"""Runs the feature pipeline: one worker of a group, in this process.

What may not live here: restarting (`headrace_streams.supervisor`), command lines.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from headrace import kernel
from headrace_schemas.forgotten import Forgotten
from headrace_schemas.keys import ViewKeys
from headrace_schemas.loading import LoadedProject
from headrace_schemas.settings import Settings
from headrace_schemas.stores.forgotten import read_forgotten
from headrace_schemas.stores.kafka import answers_at_once
from headrace_schemas.stores.log import event_log
from headrace_schemas.stores.schema_registry import registry_of
from headrace_schemas.stores.topology import parse_topology
from headrace_streams import cache
from headrace_streams.claims import Claimant
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.decoding import Decoder
from headrace_streams.errors import CAREFUL_ENOUGH, STOPPED
from headrace_streams.flow import Course, Parts, run_flow
from headrace_streams.folding import ViewFolder
from headrace_streams.forgetting import forget_entities, longer_list
from headrace_streams.history import History, HistoryFirst
from headrace_streams.items import Opening, TopicStart
from headrace_streams.journal import Journal
from headrace_streams.metrics import SourceMetrics, WorkerMetrics, serve_metrics
from headrace_streams.patience import Patience
from headrace_streams.poison import (
    MAYBE,
    SURE,
    CarefulSource,
    Handling,
    NamedSink,
    PlaceFile,
    read_poison,
    stands_still,
)
from headrace_streams.preparing import Prepared, prepare_stream
from headrace_streams.pulse import Pulse
from headrace_streams.schemas_known import schemas_known
from headrace_streams.source import KafkaSource
from headrace_streams.standing_in import StandIn
from headrace_streams.writer import ShardWriter

_LEAST_DIRTY_BYTES = 4 << 20  # with less, a small cache would send a flush for every few states


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a worker runs.

    Args:
        most_records: of one poll.
        watch_s: time between checks of the topics' identity.
        patience: how long to wait for what.
    """

    most_records: int = 20_000
    watch_s: float = 3.0
    patience: Patience = field(default_factory=Patience)


def run_stream(
    loaded: LoadedProject,
    *,
    claimant: Claimant | None = None,
    worker: int = 0,
    addresses: Sequence[str] = (),
    options: StreamOptions | None = None,
    stop: threading.Event | None = None,
    journal: Journal | None = None,
    pulse: Pulse | None = None,
    careful: str = "",
    stand_in: bool = False,
) -> int:
    """Run one worker of the feature pipeline until it is stopped.

    Args:
        loaded: the project.
        claimant: as whom to claim the lanes; by default as somebody new.
        worker: this process's number in its group.
        addresses: of all processes of the group; empty for a group of one.
        options: how to run.
        stop: set it to stop cleanly: everything read is committed, the lanes are given back.
        journal: where changes of state are reported; by default standard error.
        pulse: shows a supervisor that the worker goes on.
        careful: whether to take one record at a time for a while, and say which: not, `MAYBE` (if it is stuck), or `SURE`.
        stand_in: this process is alone in place of several, and ends as soon as it need not be careful any more.

    Returns:
        0 when it was stopped; `CAREFUL_ENOUGH` when it ended in favour of the whole group.

    Raises:
        Fenced: another group owns the lanes.
        Gap, Stale, RestartNeeded: start again.
        IdentityError: a topic is not the one that was read before.
        ServiceUnavailable: Kafka or Redis is away.
        ConfigError: wrong settings, or the port for metrics is taken.
    """
    options, journal, pulse = options or StreamOptions(), journal or Journal("stream"), pulse or Pulse()
    options = replace(options, patience=replace(options.patience, waiting=pulse.beat))
    claimant, stop, workers = claimant or Claimant(), stop or threading.Event(), max(len(addresses), 1)
    prepared, forgotten = _prepare(loaded, worker, workers, options, journal, claimant)
    starts = {a.topic: {p: mark.next for p, mark in a.starts.items()} for a in prepared.assignments}
    views = [view.name for view in prepared.views]
    journal.note("starting", worker=worker, workers=workers, views=views, starts=starts)
    stuck = stands_still(loaded.settings, "stream", worker, starts)
    one_by_one = careful == SURE or (careful == MAYBE and stuck)
    if stand_in and not one_by_one:
        return _enough(journal, worker, "every partition has moved since the last start")
    parts, source_metrics, worker_metrics = _parts(
        loaded, prepared, worker, workers, options, journal, claimant, forgotten
    )
    standing_in = None
    if one_by_one:
        parts, handling = _one_by_one(parts, loaded.settings, prepared)
        standing_in = StandIn(parts.poller, handling, stop) if stand_in else None
        parts = replace(parts, poller=standing_in or parts.poller)
        journal.note("careful", worker=worker)
    course = Course(stop, alone=workers == 1, pulse=pulse)
    try:
        with serve_metrics(loaded.settings, worker, source_metrics, worker_metrics):
            run_flow("headrace_stream", parts, course, addresses)
    finally:
        parts.poller.close()
        parts.sink.close()
    journal.note("stopped", worker=worker)
    return _enough(journal, worker, standing_in.reason) if standing_in and standing_in.reason else STOPPED


def _enough(journal: Journal, worker: int, reason: str) -> int:
    """What a process ends with that stood in for several."""
    journal.note("careful-enough", worker=worker, reason=reason)
    return CAREFUL_ENOUGH


def _prepare(
    loaded: LoadedProject,
    worker: int,
    workers: int,
    options: StreamOptions,
    journal: Journal,
    claimant: Claimant,
) -> tuple[Prepared, Sequence[Forgotten]]:
    """What is done before the lanes are claimed: the first time on a machine takes longer than an owner may be silent."""
    kernel.warm(folding_only=True)
    cache.warm()
    views, forgotten = loaded.project.views, read_forgotten(loaded.settings)
    forget_entities(
        loaded.settings, views, forgotten, claimant, options.patience, journal, worker=worker, workers=workers
    )
    return prepare_stream(loaded, worker, workers), forgotten


def _parts(
    loaded: LoadedProject,
    prepared: Prepared,
    worker: int,
    workers: int,
    options: StreamOptions,
    journal: Journal,
    claimant: Claimant,
    forgotten: Sequence[Forgotten],
) -> tuple[Parts, SourceMetrics, WorkerMetrics]:
    settings, outage_s = loaded.settings, options.patience.outage_s
    cache_bytes = settings.cache_kb * 1024 // len(prepared.views)
    topology = parse_topology(settings.redis)
    folders = [
        ViewFolder(view, ViewKeys(settings.namespace, view), worker, workers, cache_bytes, by_lane=not topology.one)
        for view in prepared.views
    ]
    writer = ShardWriter(
        worker, workers, folders, topology, journal, options.patience,
        claimant=claimant, most_dirty_bytes=max(settings.cache_kb * 1024 // 4, _LEAST_DIRTY_BYTES),
    )  # fmt: skip
    topics = {
        a.topic: TopicStart(a.identity.topic_id, a.identity.partitions, a.starts, a.firsts)
        for a in prepared.assignments
    }
    ids = {topic: identity.topic_id for topic, identity in prepared.topics.items()}
    box = DeadLetterBox(
        settings.kafka, settings.namespace, journal, outage_s=outage_s, waiting=options.patience.waiting
    )
    registry = registry_of(settings)
    decoder = Decoder(loaded.project, prepared.views, ids, workers, box, read_poison(settings), registry, forgotten)
    source = KafkaSource(
        settings.kafka, prepared.assignments, journal,
        most=options.most_records, watch_s=options.watch_s, outage_s=outage_s, at_once=answers_at_once(settings.kafka),
        also=longer_list(settings, len(forgotten), every_s=options.watch_s),
    )  # fmt: skip
    known = schemas_known(source, loaded.project.events, registry, journal, outage_s=outage_s)
    poller = HistoryFirst(_histories(loaded, prepared), known, journal)
    parts = Parts(worker, workers, Opening(worker, workers, topics), poller, decoder.decode, writer)
    return parts, SourceMetrics(source, box), WorkerMetrics(folders, writer.flusher)


def _one_by_one(parts: Parts, settings: Settings, prepared: Prepared) -> tuple[Parts, Handling]:
    """The same parts, one record at a time, and who counts them."""
    handling = PlaceFile(settings, "stream", parts.worker).open()
    ids = {topic: identity.topic_id for topic, identity in prepared.topics.items()}
    handling.begins(ids)
    views = prepared.views
    careful = replace(
        parts,
        poller=CarefulSource(parts.poller, handling),
        decode=handling.decoding(parts.decode),
        sink=NamedSink(parts.sink, handling, lambda piece: ids[views[piece.view].event.topic]),
    )
    return careful, handling


def _histories(loaded: LoadedProject, prepared: Prepared) -> list[History]:
    """What has to be read from the log before the topics are."""
    events = {view.event.topic: view.event for view in prepared.views}
    return [
        History(
            a.topic, event_log(loaded.settings, events[a.topic]), {p: a.starts[p].next for p in a.history}, a.history
        )
        for a in prepared.assignments
        if a.history
    ]
