"""Avro schema resolution: how records of a writer's schema become rows of an event, or why they cannot.

    name, else an alias   a field is looked for under its name, then under the names that it had
    promotion             int → long, int and long and float → double, string ⇄ bytes, an enum's symbol → text
    default               a field that the writer does not know gets the event's default
    what is left over     fields that the event does not declare are passed over, whatever their type

As the Avro specification says, with two additions. Times are converted between milli-, micro- and nanoseconds, where the
specification would take one for the other; and an enum is a text, whose symbols are judged by the event's contract (an enum's
own default included). Names of records do not count. What may not live here: bytes, registries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import headrace as hr
from headrace.fields import REQUIRED, Default, FieldType

MICROS = "timestamp-micros"
_PER_MICRO = {"timestamp-millis": 1_000, MICROS: 1, "timestamp-nanos": -1_000}
_TAKEN_AS = {
    "int": ("int", "long", "float", "double"),
    "long": ("long", "float", "double"),
    "float": ("float", "double"),
    "double": ("double",),
    "boolean": ("boolean",),
    "string": ("string", "bytes", "enum"),
    "bytes": ("string", "bytes"),
    "enum": ("enum", "string"),
}
_BASES = {
    FieldType.STRING: "string",
    FieldType.INT64: "long",
    FieldType.FLOAT64: "double",
    FieldType.BOOLEAN: "boolean",
    FieldType.TIMESTAMP: "long",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A field as its reader declares it.

    Args:
        name: its name.
        base: its Avro type.
        time: whether it is a moment.
        nullable: whether it may be null.
        aliases: names that it had.
        default: what it is where the writer does not know it.
    """

    name: str
    base: str
    time: bool
    nullable: bool
    aliases: tuple[str, ...]
    default: Default


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a field of the reader comes from.

    Args:
        field: the reader's field.
        source: the writer's field, or None for the default.
        scale: microseconds of the writer's unit; below zero, how many of its units make a microsecond.
    """

    field: Wanted
    source: str | None
    scale: int = 1


@dataclass(frozen=True, slots=True)
class Resolution:
    """How records of one schema become rows of another.

    Args:
        origins: of each field of the reader, as far as it can be had.
        problems: why the others cannot.
    """

    origins: tuple[Origin, ...]
    problems: tuple[str, ...]


def wanted_by(event: hr.Event) -> tuple[Wanted, ...]:
    """The fields of an event as a reader wants them."""
    return tuple(
        Wanted(
            name, _BASES[field.type], field.type is FieldType.TIMESTAMP, field.nullable, field.aliases, field.fallback
        )
        for name, field in event.fields.items()
    )


def wanted_by_schema(record: Mapping[str, Any]) -> tuple[Wanted, ...]:
    """The fields of a record schema as its readers want them; those of types that no event has are left out."""
    found = []
    for entry in record["fields"]:
        branches = [branch for branch in _branches(entry["type"]) if branch != "null"]
        base = _base(branches[0]) if len(branches) == 1 else None
        if base in _TAKEN_AS:
            default = entry.get("default", REQUIRED)
            time = _logical(branches[0]) in _PER_MICRO
            nullable = "null" in _branches(entry["type"])
            found.append(Wanted(entry["name"], base, time, nullable, tuple(entry.get("aliases", ())), default))
    return tuple(found)


def resolve(writer: Mapping[str, Any], reader: Iterable[Wanted]) -> Resolution:
    """How records of a writer's schema are read.

    Args:
        writer: its record schema.
        reader: what is wanted of it.
    """
    types = dict(_named(writer))
    there = {entry["name"]: entry["type"] for entry in writer["fields"]}
    origins, problems = [], []
    for field in reader:
        source = next((name for name in (field.name, *field.aliases) if name in there), None)
        if source is None:
            if field.default is REQUIRED:
                known = f" (nor as {', '.join(field.aliases)})" if field.aliases else ""
                problems.append(f"field {field.name!r} is not in it{known} and has no default")
            else:
                origins.append(Origin(field, None))
            continue
        scale = _scale(field, [types.get(b, b) if isinstance(b, str) else b for b in _branches(there[source])])
        if isinstance(scale, str):
            problems.append(f"field {source!r} {scale}")
        else:
            origins.append(Origin(field, source, scale))
    if not problems and all(origin.source is None for origin in origins):
        problems.append("it has none of the fields")
    return Resolution(tuple(origins), tuple(problems))


def _scale(field: Wanted, branches: list[Any]) -> int | str:
    """The unit of a writer's field, or why the reader cannot take it."""
    values = [branch for branch in branches if branch != "null"]
    fitting = [branch for branch in values if field.base in _TAKEN_AS.get(str(_base(branch)), ())]
    wanted = f"a {field.base}" if not field.time else "a timestamp"
    if not fitting:
        return f"is {' or '.join(_told(branch) for branch in values) or 'null'}, which cannot be read as {wanted}"
    scales = set()
    for branch in fitting:
        logical = _logical(branch)
        if logical in ("decimal", "duration") or (field.time and logical is not None and logical not in _PER_MICRO):
            return f"is {_told(branch)}, which cannot be read as {wanted}"
        scales.add(_PER_MICRO.get(logical, 1) if field.time and logical else 1)
    if len(scales) > 1:
        return f"has times of several units ({', '.join(_told(branch) for branch in fitting)})"
    return scales.pop()


def _branches(avro_type: Any) -> list[Any]:
    return avro_type if isinstance(avro_type, list) else [avro_type]


def _base(branch: Any) -> Any:
    """The type behind annotations: ``{"type": "long", "logicalType": …}`` is a long."""
    while isinstance(branch, Mapping) and branch["type"] not in ("record", "array", "map", "fixed", "enum"):
        branch = branch["type"]
    return branch["type"] if isinstance(branch, Mapping) else branch


def _logical(branch: Any) -> str | None:
    return branch.get("logicalType") if isinstance(branch, Mapping) else None


def _told(branch: Any) -> str:
    logical = _logical(branch)
    return f"{_base(branch)} ({logical})" if logical else str(_base(branch))


def _named(avro_type: Any, space: str = "") -> Iterator[tuple[str, Any]]:
    """The types that have a name in a schema, under their short and their full names."""
    if isinstance(avro_type, list):
        for branch in avro_type:
            yield from _named(branch, space)
    elif isinstance(avro_type, Mapping):
        if "name" in avro_type:
            space = avro_type.get("namespace", space)
            yield avro_type["name"], avro_type
            yield f"{space}.{avro_type['name']}", avro_type
        for part in ("items", "values", "type"):
            if not isinstance(avro_type.get(part), str | None):
                yield from _named(avro_type[part], space)
        for entry in avro_type.get("fields", ()):
            yield from _named(entry["type"], space)
