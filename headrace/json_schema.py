"""JSON Schemas and fields, in both directions.

    string                      hr.string(); with ``enum`` its choices, with format date-time hr.timestamp()
    integer, number             hr.int64(), hr.float64(), with minimum and maximum
    boolean                     hr.boolean()
    not required, or "null"     nullable
    object, array, other        no field: validated, and passed over

What may not live here: validating records.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from headrace.errors import DefinitionError, Location
from headrace.fields import REQUIRED, Field, FieldType, boolean, float64, int64, string, timestamp

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES: Mapping[FieldType, Mapping[str, object]] = {
    FieldType.STRING: {"type": "string"},
    FieldType.INT64: {"type": "integer"},
    FieldType.FLOAT64: {"type": "number"},
    FieldType.BOOLEAN: {"type": "boolean"},
    FieldType.TIMESTAMP: {"type": "string", "format": "date-time"},
}


def object_schema(name: str, fields: Mapping[str, Field]) -> dict[str, object]:
    """The JSON Schema of some fields.

    >>> object_schema("paid", {"amount": float64(ge=0)})["properties"]
    {'amount': {'type': 'number', 'minimum': 0}}
    """
    return {
        "$schema": _DIALECT,
        "title": name,
        "type": "object",
        "properties": {key: _property(field) for key, field in fields.items()},
        "required": [key for key, field in fields.items() if not field.nullable],
    }


def _property(field: Field) -> dict[str, object]:
    found = dict(_TYPES[field.type])
    if field.nullable:
        found["type"] = [found["type"], "null"]
    bounds = {"minimum": field.ge, "maximum": field.le}
    choices = None if field.one_of is None else [*field.one_of, *([None] if field.nullable else [])]
    extra = {**bounds, "enum": choices, "description": field.description or None}
    return found | {key: value for key, value in extra.items() if value is not None}


def load_schema(schema: str | PathLike[str] | Mapping[str, object], where: Location) -> dict[str, Any]:
    """A JSON Schema of objects from a file, relative to the file that names it, or from the schema itself.

    Raises:
        DefinitionError: the file cannot be read, or the schema is not one of an object with properties.
    """
    if isinstance(schema, Mapping):
        loaded: object = dict(schema)
    else:
        path = Path(where.file).parent / schema
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DefinitionError(
                required="a JSON Schema is a readable JSON file",
                got=f"{path}: {error}",
                remedy="give its path relative to the file that declares the event",
            ) from None
    if not isinstance(loaded, dict) or not isinstance(loaded.get("properties"), dict):
        raise DefinitionError(
            required="the schema of an event is a JSON Schema of an object with properties",
            got=f"it is {str(loaded)[:60]}",
            remedy='write {"type": "object", "properties": {…}, "required": […]}',
        )
    return loaded


def fields_of(schema: Mapping[str, Any], declared: Mapping[str, Field]) -> dict[str, Field]:
    """The fields of the plain properties of a JSON Schema; declared ones come in their place or beside them.

    >>> list(fields_of({"properties": {"card": {"type": "string"}, "items": {"type": "array"}}}, {}))
    ['card']
    """
    required = set(schema.get("required", ()))
    found = {name: _field_of(part, required=name in required) for name, part in schema["properties"].items()}
    fields = {name: field for name, field in found.items() if field is not None}
    unknown = [name for name in declared if name not in found]
    if unknown:
        raise DefinitionError(
            required="fields= refines properties of the schema",
            got=f"it has no property {unknown[0]!r}",
            remedy=f"name one of {', '.join(found)}",
        )
    return fields | dict(declared)


def _field_of(part: object, *, required: bool) -> Field | None:
    """The field of a property; None for one that is no plain value."""
    if not isinstance(part, Mapping):
        return None  # true and false are schemas too
    listed = part.get("type")
    types = listed if isinstance(listed, list) else [listed]
    plain = [name for name in types if name != "null"]
    shared: dict[str, Any] = {
        "nullable": not required or "null" in types,
        "description": str(part.get("description", "")),
        "default": part.get("default", REQUIRED),
    }
    low, high, choices = part.get("minimum"), part.get("maximum"), part.get("enum")
    if plain == ["string"] and part.get("format") == "date-time":
        return timestamp(nullable=shared["nullable"], description=shared["description"])
    if plain == ["string"]:
        return string(one_of=[c for c in choices if c is not None] if choices else None, **shared)
    if plain == ["integer"]:
        return int64(ge=low, le=high, **shared)
    if plain == ["number"]:
        return float64(ge=low, le=high, **shared)
    return dataclasses.replace(boolean(), **shared) if plain == ["boolean"] else None
