"""Entities: what features describe, named by one or more key columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from headrace.errors import Location, caller
from headrace.fields import Field, FieldType
from headrace.frozen import Definition, FrozenMap, check_name, is_a

#: Keyword arguments of ``FeatureView.lookup``; a key of this name could not be given there.
_RESERVED_KEYS = frozenset({"alias", "self"})


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Entity(Definition):
    """What features describe: a card, an airport, a pair of airports.

    Args:
        name: unique within the project.
        keys: name and type of each key column, in the order in which they form the key; string or int64, never null.
        description: for people.

    Raises:
        DefinitionError: a key has another type, may be null, or there is none.

    >>> import headrace as hr
    >>> route = hr.Entity("route", keys={"origin": hr.string(), "dest": hr.string()})
    >>> list(route.keys)
    ['origin', 'dest']
    """

    kind: ClassVar[str] = "entity"

    name: str
    keys: Mapping[str, Field]
    description: str
    location: Location

    def __init__(self, name: str, keys: Mapping[str, Field], *, description: str = "") -> None:
        self._set(name=name, keys=FrozenMap(keys), description=description, location=caller())
        self._check_name()
        if not keys:
            raise self.broken("an entity has at least one key", "keys is empty", 'write keys={"airport": hr.string()}')
        for key, field in keys.items():
            self._check_key(key, field)

    def _check_key(self, key: str, field: Field) -> None:
        check_name(key, f"key {key!r} of {self.subject}", self.location)
        if key in _RESERVED_KEYS:
            raise self.broken("a key can be named in lookup(…)", f"{key!r} is taken there", "rename the key")
        if not is_a(field, Field) or field.type not in (FieldType.STRING, FieldType.INT64):
            got = field.type.value if is_a(field, Field) else repr(field)
            raise self.broken(
                "a key is hr.string() or hr.int64()", f"key {key!r} is {got}", "declare one of these types"
            )
        if field.nullable:
            raise self.broken(
                "a key always has a value",
                f"key {key!r} is nullable",
                "leave nullable=True out; an event whose key is null becomes a dead letter",
            )

    def canonical(self) -> dict[str, object]:
        """Name, keys in order, and their types; a key's other constraints belong to the events."""
        return {"name": self.name, "keys": [[key, field.type.value] for key, field in self.keys.items()]}
