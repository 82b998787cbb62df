"""Feature views: named, versioned sets of features of one entity from one event source, and lookups of their values.

A view is pure declaration. How its states look in bytes is decided by ``layout``, from which the physical half of its
fingerprint is taken. What may not live here: states, kernels, stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import timedelta
from functools import lru_cache
from typing import ClassVar

from headrace.durations import parse_us
from headrace.entities import Entity
from headrace.errors import DefinitionError, Location, NotFound, caller
from headrace.events import Event
from headrace.expressions import Expression, check_condition
from headrace.features import Aggregate, Aggregation, Node, Windowed
from headrace.fields import FieldType
from headrace.fingerprints import digest
from headrace.frozen import Definition, FrozenMap, check_name, is_a
from headrace.suggestions import did_you_mean
from headrace.windows import Ladder, build_ladder

MAX_DEDUPE = 1024
MAX_LANES = 4096


@dataclass(frozen=True, slots=True)
class Feature:
    """One named value of a view.

    Attributes:
        name: unique within the view.
        node: the expression that computes it.
    """

    name: str
    node: Node


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class FeatureView(Definition):
    """Features of one entity, computed from one event.

    Args:
        name: unique within the project; it is part of the names that models see.
        entity: what the features describe.
        event: where they come from.
        features: name and aggregation. ``hr.count().over("30m", "3h")`` named ``departures`` becomes ``departures_30m`` and
            ``departures_3h``; lifetime aggregations and arithmetic keep their name.
        keys: the event field of each entity key; by default the field of the same name.
        where: a filter: other events leave no trace in the view.
        tile: one tile for all windows ("10s"), or tiles of some windows ({"1h": "1m"}); else at most a 48th of each window.
        tolerance: how far before an entity's newest event a read may still be asked for and be exact.
        dedupe: how many recent event ids each entity remembers of each partition, so that repeated events count once; 0
            switches it off.
        lanes: into how many shares its entities are divided; fixed when the view is created.
        version: raise it to compute the view anew beside the old one.
        description: for people.

    Raises:
        DefinitionError: names the rule that is broken, and what to write.

    >>> import headrace as hr
    >>> paid = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp(), "amount": hr.float64()}, time="at")
    >>> spending = hr.FeatureView("spending", entity=hr.Entity("card", keys={"card": hr.string()}), event=paid,
    ...     features={"n": hr.count().over("10m", "1h"), "share": hr.sum("amount").over("1h") / hr.sum("amount").over("7d")})
    >>> spending.feature_names
    ('n_10m', 'n_1h', 'share')
    """

    kind: ClassVar[str] = "feature view"

    name: str
    entity: Entity
    event: Event
    keys: Mapping[str, str]
    where: Expression | None
    features: tuple[Feature, ...]
    tile_us: int | Mapping[int, int] | None
    tolerance_us: int
    dedupe: int
    lanes: int
    version: int
    ladder: Ladder
    description: str
    location: Location

    def __init__(
        self,
        name: str,
        *,
        entity: Entity,
        event: Event,
        features: Mapping[str, Node],
        keys: Mapping[str, str] | None = None,
        where: Expression | None = None,
        tile: str | timedelta | Mapping[str, str | timedelta] | None = None,
        tolerance: str | timedelta = "0s",
        dedupe: int = 16,
        lanes: int = 16,
        version: int = 1,
        description: str = "",
    ) -> None:
        self._set(name=name, entity=entity, event=event, description=description, location=caller())
        self._set(where=where, dedupe=dedupe, lanes=lanes, version=version)
        self._check_name(joins_names=True)
        self._check_sources()
        self._set(keys=self._resolved_keys(keys or {}))
        self._check_numbers()
        try:
            if where is not None:
                check_condition(where, event)
            self._set(tolerance_us=parse_us(tolerance), tile_us=_parsed_tile(tile))
            self._set(features=tuple(self._expanded(features)))
            self._set(ladder=build_ladder(self.windows_us, self.tile_us))
        except DefinitionError as error:
            raise error.located(self.subject, self.location) from None
        self._check_features()
        self._check_layout()

    # --- what it declares -------------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features, in the order in which a read returns them."""
        return tuple(feature.name for feature in self.features)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The leaves of all features; the same one may appear in several."""
        return tuple(leaf for feature in self.features for leaf in feature.node.aggregates())

    @property
    def windows_us(self) -> tuple[int, ...]:
        """The distinct windows, rising."""
        return tuple(sorted({leaf.window_us for leaf in self.aggregates if leaf.window_us is not None}))

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The event fields that form the entity key, in the entity's order."""
        return tuple(self.keys[key] for key in self.entity.keys)

    @property
    def aggregated_fields(self) -> tuple[str, ...]:
        """The event fields whose values are aggregated, sorted."""
        return tuple(sorted({leaf.field for leaf in self.aggregates if leaf.field is not None}))

    @property
    def columns(self) -> tuple[str, ...]:
        """The event fields that folding needs besides the key: time, aggregated and filtered ones, in the event's order."""
        wheres = [leaf.where for leaf in self.aggregates] + [self.where]
        filtered = {name for where in wheres if where is not None for name in where.fields()}
        needed = {self.event.time, *self.aggregated_fields, *filtered}
        return tuple(name for name in self.event.fields if name in needed)

    # --- fingerprints -----------------------------------------------------------------------------------------------

    @property
    def layout_fingerprint(self) -> str:
        """Sixteen hex characters over everything that a stored state depends on; a change needs a backfill."""
        return _layout_fingerprint(self)

    @property
    def finalizer_fingerprint(self) -> str:
        """Sixteen hex characters over how states become values; a change needs none."""
        return digest({feature.name: feature.node.canonical() for feature in self.features})

    @property
    def fingerprint(self) -> str:
        """Sixteen hex characters over both."""
        return digest([self.layout_fingerprint, self.finalizer_fingerprint])

    def canonical(self) -> dict[str, object]:
        """Everything that is declared, except the description."""
        return {
            "name": self.name,
            "entity": self.entity.canonical(),
            "event": self.event.canonical(),
            "keys": [[key, self.keys[key]] for key in self.entity.keys],
            "where": None if self.where is None else self.where.canonical(),
            "features": [[feature.name, feature.node.canonical()] for feature in self.features],
            "tiles_us": [[window, self.ladder.tile_us(window)] for window in self.windows_us],
            "tolerance_us": self.tolerance_us,
            "dedupe": self.dedupe,
            "lanes": self.lanes,
            "version": self.version,
        }

    # --- use --------------------------------------------------------------------------------------------------------

    def lookup(self, /, *features: str, alias: str | None = None, **keys: str) -> Lookup:
        """The view's values for the entity that a request names.

        Args:
            features: some of its features; by default all.
            alias: how models name it, where one view is looked up twice; by default the view's name.
            keys: the request field of each entity key. By default, the field that the view itself is keyed by if the request
                is the view's event, else the field of the same name.

        Raises:
            DefinitionError: an unknown feature or key.
        """
        where = caller()
        for feature in features:
            self._known("feature", feature, self.feature_names, where)
        for key in keys:
            self._known("entity key", key, self.entity.keys, where)
        if alias is not None:
            check_name(alias, f"alias of {self.subject}", where, joins_names=True)
        chosen = tuple(name for name in self.feature_names if not features or name in features)
        return Lookup(self, chosen, alias or self.name, FrozenMap(keys), where)

    def __getitem__(self, feature: str) -> LookupFeature:
        return self.lookup()[feature]

    def _known(self, kind: str, name: str, known: Mapping[str, object] | tuple[str, ...], where: Location) -> None:
        if name not in known:
            raise DefinitionError(
                required=f"a lookup names {kind}s of the view",
                got=f"it has no {kind} {name!r}",
                remedy=did_you_mean(name, known),
                subject=self.subject,
                where=where,
            )

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check_sources(self) -> None:
        if not isinstance(self.entity, Entity):
            raise self.broken("entity is an hr.Entity", f"entity={self.entity!r} was given", "declare one and pass it")
        if not isinstance(self.event, Event):
            raise self.broken("event is an hr.Event", f"event={self.event!r} was given", "declare one and pass it")

    def _resolved_keys(self, keys: Mapping[str, str]) -> FrozenMap[str, str]:
        for key in keys:
            if key not in self.entity.keys:
                raise self.broken(
                    f"keys names keys of entity {self.entity.name!r}",
                    f"it has no key {key!r}",
                    did_you_mean(key, self.entity.keys),
                )
        resolved = {key: keys.get(key, key) for key in self.entity.keys}
        for key, name in resolved.items():
            field = self.event.fields.get(name)
            if field is None:
                raise self.broken(
                    f"entity key {key!r} comes from a field of event {self.event.name!r}",
                    f"it has no field {name!r}",
                    f"write keys={{{key!r}: …}}; {did_you_mean(name, self.event.fields)}",
                )
            if field.type is not self.entity.keys[key].type:
                raise self.broken(
                    f"entity key {key!r} and its field are of one type",
                    f"the key is {self.entity.keys[key].type.value} and field {name!r} is {field.type.value}",
                    "declare both alike",
                )
        return FrozenMap(resolved)

    def _check_numbers(self) -> None:
        for name, value, least, most in (
            ("dedupe", self.dedupe, 0, MAX_DEDUPE),
            ("lanes", self.lanes, 1, MAX_LANES),
            ("version", self.version, 1, 2**31 - 1),
        ):
            if is_a(value, bool) or not is_a(value, int) or not least <= value <= most:
                raise self.broken(
                    f"{name} is a whole number from {least} to {most}", f"{name}={value!r} was given", "change it"
                )

    def _expanded(self, features: Mapping[str, Node]) -> Iterator[Feature]:
        for name, node in features.items():
            check_name(name, f"feature {name!r} of {self.subject}", self.location, joins_names=True)
            if is_a(node, Aggregation):
                raise self.broken(
                    "a feature says over which windows",
                    f"feature {name!r} has none",
                    "write .over('30m', '3h') or .lifetime() behind it",
                )
            if not isinstance(node, Node):
                raise self.broken(
                    "a feature is an aggregation over windows, or arithmetic over them",
                    f"feature {name!r} is {node!r}",
                    "write hr.count().over('1h')",
                )
            if isinstance(node, Windowed):
                for i, window in enumerate(node.windows):
                    yield Feature(f"{name}_{window.text}", node.at(i))
            else:
                yield Feature(name, node)

    def _check_features(self) -> None:
        if not self.features:
            raise self.broken(
                "a view has at least one feature", "features is empty", "write {'n': hr.count().over('1h')}"
            )
        names = self.feature_names
        for name in names:
            if names.count(name) > 1:
                raise self.broken("feature names are unique", f"{name!r} comes twice", "rename one")
        for feature in self.features:
            if not feature.node.aggregates():
                raise self.broken(
                    "a feature aggregates events", f"feature {feature.name!r} is a constant", "leave it out"
                )
            for leaf in feature.node.aggregates():
                self._check_leaf(feature.name, leaf)

    def _check_layout(self) -> None:
        from headrace import layout  # see _layout_fingerprint

        try:
            layout.describe(self)
        except DefinitionError as error:
            raise error.located(self.subject, self.location) from None

    def _check_leaf(self, feature: str, leaf: Aggregate) -> None:
        subject = f"feature {feature!r} of {self.subject}"
        if leaf.field is not None:
            self._check_aggregated_field(subject, leaf.op, leaf.field)
        if leaf.where is not None:
            try:
                check_condition(leaf.where, self.event)
            except DefinitionError as error:
                raise error.located(subject, self.location) from None

    def _check_aggregated_field(self, subject: str, op: str, name: str) -> None:
        field = self.event.fields.get(name)
        if field is None:
            got, remedy = f"it has no field {name!r}", did_you_mean(name, self.event.fields)
        elif not field.type.numeric:
            got = f"field {name!r} is of type {field.type.value}"
            remedy = "count it with a filter, as in hr.count(where=hr.col('status') == 'late')"
            if field.type is FieldType.BOOLEAN:
                remedy = f"count it with a filter, as in hr.count(where=hr.col({name!r}))"
        else:
            return
        raise DefinitionError(
            required=f"hr.{op} takes an int64 or float64 field of event {self.event.name!r}",
            got=got,
            remedy=remedy,
            subject=subject,
            where=self.location,
        )


@dataclass(frozen=True, slots=True)
class Lookup:
    """The values of a view for the entity that a request names; made by ``view.lookup``.

    Attributes:
        view: the view.
        features: the names of the chosen features, in the view's order.
        alias: what stands before the feature names that models see.
        keys: entity key → request field; complete in ``model.lookups``, as written elsewhere.
        location: the user's line.
    """

    view: FeatureView
    features: tuple[str, ...]
    alias: str
    keys: Mapping[str, str]
    location: Location = dataclass_field(compare=False)

    def __getitem__(self, feature: str) -> LookupFeature:
        if feature not in self.view.feature_names:
            raise NotFound(f"feature of view {self.view.name!r} named", feature, self.view.feature_names)
        return LookupFeature(self, feature)

    def visible_name(self, feature: str) -> str:
        """What a model calls a feature: alias and name, joined by two underscores."""
        return f"{self.alias}__{feature}"

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The request fields that form the entity key, in the entity's order."""
        return tuple(self.keys[key] for key in self.view.entity.keys)


@dataclass(frozen=True, slots=True)
class LookupFeature:
    """One feature of a lookup, as an input of a model or of an on-demand transform."""

    lookup: Lookup
    feature: str


def _parsed_tile(tile: str | timedelta | Mapping[str, str | timedelta] | None) -> int | FrozenMap[int, int] | None:
    if tile is None:
        return None
    if isinstance(tile, Mapping):
        return FrozenMap({parse_us(window): parse_us(size) for window, size in tile.items()})
    return parse_us(tile)


@lru_cache(maxsize=1024)
def _layout_fingerprint(view: FeatureView) -> str:
    from headrace import layout  # it needs this module; and a view is declared without it

    fields = view.event.fields
    return digest(
        {
            "keys": [[fields[name].type.value, name] for name in view.key_fields],
            "event": [view.event.name, view.event.topic, view.event.time, view.event.id],
            "where": None if view.where is None else view.where.canonical(),
            "quanta": {name: fields[name].quantum for name in view.aggregated_fields},
            "layout": layout.describe(view),
            "tolerance_us": view.tolerance_us,
            "dedupe": view.dedupe,
            "lanes": view.lanes,
            "version": view.version,
        }
    )
