"""Avro events: datums of one record schema, to columns and from records.

Decoding is columnar and strict (``compiled/avro.py``): each datum is read inside its own bytes and has to end where they end, so
one malformed datum never disturbs another, whatever it holds. fastavro is the encoder and, in the tests, the reference.
What may not live here: contracts beyond the schema (``contracts.py``), framing, topics.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.errors import CodecError
from headrace_schemas.columns import Columnar, Fault, frame_of, join_values

_TYPES = {"long": 0, "int": 0, "double": 1, "float": 2, "boolean": 3, "string": 4, "enum": 5}
_STRING, _ENUM = 4, 5
_ENUM_INDEX = pl.Int64()
_FRAME_TYPES = (pl.Int64(), pl.Float64(), pl.Float64(), pl.Boolean(), pl.String(), _ENUM_INDEX)

_REASONS = {
    1: "the datum ends inside it",
    2: "{left} bytes are left behind the last field",
    3: "its variable-length number has more than 64 bits",
    4: "its union has no such branch",
    5: "a boolean is the byte 0 or 1",
    6: "its length is negative",
    7: "the enum has no such symbol",
    8: "its text is not UTF-8",
}
_BYTES_LEFT = 2


@dataclass(frozen=True, slots=True)
class _Plan:
    """A record schema as the kernel's tables, and per field what its column needs."""

    names: tuple[str, ...]
    types: npt.NDArray[np.uint8]
    null_branch: npt.NDArray[np.int8]
    extra: npt.NDArray[np.int64]
    symbols: Mapping[str, pl.Series]
    texts: int


class AvroDecoder:
    """Datums of one record schema to a frame.

    Args:
        schema: a record of string, enum, long, int, double, float and boolean fields, with or without logical types, or of
            unions of null and one of them. Times stay whole numbers of the unit that the schema names.

    Raises:
        CodecError: a field has another type.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._what = f"Avro record {schema['name']!r}"
        self._plan = _plan(schema, self._what)

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good datums in their order, their rows, and what is wrong with the others."""
        from headrace_schemas.compiled.avro import decode

        plan, count = self._plan, len(values)
        body, offsets = join_values(values)
        fields = len(plan.names)
        numbers = np.empty((fields, count), np.int64)
        valid = np.empty((fields, count), np.uint8)
        views = np.empty((plan.texts, count, 16), np.uint8)
        row_of = np.empty(count, np.int64)
        status = np.empty(count, np.uint8)
        status_field = np.zeros(count, np.int16)
        status_at = np.zeros(count, np.int64)
        good = decode(
            body,
            offsets,
            plan.types,
            plan.null_branch,
            plan.extra,
            numbers,
            valid,
            views,
            row_of,
            status,
            status_field,
            status_at,
        )
        frame = frame_of(
            plan.names,
            [_FRAME_TYPES[kind] for kind in plan.types],
            [numbers[i, :good] for i in range(fields)],
            [valid[i, :good] for i in range(fields)],
            [views[plan.extra[i], :good] if kind == _STRING else None for i, kind in enumerate(plan.types)],
            [branch >= 0 for branch in plan.null_branch],
            body,
        )
        if plan.symbols:
            frame = frame.with_columns(table.gather(frame[name]).alias(name) for name, table in plan.symbols.items())
        faults = [
            Fault(
                int(row), self._reason(int(status[row]), int(status_field[row]), int(status_at[row]), len(values[row]))
            )
            for row in np.flatnonzero(status).tolist()
        ]
        return Columnar(frame=frame, rows=row_of[:good], faults=faults)

    def _reason(self, status: int, field: int, at: int, length: int) -> str:
        if status == _BYTES_LEFT:
            return f"{self._what}: " + _REASONS[status].format(left=length - at)
        return f"{self._what}, field {self._plan.names[field]!r} at byte {at} of {length}: {_REASONS[status]}"


class AvroEncoder:
    """Records to datums of one record schema.

    Args:
        schema: the record schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._what = f"Avro record {schema['name']!r}"
        # Without logical types: times are whole numbers here, and fastavro's conversions would cost ten times the encoding.
        self._schema = fastavro.parse_schema(physical(schema))

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """The datum of a record.

        Raises:
            CodecError: a value does not fit its field.
        """
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._schema, record, strict_allow_default=True)
        except Exception as error:  # noqa: BLE001  (fastavro raises whatever the values lead it to)
            raise CodecError(
                self._what, f"the record does not fit the schema ({type(error).__name__}: {error})"
            ) from None
        return out.getvalue()


def _plan(schema: Mapping[str, Any], what: str) -> _Plan:
    names, types, branches, extra = [], [], [], []
    symbols: dict[str, pl.Series] = {}
    texts = 0
    for field in schema["fields"]:
        null_branch, inner = _branch(field["type"])
        base = inner["type"] if isinstance(inner, Mapping) else inner
        if not isinstance(base, str) or base not in _TYPES:
            raise CodecError(
                what,
                f"field {field['name']!r} must be a string, enum, long, int, double, float or boolean, or a union of null and "
                f"one of them, but it is {inner!r}; change the schema",
            )
        kind = _TYPES[base]
        names.append(field["name"])
        types.append(kind)
        branches.append(null_branch)
        if kind == _ENUM:
            symbols[field["name"]] = pl.Series(inner["symbols"], dtype=pl.String())
        extra.append(texts if kind == _STRING else len(symbols.get(field["name"], ())))
        texts += kind == _STRING
    return _Plan(
        names=tuple(names),
        types=np.array(types, np.uint8),
        null_branch=np.array(branches, np.int8),
        extra=np.array(extra, np.int64),
        symbols=symbols,
        texts=texts,
    )


def _branch(avro_type: Any) -> tuple[int, Any]:
    """Which branch of a type is null, −1 where it is no union, and the type of the other."""
    if isinstance(avro_type, list) and len(avro_type) == 2 and "null" in avro_type:
        null_branch = avro_type.index("null")
        return null_branch, avro_type[1 - null_branch]
    return -1, avro_type


def physical(avro_type: Any) -> Any:
    """A schema without its logical types."""
    if isinstance(avro_type, list):
        return [physical(branch) for branch in avro_type]
    if isinstance(avro_type, Mapping):
        kept = {name: part for name, part in avro_type.items() if name not in ("logicalType", "fields")}
        if "fields" in avro_type:
            kept["fields"] = [{**field, "type": physical(field["type"])} for field in avro_type["fields"]]
        return kept
    return avro_type
