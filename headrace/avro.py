"""Avro schemas and fields, in both directions.

    hr.string()     "string"                                     "string", "enum", {"type": "string"}
    hr.int64()      "long"                                       "long", "int"
    hr.float64()    "double"                                     "double", "float"
    hr.boolean()    "boolean"                                    "boolean"
    hr.timestamp()  long with logicalType timestamp-micros       the same
    nullable        ["null", T], default null                    a union of null and one type

The middle column is what a declaration generates, the right one what an ``.avsc`` file may hold. What may not live here:
encoding and decoding.
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
from headrace.suggestions import did_you_mean

_AVRO: dict[FieldType, object] = {
    FieldType.STRING: "string",
    FieldType.INT64: "long",
    FieldType.FLOAT64: "double",
    FieldType.BOOLEAN: "boolean",
    FieldType.TIMESTAMP: {"type": "long", "logicalType": "timestamp-micros"},
}
_FIELDS: dict[str, Field] = {
    "string": string(),
    "long": int64(),
    "int": int64(),
    "double": float64(),
    "float": float64(),
    "boolean": boolean(),
}
_REMEDY = "use string, long, int, double, float, boolean, enum, timestamp-micros, or a union of null and one of them"


def record_schema(name: str, fields: Mapping[str, Field], description: str = "") -> dict[str, object]:
    """The Avro record of some fields.

    >>> record_schema("paid", {"card": string(), "amount": float64(nullable=True)})["fields"]
    [{'name': 'card', 'type': 'string'}, {'name': 'amount', 'type': ['null', 'double'], 'default': None}]
    """
    doc = {"doc": description} if description else {}
    return {"type": "record", "name": name, **doc, "fields": [_avro_field(key, field) for key, field in fields.items()]}


def _avro_field(name: str, field: Field) -> dict[str, object]:
    avro_type = _AVRO[field.type]
    entry: dict[str, object] = {"name": name, "type": ["null", avro_type] if field.nullable else avro_type}
    if field.fallback is not REQUIRED:
        entry["default"] = field.fallback
    if field.aliases:
        entry["aliases"] = list(field.aliases)
    if field.description:
        entry["doc"] = field.description
    return entry


def load_schema(schema: str | PathLike[str] | Mapping[str, object], where: Location) -> dict[str, object]:
    """A record schema from an ``.avsc`` file, relative to the file that names it, or from the schema itself.

    Raises:
        DefinitionError: the file cannot be read, or does not hold a record.
    """
    if isinstance(schema, Mapping):
        loaded: object = dict(schema)
    else:
        path = Path(where.file).parent / schema
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DefinitionError(
                required="an Avro schema is a readable JSON file",
                got=f"{path}: {error}",
                remedy="give its path relative to the file that declares the event",
            ) from None
    if not isinstance(loaded, dict) or loaded.get("type") != "record" or not isinstance(loaded.get("fields"), list):
        raise DefinitionError(
            required="the schema of an event is an Avro record",
            got=f"it is {loaded.get('type') if isinstance(loaded, dict) else type(loaded).__name__!r}",
            remedy='write {"type": "record", "name": …, "fields": […]}',
        )
    return loaded


def fields_of(record: Mapping[str, object], declared: Mapping[str, Field]) -> dict[str, Field]:
    """The fields of an Avro record; declared ones replace those of the same name, type and nullability.

    >>> sorted(fields_of({"fields": [{"name": "n", "type": ["null", "int"]}, {"name": "s", "type": "string"}]}, {}))
    ['n', 's']
    """
    entries = record["fields"]
    assert isinstance(entries, list)
    fields = {entry["name"]: _field_of(entry) for entry in entries}
    for name, field in declared.items():
        if name not in fields:
            raise DefinitionError(
                required="fields= refines fields of the schema",
                got=f"it has no field {name!r}",
                remedy=did_you_mean(name, fields),
            )
        found = fields[name]
        if (found.type, found.nullable) != (field.type, field.nullable):
            raise DefinitionError(
                required="fields= keeps the type and the nullability of the schema",
                got=f"field {name!r} is {_spelling(field)} there and {_spelling(found)} in the schema",
                remedy=f"declare it by {_spelling(found)} and its bounds",
            )
        fields[name] = field
    return fields


def _field_of(entry: Mapping[str, Any]) -> Field:
    name, avro_type = entry["name"], entry["type"]
    shared = {"description": entry.get("doc", ""), "aliases": tuple(entry.get("aliases", ()))}
    if "default" in entry:
        shared["default"] = entry["default"]
    nullable = isinstance(avro_type, list) and "null" in avro_type
    if nullable:
        shared.pop("default", None)  # such a field is null in older records, in the log as well
    if isinstance(avro_type, list):
        others = [member for member in avro_type if member != "null"]
        avro_type = others[0] if len(others) == 1 else avro_type
    logical = avro_type.get("logicalType") if isinstance(avro_type, dict) else None
    base = avro_type.get("type") if isinstance(avro_type, dict) else avro_type
    if logical == "timestamp-micros" and base == "long":
        return dataclasses.replace(timestamp(), nullable=nullable, **shared)
    if base == "enum" and isinstance(avro_type, dict):
        return dataclasses.replace(string(one_of=avro_type["symbols"]), nullable=nullable, **shared)
    if logical is None and isinstance(base, str) and base in _FIELDS:
        return dataclasses.replace(_FIELDS[base], nullable=nullable, **shared)
    raise DefinitionError(
        required="every field of the schema has a type that the platform knows",
        got=f"field {name!r} is {json.dumps(avro_type)}",
        remedy=_REMEDY,
    )


def _spelling(field: Field) -> str:
    return f"hr.{field.type.value}({'nullable=True' if field.nullable else ''})"
