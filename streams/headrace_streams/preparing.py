"""What is settled before the first event is read: services, registered views, the topics' identity, and where to begin.

What may not live here: reading events, running anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from headrace.errors import ConfigError, IdentityError, NotFound
from headrace.events import Event
from headrace.views import FeatureView
from headrace_schemas.keys import ViewKeys
from headrace_schemas.loading import LoadedProject
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import TopicIdentity, end_offsets, first_offsets, refuse_compacted, topic_identity
from headrace_schemas.stores.lanes import LaneRecord
from headrace_schemas.stores.log import event_log
from headrace_schemas.stores.online import check_policy, connect, lane_records, register_views, told
from headrace_streams.identity import Auditor
from headrace_streams.source import Assignment
from headrace_streams.starts import AGAIN, TopicFacts, highest_marks, start_positions

_Lanes = Mapping[str, Sequence[LaneRecord]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker needs to begin.

    Args:
        views: the views, in the order that all processes of a group count them in.
        topics: each topic's identity.
        assignments: what this worker reads.
    """

    views: tuple[FeatureView, ...]
    topics: Mapping[str, TopicIdentity]
    assignments: tuple[Assignment, ...]


def prepare_stream(loaded: LoadedProject, worker: int, workers: int) -> Prepared:
    """Settle where a worker of the feature pipeline begins.

    Raises:
        ConfigError: there is nothing to do, Redis evicts, or a topic is compacted.
        NotFound: a topic does not exist.
        ServiceUnavailable: Kafka or Redis is away.
        IdentityError: a topic is not the one that was read before.
        StoreError: Redis refuses a command.
    """
    settings, views = loaded.settings, loaded.project.views
    if not views:
        raise ConfigError(
            f"project {loaded.project.name!r} has no feature views, so there is nothing to stream; declare an hr.FeatureView"
        )
    client = connect(settings.redis)
    try:
        with told(client):
            check_policy(client)
            register_views(client, settings.namespace, views)
            topics, assignments = {}, []
            for topic in sorted({view.event.topic for view in views}):
                lanes = {
                    f"view {view.name!r}": lane_records(client, ViewKeys(settings.namespace, view))
                    for view in views
                    if view.event.topic == topic
                }
                topics[topic] = _identity(settings.kafka, topic, lanes)
                refuse_compacted(settings.kafka, topic)
                event = next(view.event for view in views if view.event.topic == topic)
                assignments.append(_assignment(settings, event, topics[topic], lanes, worker, workers))
            return Prepared(views, topics, tuple(assignments))
    finally:
        client.close()


def _identity(bootstrap: str, topic: str, lanes: _Lanes) -> TopicIdentity:
    """What the topic is now; a topic that lanes were folded from must not have vanished."""
    try:
        return topic_identity(bootstrap, topic)
    except NotFound:
        for name, records in lanes.items():
            if any(record.watermarks for record in records):
                raise IdentityError(
                    topic, f"the topic, of which {name} holds a part", "no topic of that name", AGAIN
                ) from None
        raise


def _assignment(
    settings: Settings, event: Event, identity: TopicIdentity, lanes: _Lanes, worker: int, workers: int
) -> Assignment:
    facts = topic_facts(settings, event, identity, lanes)
    starts = start_positions(facts, lanes)
    check_marks(settings.kafka, facts, lanes)
    mine = {partition: start for partition, start in starts.items() if partition % workers == worker}
    begins = {partition: facts.begin(partition) for partition in mine}
    return Assignment(event.topic, identity, mine, begins, facts.history(mine))


def topic_facts(settings: Settings, event: Event, identity: TopicIdentity, lanes: _Lanes) -> TopicFacts:
    """What the broker and the log say of an event's topic."""
    first, end = first_offsets(settings.kafka, event.topic), end_offsets(settings.kafka, event.topic)
    facts = TopicFacts(event.topic, identity.topic_id, first, end, {})
    if not any(first.values()) or not _reach_back(facts, lanes):
        return facts
    log = event_log(settings, event)
    if log.topic_id != identity.topic_id:
        return facts
    upto = log.watermark()
    found = log.scan().group_by("_partition").agg(pl.col("_offset").min()).collect()
    lowest = {int(row["_partition"]): int(row["_offset"]) for row in found.to_dicts()}
    logged = {p: (lowest[p], upto[p]) for p in lowest if p in upto}
    return replace(facts, logged=logged)


def _reach_back(facts: TopicFacts, lanes: _Lanes) -> bool:
    """Whether some lane has to begin, or would begin, before what the topic still keeps."""
    for record in (record for records in lanes.values() for record in records):
        known = {p: mark.next for (topic_id, p), mark in record.watermarks.items() if topic_id == facts.topic_id}
        if any(known.get(partition, 0) < first for partition, first in facts.first.items()):
            return True
    return False


def check_marks(bootstrap: str, facts: TopicFacts, lanes: _Lanes) -> None:
    """Read the records before the highest watermarks again: if they are the same, so is everything before them.

    Raises:
        IdentityError: they are not.
    """
    auditor = Auditor(bootstrap)
    try:
        for partition, mark in sorted(highest_marks(facts, lanes).items()):
            if mark.digest and mark.next > facts.first[partition]:
                auditor.check_record(facts.topic, partition, mark)
    finally:
        auditor.close()
