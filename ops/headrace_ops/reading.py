"""Features of one entity, read as serving reads them: for people at a command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import headrace as hr
from headrace.errors import ContractError
from headrace.fields import FieldType
from headrace_schemas.keys import encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import online


@dataclass(frozen=True, slots=True)
class EntityFeatures:
    """The features of an entity.

    Attributes:
        view: the view's name.
        keys: the entity.
        at_us: the moment of reading.
        found: whether there is a state; if not, the values are those of an entity without events.
        newest_us: time of its newest event.
        values: by feature; None is null.
    """

    view: str
    keys: Mapping[str, object]
    at_us: int
    found: bool
    newest_us: int | None
    values: Mapping[str, float | None]

    @property
    def title(self) -> str:
        """One line about the entity."""
        entity = ", ".join(f"{name} {value}" for name, value in self.keys.items())
        if not self.found:
            return f"{self.view} of {entity}: no events yet"
        return f"{self.view} of {entity} at {_iso(self.at_us)}; its newest event is of {_iso(self.newest_us)}"

    def to_json(self) -> dict[str, object]:
        """The features as JSON-able data."""
        newest = None if self.newest_us is None else _iso(self.newest_us)
        return {
            "view": self.view,
            "keys": dict(self.keys),
            "at": _iso(self.at_us),
            "found": self.found,
            "newest_event": newest,
            "features": dict(self.values),
        }


def read_features(
    loaded: LoadedProject, view: hr.FeatureView, keys: Mapping[str, object], at_us: int
) -> EntityFeatures:
    """Read the state of an entity and finish its features at a moment.

    Args:
        loaded: the project.
        view: one of its views.
        keys: a value for each key of the view's entity.
        at_us: the moment, in microseconds.

    Raises:
        ContractError: a key is of the wrong type.
        ServiceUnavailable: Redis does not answer.
    """
    from headrace import kernel

    key = encode_key([_key(view, name, keys[name]) for name in view.entity.keys])
    client = online.connect(loaded.settings.redis)
    try:
        reader = online.OnlineReader(client, loaded.settings.namespace)
        state = reader.states(view, [key])[0]
        values = reader.features(view, [key], at_us)[0]
    finally:
        client.close()
    return EntityFeatures(
        view=view.name,
        keys=keys,
        at_us=at_us,
        found=bool(state),
        newest_us=kernel.header(state).newest_us if state else None,
        values={
            name: None if math.isnan(value) else float(value)
            for name, value in zip(view.feature_names, values, strict=True)
        },
    )


def _key(view: hr.FeatureView, name: str, value: object) -> str | int:
    wanted = view.entity.keys[name].type
    if wanted is FieldType.STRING:
        if isinstance(value, str):
            return value
        # 0123 or true on a command line read as JSON; as a string they are what was typed.
        raise ContractError(name, "a string; quote it as '\"…\"'", repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ContractError(name, "a whole number", repr(value))


def _iso(us: int | None) -> str:
    return "–" if us is None else datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z")
