"""Records of another schema than the event's own: decoded as they were written, then taken over field by field.

A writer's schema of plain fields goes through the same compiled reader as the event's own; any other one, with nested records, arrays,
maps, bytes or wide unions, goes through fastavro, record by record. What may not live here: the rules (``resolution.py``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro
import numpy as np
import polars as pl

import headrace as hr
from headrace.errors import CodecError
from headrace_schemas.avro import AvroDecoder, physical
from headrace_schemas.columns import Columnar, Fault
from headrace_schemas.framing import Decoder, WriterSchema
from headrace_schemas.resolution import Origin, Wanted, resolve, wanted_by
from headrace_schemas.tables import frame_fields

_INT64 = range(-(2**63), 2**63)


class EvolvedDecoder:
    """Datums of a writer's schema to a frame of an event's fields.

    Args:
        event: the event.
        writer: the schema by which the datums were written.

    Raises:
        CodecError: the writer's records cannot be read as the event.
    """

    def __init__(self, event: hr.Event, writer: WriterSchema) -> None:
        record = writer.record()
        found = resolve(record, wanted_by(event))
        if found.problems:
            raise CodecError(
                f"event {event.name!r}", f"records of this schema cannot be read: {'; '.join(found.problems)}"
            )
        self._names = list(event.fields)
        dtypes = frame_fields(event)
        defaults = _enum_defaults(event)
        self._taken = [_taken(origin, dtypes[origin.field.name], defaults) for origin in found.origins]
        self._decoder: Decoder
        try:
            self._decoder = AvroDecoder(record)
        except CodecError:
            self._decoder = _NestedDecoder(record, writer.references, found.origins)

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good datums in their order, their rows, and what is wrong with the others."""
        decoded = self._decoder.decode(values)
        decoded.frame = decoded.frame.with_columns(self._taken).select(self._names)
        return decoded


def _taken(origin: Origin, dtype: pl.DataType, enum_defaults: Mapping[str, tuple[list[str], str]]) -> pl.Expr:
    name = origin.field.name
    if origin.source is None:
        return pl.lit(origin.field.default, dtype=dtype).alias(name)
    column = pl.col(origin.source)
    if origin.scale > 1:
        # A time beyond what microseconds can say becomes the last one that they can, which breaks the contract.
        most = 2**63 // origin.scale - 1
        column = column.clip(-most, most) * origin.scale
    elif origin.scale < 0:
        column = column.floordiv(-origin.scale)
    if name in enum_defaults:
        symbols, default = enum_defaults[name]
        column = pl.when(column.is_null() | column.is_in(symbols)).then(column).otherwise(pl.lit(default))
    return column.cast(dtype).alias(name)


def _enum_defaults(event: hr.Event) -> dict[str, tuple[list[str], str]]:
    """By field that is an enum with a default: its symbols, and what an unknown one becomes."""
    found = {}
    entries: Any = event.avro_schema["fields"]
    for entry in entries:
        branches = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
        for branch in branches:
            if isinstance(branch, Mapping) and branch.get("type") == "enum" and "default" in branch:
                found[entry["name"]] = (list(branch["symbols"]), branch["default"])
    return found


class _NestedDecoder:
    """Datums of any record schema, one by one, to a frame of the fields that are wanted of them."""

    def __init__(self, record: Mapping[str, Any], references: Sequence[str], origins: Sequence[Origin]) -> None:
        self._what = f"Avro record {record['name']!r}"
        named: dict[str, Any] = {}
        try:
            for text in references:
                fastavro.parse_schema(physical(json.loads(text)), named_schemas=named)
            self._schema = fastavro.parse_schema(physical(record), named_schemas=named)
        except Exception as error:  # noqa: BLE001  (fastavro raises whatever the schema leads it to)
            raise CodecError(self._what, f"its schema cannot be read ({type(error).__name__}: {error})") from None
        self._columns = {origin.source: _READERS[origin.field.base] for origin in origins if origin.source is not None}

    def decode(self, values: Sequence[bytes]) -> Columnar:
        columns: dict[str, list[object]] = {name: [] for name in self._columns}
        rows, faults = [], []
        for row, value in enumerate(values):
            try:
                read = self._read(value)
            except Exception as error:  # noqa: BLE001  (malformed bytes lead fastavro to anything)
                faults.append(Fault(row, f"{self._what}: {str(error) or type(error).__name__}"))
                continue
            rows.append(row)
            for name, cell in read.items():
                columns[name].append(cell)
        series = [pl.Series(name, columns[name], dtype=dtype) for name, (dtype, _) in self._columns.items()]
        return Columnar(pl.DataFrame(series), np.array(rows, np.int64), faults)

    def _read(self, value: bytes) -> dict[str, object]:
        source = io.BytesIO(value)
        record: Any = fastavro.schemaless_reader(source, self._schema, None)
        left = len(value) - source.tell()
        if left:
            raise ValueError(f"{left} bytes are left behind the last field")
        return {
            name: None if record[name] is None else read(name, record[name])
            for name, (_, read) in self._columns.items()
        }


def _text(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"field {name!r} is no text")
    return value


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise TypeError(f"field {name!r} is no long")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"field {name!r} is no number")
    return float(value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"field {name!r} is neither true nor false")
    return value


_READERS: Mapping[str, tuple[pl.DataType, Callable[[str, object], Any]]] = {
    "string": (pl.String(), _text),
    "long": (pl.Int64(), _whole),
    "double": (pl.Float64(), _number),
    "boolean": (pl.Boolean(), _truth),
}


def unreadable(event: hr.Event, writer: WriterSchema) -> list[str]:
    """Why records of a schema could not be read as an event; empty if they can."""
    try:
        return list(resolve(writer.record(), wanted_by(event)).problems)
    except CodecError as error:
        return [error.reason]


def unreadable_elsewhere(event: hr.Event, reader: Sequence[Wanted]) -> list[str]:
    """Why readers of another schema could not read records of an event; empty if they can."""
    return list(resolve(event.avro_schema, reader).problems)
