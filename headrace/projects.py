"""Projects: all definitions of one system, with unique names.

What may not live here: loading files and settings (``headrace_schemas.loading``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from headrace.entities import Entity
from headrace.errors import ConfigError, DefinitionError, NotFound
from headrace.events import Event
from headrace.fingerprints import digest
from headrace.frozen import Definition
from headrace.labels import Label
from headrace.models import Model
from headrace.transforms import OnDemand
from headrace.views import FeatureView

D = TypeVar("D", bound=Definition)


@dataclass(frozen=True, slots=True)
class Project:
    """The definitions of one system; each tuple is sorted by name.

    Raises:
        DefinitionError: two definitions of one kind share a name, or two events share a topic.

    >>> import headrace as hr
    >>> paid = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp()}, time="at")
    >>> project = hr.Project("shop", events=(paid,))
    >>> project.event("paid") is paid
    True
    """

    name: str
    events: tuple[Event, ...] = ()
    entities: tuple[Entity, ...] = ()
    views: tuple[FeatureView, ...] = ()
    labels: tuple[Label, ...] = ()
    models: tuple[Model, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("events", "entities", "views", "labels", "models"):
            object.__setattr__(self, kind, _unique_by_name(getattr(self, kind)))
        topics: dict[str, Event] = {}
        for event in self.events:
            if (other := topics.setdefault(event.topic, event)) is not event:
                raise event.broken(
                    "one event has one topic",
                    f"topic {event.topic!r} is already that of {other.subject} ({other.location})",
                    "use that event, or another topic",
                )

    @classmethod
    def from_namespace(cls, name: str, namespace: Mapping[str, object]) -> Project:
        """The project of a module: its definitions, and those that they use.

        Args:
            name: of the project.
            namespace: the module's names, ``vars(module)``.

        Raises:
            ConfigError: there is no definition in it.
            DefinitionError: two definitions of one kind share a name.
        """
        found = _with_used(value for value in namespace.values() if isinstance(value, Definition))
        if not found:
            raise ConfigError(
                f"project {name!r} declares nothing: its definitions are the hr.Event, hr.FeatureView and hr.Model objects"
                " at the top level of its module; declare them there, or correct `definitions` in headrace.toml"
            )
        return cls(
            name,
            events=_of_type(Event, found),
            entities=_of_type(Entity, found),
            views=_of_type(FeatureView, found),
            labels=_of_type(Label, found),
            models=_of_type(Model, found),
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex characters over all meanings; neither order nor place of the definitions enters."""
        everything = (*self.events, *self.entities, *self.views, *self.labels, *self.models)
        return digest([[definition.kind, definition.canonical()] for definition in everything])

    def event(self, name: str) -> Event:
        """The event of this name; NotFound with a suggestion otherwise."""
        return _find("event", name, self.events)

    def entity(self, name: str) -> Entity:
        """The entity of this name; NotFound with a suggestion otherwise."""
        return _find("entity", name, self.entities)

    def view(self, name: str) -> FeatureView:
        """The feature view of this name; NotFound with a suggestion otherwise."""
        return _find("feature view", name, self.views)

    def label(self, name: str) -> Label:
        """The label of this name; NotFound with a suggestion otherwise."""
        return _find("label", name, self.labels)

    def model(self, name: str) -> Model:
        """The model of this name; NotFound with a suggestion otherwise."""
        return _find("model", name, self.models)

    def views_of(self, event: Event) -> tuple[FeatureView, ...]:
        """The views that fold an event."""
        return tuple(view for view in self.views if view.event == event)


def _find(kind: str, name: str, definitions: tuple[D, ...]) -> D:
    for definition in definitions:
        if definition.name == name:
            return definition
    raise NotFound(kind, name, (definition.name for definition in definitions))


def _of_type(kind: type[D], definitions: Iterable[Definition]) -> tuple[D, ...]:
    return tuple(definition for definition in definitions if isinstance(definition, kind))


def _with_used(definitions: Iterable[Definition]) -> list[Definition]:
    """The definitions and all that they use, each object once."""
    found: dict[int, Definition] = {}
    waiting = list(definitions)
    while waiting:
        definition = waiting.pop()
        if id(definition) not in found:
            found[id(definition)] = definition
            waiting.extend(_used_by(definition))
    return list(found.values())


def _used_by(definition: Definition) -> tuple[Definition, ...]:
    if isinstance(definition, FeatureView):
        return definition.entity, definition.event
    if isinstance(definition, Label):
        return (definition.event,)
    if isinstance(definition, Model):
        views = (lookup.view for lookup in definition.lookups)
        return definition.request, definition.label, *views, *definition.transforms
    if isinstance(definition, OnDemand):
        return ()  # its views and events are its model's
    return ()


def _unique_by_name(definitions: tuple[D, ...]) -> tuple[D, ...]:
    by_name: dict[str, D] = {}
    for definition in definitions:
        other = by_name.setdefault(definition.name, definition)
        # The same meaning declared twice is one definition: a module that was loaded twice, or an equal helper's result.
        if other is not definition and other != definition:
            raise _twice(other, definition)
    return tuple(by_name[name] for name in sorted(by_name))


def _twice(first: Definition, second: Definition) -> DefinitionError:
    return second.broken(
        f"{second.kind} names are unique", f"{second.name!r} is also declared at {first.location}", "rename one of them"
    )
