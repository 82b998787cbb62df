"""How far a running project is: topics and their ends, views and their lag, the log, the models, the service, dead letters.

Reads only, and only hints: what a worker has committed is said by the worker's own progress.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace.errors import NotFound, ServiceUnavailable
from headrace_ops.open_letters import OpenLetters, count_open
from headrace_ops.service import Service
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import prediction_topic
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log, prediction_log
from headrace_schemas.stores.registry import Registry

_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """One view: how many events its topic holds, and how many of them are not in its features yet."""

    view: str
    topic: str
    events: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table of the log: how many records its topic holds, and how many of them are not in the table yet."""

    table: str
    topic: str
    records: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: what the registry holds and what the service answers with."""

    model: str
    champion: str | None
    service: str


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """Everything at once."""

    namespace: str
    views: tuple[ViewStatus, ...]
    tables: tuple[TableStatus, ...]
    models: tuple[ModelStatus, ...]
    dead_letters: OpenLetters
    service: str
    problems: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether everything that is declared runs."""
        return not self.problems

    def to_json(self) -> dict[str, object]:
        """The status as JSON-able data."""
        return asdict(self) | {"well": self.well}


def status(loaded: LoadedProject) -> ProjectStatus:
    """Look at every part of a project.

    Raises:
        ServiceUnavailable: Kafka or Redis does not answer.
    """
    settings = loaded.settings
    topics = set(kafka.topic_names(settings.kafka, patience_s=_PATIENCE_S))
    ends = {
        topic: kafka.end_offsets(settings.kafka, topic, patience_s=_PATIENCE_S)
        for topic in {event.topic for event in loaded.project.events} | {prediction_topic(settings.namespace)}
        if topic in topics
    }
    problems = [
        f"topic {event.topic!r} is missing; run `headrace apply`"
        for event in loaded.project.events
        if event.topic not in topics
    ]
    views = _views(loaded, ends)
    problems += [f"view {v.view!r} was never fed; run `headrace stream`" for v in views if v.events and v.lag is None]
    service = f"http://{settings.host}:{settings.port}"
    ready, complaint = _readiness(service)
    if complaint:
        problems.append(complaint)
    models = _models(loaded, ready)
    problems += [
        f"model {m.model!r} has no champion; run `headrace train {m.model}`" for m in models if m.champion is None
    ]
    return ProjectStatus(
        namespace=settings.namespace,
        views=views,
        tables=_tables(loaded, ends),
        models=models,
        dead_letters=count_open(settings, patience_s=_PATIENCE_S),
        service=f"{service} {ready.get('status', 'does not answer')}",
        problems=tuple(problems),
    )


def lag(ends: dict[int, int], reached: dict[int, int]) -> int:
    """How many records lie between a position and the end.

    >>> lag({0: 10, 1: 5}, {0: 7})
    8
    """
    return sum(max(0, end - reached.get(partition, 0)) for partition, end in ends.items())


def _views(loaded: LoadedProject, ends: dict[str, dict[int, int]]) -> tuple[ViewStatus, ...]:
    settings = loaded.settings
    client = online.connect(settings.redis, patience_s=_PATIENCE_S)
    try:
        found = []
        for view in loaded.project.views:
            reached = online.progress(client, settings.namespace, view)
            end = ends.get(view.event.topic, {})
            behind = lag(end, reached) if reached or not sum(end.values()) else None
            found.append(ViewStatus(view.name, view.event.topic, sum(end.values()), behind))
        return tuple(found)
    finally:
        client.close()


def _tables(loaded: LoadedProject, ends: dict[str, dict[int, int]]) -> tuple[TableStatus, ...]:
    settings = loaded.settings
    logs = [(f"events/{event.name}", event.topic, event_log(settings, event)) for event in loaded.project.events]
    logs.append(("predictions", prediction_topic(settings.namespace), prediction_log(settings)))
    found = []
    for name, topic, log in logs:
        end = ends.get(topic, {})
        behind = lag(end, log.watermark()) if log.path.exists() else None
        found.append(TableStatus(name, topic, sum(end.values()), behind))
    return tuple(found)


def _models(loaded: LoadedProject, ready: dict[str, Any]) -> tuple[ModelStatus, ...]:
    registry = Registry(loaded.settings.registry_path)
    found = []
    for model in loaded.project.models:
        try:
            champion = registry.resolve(model.name)
        except NotFound:
            champion = None
        facts = ready.get("models", {}).get(model.name, {})
        says = f"{facts['status']} {facts.get('version') or ''}".strip() if facts else "not served"
        found.append(ModelStatus(model.name, champion, says))
    return tuple(found)


def _readiness(url: str) -> tuple[dict[str, Any], str | None]:
    try:
        with Service(url, timeout_s=_PATIENCE_S) as service:
            ready = service.readiness()
    except ServiceUnavailable as error:
        return {}, str(error)
    except ValueError:
        return {}, f"something that is not the service answers at {url}; choose another port"
    return ready, None
