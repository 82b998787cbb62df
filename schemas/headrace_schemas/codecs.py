"""Events to bytes and back: the one place where a record on a topic becomes rows, and where it is judged.

Every reader of a topic (the feature pipeline, the log writer, a replay) decodes through `EventCodec`, so that they agree on
which records are events and which are dead letters. What may not live here: the formats (``avro.py``, ``jsons.py``), the rules
(``contracts.py``), what happens to a reject.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace.errors import ConfigError, ContractError
from headrace.fields import FieldType
from headrace.json_schema import object_schema
from headrace_schemas.avro import AvroDecoder, AvroEncoder
from headrace_schemas.batches import (
    Decoded,
    RawBatch,
    Reject,
    hash_packed,
    hash_values,
    meta_columns,
)
from headrace_schemas.columns import PackedValues, join_values
from headrace_schemas.contracts import Contract
from headrace_schemas.evolution import EvolvedDecoder
from headrace_schemas.framing import Decoder, FramedDecoder, Schemas, WriterSchema, framed, subject_of
from headrace_schemas.json_schemas import ValidatingDecoder
from headrace_schemas.jsons import JsonDecoder, JsonEncoder
from headrace_schemas.keys import encode_keys

__all__ = ["Decoded", "EventCodec", "RawBatch", "Reject", "frame_columns"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Encoder(Protocol):
    def encode(self, record: Mapping[str, object]) -> bytes: ...


class EventCodec:
    """The codec of one event.

    Args:
        event: the event.
        views: the project's feature views; those of this event add to its contract.
        schemas: the registry of a project that has one; events in the Confluent wire format need it.

    Raises:
        ConfigError: the event needs a registry, and there is none.
    """

    def __init__(self, event: hr.Event, views: Iterable[hr.FeatureView] = (), schemas: Schemas | None = None) -> None:
        self.event, self._schemas = event, schemas
        self._contract = Contract(event, views)
        self._own: Decoder
        self._encoder: _Encoder
        if event.format == "avro":
            self._own, self._encoder = AvroDecoder(event.avro_schema), AvroEncoder(event.avro_schema)
        else:
            self._own, self._encoder = JsonDecoder(event), JsonEncoder(event)
        if event.json_schema is not None:
            self._own = ValidatingDecoder(f"JSON event {event.name!r}", event.json_schema, self._own)
        self._decoder: Decoder = self._own
        if event.framing == "confluent":
            if schemas is None:
                raise ConfigError(
                    f"event {event.name!r} is in the Confluent wire format, which needs a schema registry, but there is none; set "
                    f"[schema_registry] url in headrace.toml, or HEADRACE_SCHEMA_REGISTRY"
                )
            self._decoder = FramedDecoder(event, self._decoder_of)
        self._times = tuple(name for name, field in event.fields.items() if field.type is FieldType.TIMESTAMP)

    def warm(self) -> None:
        """Compile or load what decoding needs, which the first batch would wait for: seconds, the first time on a machine."""
        from headrace.kernel.compiling import compiling_alone

        with compiling_alone("decoding"):
            self._own.decode([])

    def _decoder_of(self, schema_id: int) -> Decoder:
        """The decoder of records of a registered schema. JSON names its fields itself, so its schemas need not be known."""
        if self.event.format == "json":
            return self._own
        assert self._schemas is not None
        return EvolvedDecoder(self.event, self._schemas.schema(schema_id))

    def encode(self, record: Mapping[str, object]) -> bytes:
        """The bytes of a record, as a producer sends them.

        Args:
            record: a value for each field; nullable ones may be left out. Times are aware datetimes or microseconds.

        Raises:
            ContractError: a time has no zone.
            CodecError: a value does not fit its field.
            StoreError: the registry refuses the event's schema.
            ServiceUnavailable: the registry is away.
        """
        values = {name: record.get(name) for name in self.event.fields}
        for name in self._times:
            moment = values[name]
            if isinstance(moment, datetime):
                values[name] = to_us(name, moment)
        value = self._encoder.encode(values)
        if self.event.framing != "confluent":
            return value
        assert self._schemas is not None
        return framed(self._schemas.register(subject_of(self.event.topic), schema_of(self.event)), value)

    def decode(self, raw: RawBatch) -> Decoded:
        """The rows that keep the contract, in their order, and the others with their reasons.

        The frame has the event's fields (times as microseconds) and the meta columns; `Reject.row` counts in `raw`.

        Raises:
            ServiceUnavailable: a record's schema is not known yet, and the registry is away.
        """
        rows = np.arange(len(raw), dtype=np.int64)
        values = _filled(raw.values)
        rejects: list[Reject] = []
        if len(values) < len(raw):
            filled = np.fromiter(map(bool, raw.values), np.bool_, len(raw))
            rejects += [Reject(int(row), _empty(raw.values[row]), "empty") for row in rows[~filled]]
            rows = rows[filled]
        decoded = self._decoder.decode(values)
        rejects += [Reject(int(rows[fault.row]), fault.reason, fault.code) for fault in decoded.faults]
        frame, rows = decoded.frame, rows[decoded.rows]
        keeps, broken = self._contract.check(frame, rows, raw.arrival_us()[rows])
        if broken:
            frame, rows = frame.filter(pl.Series(keeps)), rows[keeps]
            rejects += broken
        rejects.sort(key=lambda reject: reject.row)
        time_us = frame[self.event.time].to_numpy()
        return Decoded(frame.hstack(meta_columns(raw, rows, time_us, self._hashes(frame, raw, rows))), rejects)

    def _hashes(self, frame: pl.DataFrame, raw: RawBatch, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        if self.event.id is not None:
            return hash_packed(*encode_keys(frame, [self.event.id]))
        if len(rows) == len(raw):
            return hash_packed(*join_values(_filled(raw.values)))
        return hash_values([value for row in rows.tolist() if (value := raw.values[row])])


def _filled(values: Sequence[bytes | None]) -> Sequence[bytes]:
    """The values that are neither None nor empty; packed ones as they are, if all of them are."""
    if isinstance(values, PackedValues) and values.all_filled:
        return cast("Sequence[bytes]", values)
    return [value for value in values if value]


def schema_of(event: hr.Event) -> WriterSchema:
    """The schema of an event's records, as it is registered."""
    if event.format == "avro":
        return WriterSchema("AVRO", json.dumps(event.avro_schema))
    return WriterSchema("JSON", json.dumps(event.json_schema or object_schema(event.name, event.fields)))


def _empty(value: bytes | None) -> str:
    return "the record must have a value, but it has none" if value is None else "the record's value must not be empty"


def to_us(field: str, moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime.

    Raises:
        ContractError: it has no zone.

    >>> to_us("at", datetime(2013, 1, 1, tzinfo=UTC))
    1356998400000000
    """
    if moment.tzinfo is None:
        raise ContractError(field, "a time with a zone", f"{moment.isoformat()} without one")
    return (moment - _EPOCH) // _MICROSECOND


def frame_columns(frame: pl.DataFrame, event: hr.Event, names: Iterable[str]) -> hr.Columns:
    """Columns of a frame as the core computes with them.

    Args:
        frame: rows of the event.
        event: the event.
        names: its fields that are wanted.

    Returns:
        Per name: float64 with NaN for null (floats, and whatever is nullable), int64, bool, or an object array of texts.

    Raises:
        ContractError: a field that is never null holds a null.
    """
    return {name: _column(frame[name], event.fields[name]) for name in names}


def _column(series: pl.Series, field: hr.Field) -> npt.NDArray[np.generic]:
    if not field.nullable and series.null_count():
        raise ContractError(series.name, field.expected, "null", int(series.is_null().arg_max() or 0))
    if field.type is FieldType.STRING:
        texts: npt.NDArray[np.generic] = series.to_numpy()
        return texts.astype(object, copy=False)
    numbers = series.cast(pl.Float64) if field.nullable or field.type is FieldType.FLOAT64 else series
    return np.ascontiguousarray(numbers.to_numpy())
