"""What a project needs of Kafka and Redis, compared with what is there: the plan, and carrying it out.

Applying twice changes nothing. What may not live here: printing, and anything that deletes: states of a layout that is no
longer declared stay until somebody removes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import headrace as hr
from headrace.durations import format_us
from headrace_ops.compatibility import EventPlan, event_plan
from headrace_schemas.dead_letters import dead_letter_topic
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import prediction_topic
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.schema_registry import registry_of

PARTITIONS = 4

TopicAction = Literal["create", "keep"]
ViewAction = Literal["register", "keep", "rebuild", "finish"]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic: what `apply` does, its purpose, its partitions."""

    topic: str
    use: str
    action: TopicAction
    partitions: int


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One feature view.

    Attributes:
        view: its name.
        action: ``register`` a new one; ``keep``; ``rebuild`` because its layout changed; ``finish`` because only the
            expressions over its aggregations changed, which needs no rebuild.
        layout: fingerprint of the layout; part of its keys.
        windows: each window with the tile that it is made of, which is its error at the far edge.
        features: how many.
    """

    view: str
    action: ViewAction
    layout: str
    windows: dict[str, str]
    features: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do. `gone` are registered views that are no longer declared."""

    topics: tuple[TopicPlan, ...]
    events: tuple[EventPlan, ...]
    views: tuple[ViewPlan, ...]
    gone: tuple[str, ...]

    @property
    def changes(self) -> int:
        """How many of the parts are not as declared."""
        changed: list[object] = [topic for topic in self.topics if topic.action != "keep"]
        changed += [event for event in self.events if event.action != "keep"]
        return len(changed) + len([view for view in self.views if view.action != "keep"]) + len(self.gone)

    @property
    def problems(self) -> list[str]:
        """Records that could not be read, in words; empty where every schema is compatible."""
        return [f"event {event.event}: {problem}" for event in self.events for problem in event.problems]

    def advice(self) -> list[str]:
        """What to run after `apply`, in words."""
        lines = []
        if any(view.action in ("register", "rebuild") for view in self.views):
            lines.append(
                "start or restart `headrace stream` (or `headrace dev`): it reads the topics from their first offset for new "
                "and rebuilt views, and goes on where it was for the others"
            )
        if any(view.action in ("rebuild", "finish") for view in self.views):
            lines.append(
                "train again the models that use a changed view (`headrace train MODEL`): they pin its fingerprint"
            )
        return lines

    def to_json(self) -> dict[str, object]:
        """The plan as JSON-able data."""
        return asdict(self) | {"changes": self.changes, "problems": self.problems, "advice": self.advice()}


def plan(loaded: LoadedProject, *, partitions: int = PARTITIONS, patience_s: float = kafka.PATIENCE_S) -> Plan:
    """Compare a project with its broker and store.

    Args:
        loaded: the project.
        partitions: for topics that are not there yet.
        patience_s: how long a missing service is waited for.

    Raises:
        ServiceUnavailable: Kafka, Redis or the schema registry does not answer.
    """
    settings = loaded.settings
    present = set(kafka.topic_names(settings.kafka, patience_s=patience_s))
    topics = []
    for topic, use in topics_of(loaded):
        if topic in present:
            there = kafka.topic_identity(settings.kafka, topic, patience_s=patience_s).partitions
            topics.append(TopicPlan(topic, use, "keep", there))
        else:
            topics.append(TopicPlan(topic, use, "create", partitions))
    client = online.connect(settings.redis, patience_s=patience_s)
    try:
        registered = online.registered_views(client, settings.namespace)
        before = online.registered_events(client, settings.namespace)
    finally:
        client.close()
    declared = {view.name: view for view in loaded.project.views}
    views = tuple(
        ViewPlan(
            view=name,
            action=_action(view, registered.get(name)),
            layout=view.layout_fingerprint,
            windows=windows_of(view),
            features=len(view.feature_names),
        )
        for name, view in declared.items()
    )
    registry = registry_of(settings)
    events = tuple(event_plan(event, before.get(event.name), registry) for event in loaded.project.events)
    return Plan(tuple(topics), events, views, tuple(name for name in registered if name not in declared))


def apply(loaded: LoadedProject, wanted: Plan, *, patience_s: float = kafka.PATIENCE_S) -> None:
    """Carry out a plan: create its topics, make its events and views the registered ones.

    Raises:
        ServiceUnavailable: Kafka or Redis does not answer.
        StoreError: the broker refused a topic.
        ConfigError: Redis may evict keys.
    """
    settings = loaded.settings
    missing = {topic.topic: topic.partitions for topic in wanted.topics if topic.action == "create"}
    kafka.ensure_topics(settings.kafka, missing, patience_s=patience_s)
    client = online.connect(settings.redis, patience_s=patience_s)
    try:
        online.check_policy(client)
        online.register_events(client, settings.namespace, loaded.project.events)
        online.register_views(client, settings.namespace, loaded.project.views)
    finally:
        client.close()


def topics_of(loaded: LoadedProject) -> list[tuple[str, str]]:
    """Every topic that the project uses, with what it is for."""
    namespace = loaded.settings.namespace
    events = [(event.topic, f"event {event.name}") for event in loaded.project.events]
    return [*events, (prediction_topic(namespace), "predictions"), (dead_letter_topic(namespace), "dead letters")]


def windows_of(view: hr.FeatureView) -> dict[str, str]:
    """Each window of a view with its tile, in words: a window covers up to one tile more than its length."""
    windows: Iterable[int] = sorted(view.ladder.level)
    return {format_us(window): format_us(view.ladder.tile_us(window)) for window in windows}


def _action(view: hr.FeatureView, registered: online.RegisteredView | None) -> ViewAction:
    if registered is None:
        return "register"
    if registered.layout_fingerprint != view.layout_fingerprint:
        return "rebuild"
    return "keep" if registered.finalizer_fingerprint == view.finalizer_fingerprint else "finish"
