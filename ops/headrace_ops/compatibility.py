"""Whether records that lie on a topic, and records that others write to it, can be read as the event that is declared now.

Compared are the event as it was last applied, and the newest schema of its subject in the registry, both ways. What may not live
here: the rules (`headrace_schemas.resolution`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import headrace as hr
from headrace_schemas.codecs import schema_of
from headrace_schemas.evolution import unreadable, unreadable_elsewhere
from headrace_schemas.framing import WriterSchema, subject_of
from headrace_schemas.resolution import resolve, wanted_by, wanted_by_schema
from headrace_schemas.stores.online import RegisteredEvent
from headrace_schemas.stores.schema_registry import SchemaRegistry

EventAction = Literal["register", "keep", "change"]


@dataclass(frozen=True, slots=True)
class EventPlan:
    """One event.

    Attributes:
        event: its name.
        topic: its topic.
        encoding: format and framing.
        action: ``register`` a new one; ``keep``; ``change`` because it is declared otherwise than it was.
        problems: which records could not be read, in words.
    """

    event: str
    topic: str
    encoding: str
    action: EventAction
    problems: tuple[str, ...]


def event_plan(event: hr.Event, before: RegisteredEvent | None, registry: SchemaRegistry | None) -> EventPlan:
    """Compare an event with what it was and with what is registered.

    Args:
        event: as it is declared now.
        before: as it was last applied.
        registry: the project's schema registry.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    now = RegisteredEvent.of(event)
    action: EventAction = "register" if before is None else "keep" if before == now else "change"
    problems = [] if before is None or action == "keep" else list(_since(event, before))
    if event.framing == "confluent" and registry is not None:
        problems += _registered(event, registry)
    encoding = event.format if event.framing == "none" else f"{event.format}, {event.framing} framing"
    return EventPlan(event.name, event.topic, encoding, action, tuple(problems))


def _since(event: hr.Event, before: RegisteredEvent) -> Iterator[str]:
    if event.topic != before.topic:
        return  # nothing on this topic was written by the declaration before
    where = f"records that are on topic {event.topic!r} already"
    if (event.format, event.framing) != (before.format, before.framing):
        yield f"{where} are {before.format} with framing {before.framing!r}, and cannot be told from new ones; give the event another topic"
        return
    if event.format == "avro" and event.framing == "none":
        if _binary(event.avro_schema) != _binary(before.avro_schema):
            yield (
                f"{where} have other fields or another order of them, and an Avro record without framing does not say which; give the "
                f"event another topic, or declare framing='confluent' from the beginning"
            )
        return
    for problem in resolve(before.avro_schema, wanted_by(event)).problems:
        yield f"{where} become dead letters: {problem}"


def _registered(event: hr.Event, registry: SchemaRegistry) -> Iterator[str]:
    subject = subject_of(event.topic)
    latest = registry.latest(subject)
    if latest is None:
        return
    version, schema_id, schema = latest
    place = f"version {version} of {subject!r} in the registry (id {schema_id})"
    if schema.kind != schema_of(event).kind:
        yield f"{place} is {schema.kind}, but the event is {event.format}"
    elif event.format == "avro":
        for problem in unreadable(event, schema):
            yield f"records of {place} become dead letters: {problem}"
        for problem in _elsewhere(event, schema):
            yield f"readers of {place} could not read what this project produces: {problem}"


def _elsewhere(event: hr.Event, schema: WriterSchema) -> list[str]:
    return unreadable_elsewhere(event, wanted_by_schema(schema.record()))


def _binary(record: Mapping[str, Any]) -> list[object]:
    """What decides how a record's bytes are read: the types in their order, whatever the fields are called."""
    return [entry["type"] for entry in record["fields"]]
