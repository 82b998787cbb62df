"""Deleting an entity: writing it on the forgotten-list, and knowing when it is gone everywhere.

What may not live here: the carrying out, which is the pipelines' (`headrace_streams.forgetting`, `headrace_streams.log_forgetting`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import headrace as hr
from headrace.errors import NotFound
from headrace.kernel import hash_bytes
from headrace_schemas.forgotten import Forgotten
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import prediction_topic
from headrace_schemas.stores import kafka
from headrace_schemas.stores.forgotten import remember_forgotten
from headrace_schemas.stores.log import LogTable, event_log, prediction_log
from headrace_schemas.stores.online import connect, lane_records

_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Deletion:
    """An entity that is being forgotten."""

    entry: Forgotten
    topics: Mapping[str, str]
    views: tuple[hr.FeatureView, ...]
    key: bytes


def entity_of(loaded: LoadedProject, name: str) -> hr.Entity:
    """An entity of the project's views.

    Raises:
        NotFound: no view is of that entity.
    """
    found = {view.entity.name: view.entity for view in loaded.project.views}
    if name not in found:
        raise NotFound("entity", name, found)
    return found[name]


def forget(loaded: LoadedProject, entity: hr.Entity, key: Mapping[str, object]) -> Deletion:
    """Write an entity on the forgotten-list: everything of it that is on the topics now.

    Raises:
        ContractError: the key is not the entity's.
        ServiceUnavailable: Kafka is away.
    """
    settings = loaded.settings
    encoded = encode_key([key[name] for name in entity.keys])  # type: ignore[misc]
    views = tuple(view for view in loaded.project.views if view.entity.name == entity.name)
    topics = {
        topic: kafka.topic_identity(settings.kafka, topic).topic_id for topic in sorted({v.event.topic for v in views})
    }
    present = set(kafka.topic_names(settings.kafka))
    predictions = prediction_topic(settings.namespace)
    if predictions in present:
        topics[predictions] = kafka.topic_identity(settings.kafka, predictions).topic_id
    bounds = {topic_id: kafka.end_offsets(settings.kafka, topic) for topic, topic_id in topics.items()}
    entry = Forgotten(entity.name, hash_bytes(encoded), bounds, time.time_ns() // 1000)
    position = remember_forgotten(settings, entry)
    return Deletion(Forgotten(entry.entity, entry.key_hash, bounds, entry.at_us, position), topics, views, encoded)


def await_gone(
    loaded: LoadedProject, deletion: Deletion, patience_s: float, tell: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Wait until it is carried out; what is not, in words, when the patience is over."""
    deadline = time.monotonic() + patience_s
    left = _left(loaded, deletion)
    while left and time.monotonic() < deadline:
        tell(left[0])
        time.sleep(_PAUSE_S)
        left = _left(loaded, deletion)
    return left


def _left(loaded: LoadedProject, deletion: Deletion) -> list[str]:
    found = []
    client = connect(loaded.settings.redis)
    try:
        for view in deletion.views:
            keys = ViewKeys(loaded.settings.namespace, view)
            lane = keys.lane_of(deletion.entry.key_hash)
            if lane_records(client, keys)[lane].forgotten <= deletion.entry.position:
                found.append(f"view {view.name}: the feature pipeline has not done it; `headrace stream` has to run")
    finally:
        client.close()
    for topic, topic_id in deletion.topics.items():
        name, table = _table(loaded, topic)
        known = table.watermark()
        if any(known.get(p, 0) < end for p, end in deletion.entry.bounds[topic_id].items() if end):
            found.append(f"log of {name}: it is not complete up to the deletion; the log writer has to run")
        elif _rows_of(table, deletion, topic, topic_id):
            found.append(f"log of {name}: the log writer has not done it")
    return found


def _table(loaded: LoadedProject, topic: str) -> tuple[str, LogTable]:
    for event in loaded.project.events:
        if event.topic == topic:
            return event.name, event_log(loaded.settings, event)
    return "predictions", prediction_log(loaded.settings)


def _rows_of(table: LogTable, deletion: Deletion, topic: str, topic_id: str) -> int:
    """Rows that are still there."""
    from headrace_streams.log_forgetting import rows_of_entity

    return rows_of_entity(
        table,
        deletion.entry,
        deletion.views,
        topic_id,
        predictions=topic not in {v.event.topic for v in deletion.views},
    )
