"""Models: what a prediction is made of, resolved once when the model is declared.

From a list of views, lookups, fields and transforms follow the lookups to read, the inputs in the order in which the ONNX graph
takes them, and the fields that a caller sends. What may not live here: values (``assembly``) and estimators' libraries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from headrace.errors import Location, caller
from headrace.events import Event, FieldRef
from headrace.fields import Field, FieldType
from headrace.fingerprints import canonical_function, digest
from headrace.frozen import Definition, FrozenMap
from headrace.labels import Label
from headrace.suggestions import did_you_mean
from headrace.transforms import OnDemand
from headrace.views import FeatureView, Lookup, LookupFeature

#: What may stand in a model's list of features.
ModelFeature: TypeAlias = FeatureView | Lookup | LookupFeature | FieldRef | OnDemand
Kind: TypeAlias = Literal["request", "feature", "transform"]
Dtype: TypeAlias = Literal["float", "string"]

_TASKS = ("binary", "regression")
_ON_UNAVAILABLE = ("error", "defaults")


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model's graph.

    Attributes:
        name: the request field's name, ``alias__feature``, or the transform's name.
        kind: where it comes from.
        dtype: ``"float"`` inputs form the numeric tensor, ``"string"`` ones the categorical.
    """

    name: str
    kind: Kind
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class RequestField:
    """One field that a caller of the model sends.

    Attributes:
        name: a field of the request event.
        field: type and contract; nullable where it may be left out, except the time.
        required: whether a request without it is refused. Without the time, the service's clock is taken.
    """

    name: str
    field: Field
    required: bool

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Model(Definition):
    """A prediction about a request event.

    Args:
        name: unique within the project; it names the endpoint.
        request: the event about which is asked; its fields are what a caller may send.
        features: views (all their features), lookups, single features (``view["n_1h"]``), request fields
            (``event["amount"]``) and on-demand transforms, in the order of the model's inputs.
        label: what is learnt.
        estimator: a function without arguments that gives an unfitted scikit-learn estimator.
        task: ``"binary"`` (predicts a probability) or ``"regression"``.
        fold_request: whether a prediction counts its own request event, as if it had arrived just before; only in lookups of
            views of the request event that are keyed by the same fields. It needs the event's id.
        on_unavailable: what happens when the online store does not answer: an ``"error"``, or ``"defaults"`` and a flag.
        description: for people.

    Raises:
        DefinitionError: names the rule that is broken, and what to write.
    """

    kind: ClassVar[str] = "model"

    name: str
    request: Event
    features: tuple[ModelFeature, ...]
    label: Label
    estimator: Callable[[], object]
    task: Literal["binary", "regression"]
    fold_request: bool
    on_unavailable: Literal["error", "defaults"]
    description: str
    location: Location
    #: What is read from the online store: unique by view and keys; features in each view's order.
    lookups: tuple[Lookup, ...]
    #: For each lookup, whether the request's own event is folded into it before it is read.
    folded: tuple[bool, ...]
    inputs: tuple[ModelInput, ...]
    transforms: tuple[OnDemand, ...]
    request_fields: tuple[RequestField, ...]

    def __init__(
        self,
        name: str,
        *,
        request: Event,
        features: Sequence[ModelFeature],
        label: Label,
        estimator: Callable[[], object],
        task: Literal["binary", "regression"],
        fold_request: bool = False,
        on_unavailable: Literal["error", "defaults"] = "error",
        description: str = "",
    ) -> None:
        self._set(name=name, request=request, features=tuple(features), label=label, estimator=estimator, task=task)
        self._set(fold_request=fold_request, on_unavailable=on_unavailable, description=description, location=caller())
        self._check_name()
        self._check_arguments()
        self._check_label()
        self._set(transforms=_unique(feature for feature in self.features if isinstance(feature, OnDemand)))
        self._set(lookups=tuple(self._resolved_lookups()))
        self._set(inputs=tuple(self._resolved_inputs()))
        self._check_input_names()
        self._set(folded=tuple(fold_request and self._is_own(lookup) for lookup in self.lookups))
        self._check_fold()
        self._set(request_fields=tuple(self._resolved_request_fields()))

    # --- fingerprints -----------------------------------------------------------------------------------------------

    @property
    def input_fingerprint(self) -> str:
        """Sixteen hex characters over how the inputs come about: what a bundle and the service that loads it must share."""
        return digest(self._canonical_inputs())

    @property
    def fingerprint(self) -> str:
        """Sixteen hex characters over the whole meaning: inputs, label, estimator and task."""
        return digest(self.canonical())

    def canonical(self) -> dict[str, object]:
        """Everything but the description."""
        return {
            "name": self.name,
            "inputs": self._canonical_inputs(),
            "label": self.label.canonical(),
            "estimator": canonical_function(self.estimator),
            "task": self.task,
            "on_unavailable": self.on_unavailable,
        }

    def lookup_of(self, lookup: Lookup) -> int:
        """The position in ``lookups`` of what a lookup of the declaration became."""
        keys = self._complete_keys(lookup)
        for i, found in enumerate(self.lookups):
            if found.view == lookup.view and found.keys == keys:
                return i
        raise KeyError(lookup.alias)

    def _canonical_inputs(self) -> dict[str, object]:
        fields = ((item.name, item.field) for item in self.request_fields)
        return {
            "request": self.request.name,
            "request_fields": [[name, field.type.value, field.nullable] for name, field in fields],
            "inputs": [[item.name, item.kind, item.dtype] for item in self.inputs],
            "lookups": [self._canonical_lookup(i) for i in range(len(self.lookups))],
            "transforms": [self._canonical_transform(transform) for transform in self.transforms],
        }

    def _canonical_lookup(self, i: int) -> dict[str, object]:
        lookup = self.lookups[i]
        nodes = {feature.name: feature.node.canonical() for feature in lookup.view.features}
        return {
            "view": lookup.view.name,
            "layout": lookup.view.layout_fingerprint,
            # Only what the model reads: a further feature of the view is no change of the model.
            "features": [[name, nodes[name]] for name in lookup.features],
            "keys": [list(pair) for pair in lookup.keys.items()],
            "folded": self.folded[i],
        }

    def _canonical_transform(self, transform: OnDemand) -> dict[str, object]:
        # Keys as they were resolved: whether they were written down or left to the default is no difference.
        inputs = {
            name: ["request", source.name]
            if isinstance(source, FieldRef)
            else ["lookup", self.lookup_of(source.lookup), source.feature]
            for name, source in transform.inputs.items()
        }
        return {**transform.canonical(), "inputs": inputs}

    # --- resolution -------------------------------------------------------------------------------------------------

    def _mentioned_lookups(self) -> Iterator[tuple[Lookup, bool]]:
        """Every lookup of the declaration, and whether its features are inputs by themselves."""
        for feature in self.features:
            if isinstance(feature, FeatureView):
                yield feature.lookup(), True
            elif isinstance(feature, Lookup):
                yield feature, True
            elif isinstance(feature, LookupFeature):
                yield dataclasses.replace(feature.lookup, features=(feature.feature,)), True
        for transform in self.transforms:
            # By name: the order in which inputs are written is no meaning.
            for _, source in sorted(transform.inputs.items()):
                if isinstance(source, LookupFeature):
                    yield dataclasses.replace(source.lookup, features=(source.feature,)), False

    def _resolved_lookups(self) -> Iterator[Lookup]:
        merged: dict[tuple[FeatureView, tuple[str, ...]], Lookup] = {}
        for lookup, names_inputs in self._mentioned_lookups():
            keys = self._complete_keys(lookup)
            group = (lookup.view, tuple(keys.values()))
            known = merged.get(group)
            if known is None:
                merged[group] = dataclasses.replace(lookup, keys=keys)
                continue
            if names_inputs and known.alias != lookup.alias:
                raise self.broken(
                    "one lookup of a view has one alias",
                    f"view {lookup.view.name!r} by {', '.join(keys.values())} has {known.alias!r} and {lookup.alias!r}",
                    "use one of them in both places",
                )
            wanted = {*known.features, *lookup.features}
            features = tuple(name for name in lookup.view.feature_names if name in wanted)
            merged[group] = dataclasses.replace(known, features=features)
        aliases: dict[str, Lookup] = {}
        for lookup in merged.values():
            if (other := aliases.setdefault(lookup.alias, lookup)) is not lookup:
                raise self.broken(
                    "two lookups have two names",
                    f"{lookup.alias!r} stands for view {other.view.name!r} by {', '.join(other.keys.values())}"
                    f" and for view {lookup.view.name!r} by {', '.join(lookup.keys.values())}",
                    f"give one an alias: {lookup.view.name}.lookup(…, alias='…')",
                )
        return iter(merged.values())

    def _complete_keys(self, lookup: Lookup) -> FrozenMap[str, str]:
        view = lookup.view
        own = view.event == self.request
        keys = {key: lookup.keys.get(key) or (view.keys[key] if own else key) for key in view.entity.keys}
        for key, name in keys.items():
            field = self.request.fields.get(name)
            if field is None:
                raise self.broken(
                    f"key {key!r} of view {view.name!r} comes from a field of request event {self.request.name!r}",
                    f"it has no field {name!r}",
                    f"write {view.name}.lookup({key}='…'); {did_you_mean(name, self.request.fields)}",
                )
            if field.type is not view.entity.keys[key].type:
                raise self.broken(
                    f"key {key!r} of view {view.name!r} and its request field are of one type",
                    f"the key is {view.entity.keys[key].type.value} and field {name!r} is {field.type.value}",
                    f"write {view.name}.lookup({key}='…') with another field",
                )
        return FrozenMap(keys)

    def _resolved_inputs(self) -> Iterator[ModelInput]:
        for feature in self.features:
            if isinstance(feature, FieldRef):
                yield self._request_input(feature)
            elif isinstance(feature, OnDemand):
                self._check_transform(feature)
                yield ModelInput(feature.name, "transform", "float")
            elif isinstance(feature, LookupFeature):
                yield ModelInput(self._alias(feature.lookup).visible_name(feature.feature), "feature", "float")
            else:
                lookup = feature.lookup() if isinstance(feature, FeatureView) else feature
                for name in lookup.features:
                    yield ModelInput(self._alias(lookup).visible_name(name), "feature", "float")

    def _alias(self, lookup: Lookup) -> Lookup:
        return self.lookups[self.lookup_of(lookup)]

    def _request_input(self, ref: FieldRef) -> ModelInput:
        self._check_field_ref(ref, "a model's request field")
        if ref.field.type is FieldType.TIMESTAMP:
            raise self.broken(
                "a model's inputs are numbers, booleans and texts",
                f"field {ref.name!r} is a timestamp",
                "derive a number from it in an on-demand transform, such as the hour of the day",
            )
        return ModelInput(ref.name, "request", "string" if ref.field.type is FieldType.STRING else "float")

    def _resolved_request_fields(self) -> Iterator[RequestField]:
        keys = {name for lookup in self.lookups for name in lookup.keys.values()}
        used = {feature.name for feature in self.features if isinstance(feature, FieldRef)}
        for transform in self.transforms:
            used |= {source.name for source in transform.inputs.values() if isinstance(source, FieldRef)}
        for lookup, folded in zip(self.lookups, self.folded, strict=True):
            if folded:
                used |= {*lookup.view.columns, str(self.request.id)}
        # Sent if known: predictions are logged with them, so that outcomes and duplicates can be found.
        optional = {*self.label.join, self.request.id}
        for name, field in self.request.fields.items():
            if name == self.request.time:
                yield RequestField(name, field, required=False)
            elif name in keys:
                yield RequestField(name, dataclasses.replace(field, nullable=False), required=True)
            elif name in used:
                yield RequestField(name, field, required=not field.nullable)
            elif name in optional:
                yield RequestField(name, dataclasses.replace(field, nullable=True), required=False)

    def _is_own(self, lookup: Lookup) -> bool:
        # Of a lookup by other fields (the destination in a view keyed by origin) the request is another entity's event.
        return lookup.view.event == self.request and lookup.keys == lookup.view.keys

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        if not isinstance(self.request, Event):
            raise self.broken("request is an hr.Event", f"request={self.request!r} was given", "pass the event")
        if not isinstance(self.label, Label):
            raise self.broken("label is an hr.Label", f"label={self.label!r} was given", "declare one and pass it")
        if not self.features:
            raise self.broken(
                "a model has at least one feature", "features is empty", "list views, fields or transforms"
            )
        for feature in self.features:
            if not isinstance(feature, FeatureView | Lookup | LookupFeature | FieldRef | OnDemand):
                raise self.broken(
                    "features lists views, lookups, request fields and on-demand transforms",
                    f"{feature!r} is in it",
                    "write view, view.lookup(…), view['feature'], event['field'] or the transform's name without quotes",
                )
        if not callable(self.estimator):
            raise self.broken(
                "estimator is a function that makes an unfitted estimator",
                f"{self.estimator!r} was given",
                "write estimator=lambda: HistGradientBoostingClassifier()",
            )
        for name, value, allowed in (
            ("task", self.task, _TASKS),
            ("on_unavailable", self.on_unavailable, _ON_UNAVAILABLE),
        ):
            if value not in allowed:
                written = " or ".join(repr(choice) for choice in allowed)
                raise self.broken(
                    f"{name} is {written}", f"{name}={value!r} was given", did_you_mean(str(value), allowed)
                )

    def _check_label(self) -> None:
        for name, outcome in self.label.join.items():
            field = self.request.fields.get(name)
            if field is None:
                raise self.broken(
                    f"label {self.label.name!r} joins on fields of request event {self.request.name!r}",
                    f"it has no field {name!r}",
                    did_you_mean(name, self.request.fields),
                )
            other = self.label.event.fields[outcome]
            if field.type is not other.type:
                raise self.broken(
                    f"label {self.label.name!r} joins fields of one type",
                    f"{name!r} is {field.type.value} and {outcome!r} of event {self.label.event.name!r} is {other.type.value}",
                    "join on other fields, or declare both alike",
                )

    def _check_field_ref(self, ref: FieldRef, what: str) -> None:
        if ref.event != self.request:
            raise self.broken(
                f"{what} belongs to the request event {self.request.name!r}",
                f"{ref.name!r} belongs to event {ref.event.name!r}",
                "declare a feature view over that event and look it up",
            )

    def _check_transform(self, transform: OnDemand) -> None:
        for name, source in transform.inputs.items():
            if isinstance(source, FieldRef):
                self._check_field_ref(source, f"input {name!r} of on-demand transform {transform.name!r}")

    def _check_input_names(self) -> None:
        names = [item.name for item in self.inputs]
        for name in names:
            if names.count(name) > 1:
                raise self.broken(
                    "the inputs of a model have different names", f"{name!r} comes twice", "list it once, or rename one"
                )

    def _check_fold(self) -> None:
        if not self.fold_request:
            return
        if self.request.id is None:
            raise self.broken(
                "fold_request=True needs the id of the request event, so that it counts once when it also arrives",
                f"event {self.request.name!r} declares none",
                f"declare hr.Event({self.request.name!r}, …, id='…')",
            )
        if not any(self.folded):
            raise self.broken(
                "fold_request=True counts the request in views of its own event, keyed by the same fields",
                "the model looks up none",
                "leave fold_request out, or add such a view",
            )
        for lookup, folded in zip(self.lookups, self.folded, strict=True):
            if folded and lookup.view.dedupe == 0:
                raise self.broken(
                    "fold_request=True needs views that remember event ids, so that a request counts once when it also arrives",
                    f"view {lookup.view.name!r} has dedupe=0",
                    "raise its dedupe, or leave fold_request out",
                )


def _unique(transforms: Iterator[OnDemand]) -> tuple[OnDemand, ...]:
    return tuple(dict.fromkeys(transforms))
