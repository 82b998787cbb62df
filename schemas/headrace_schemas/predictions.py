"""The prediction log: what was asked, what was looked up, what was answered, so that an auditor can compute it again.

One Avro record per answered row on the topic ``<namespace>.predictions``, written by serving and read by the log writer and the
auditor. Numbers that must come back bit for bit (features, transforms, output) travel as little-endian float64 bytes. The
writer's side needs fastavro alone; the reader's columnar side loads polars when it is first used. What may not live here:
producing and storing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import fastavro

from headrace.errors import CodecError

if TYPE_CHECKING:
    import polars as pl

    from headrace_schemas.batches import Decoded, RawBatch
    from headrace_schemas.tables import TableSchema

_OFFSET = {
    "type": "record",
    "name": "Offset",
    "fields": [{"name": "partition", "type": "int"}, {"name": "offset", "type": "long"}],
}
_LOOKUP = {
    "type": "record",
    "name": "Lookup",
    "fields": [
        {"name": "alias", "type": "string"},
        {"name": "view", "type": "string"},
        {"name": "layout", "type": "string"},
        {"name": "key", "type": "bytes"},
        {"name": "found", "type": "boolean"},
        {"name": "newest_us", "type": "long"},
        {"name": "offsets", "type": {"type": "array", "items": _OFFSET}},
        {"name": "ahead", "type": "boolean"},
        {"name": "own", "type": "boolean"},
    ],
}
#: The record on the wire.
PREDICTION_SCHEMA: Mapping[str, Any] = {
    "type": "record",
    "name": "Prediction",
    "namespace": "headrace",
    "fields": [
        {"name": "prediction_id", "type": "string"},
        {"name": "model", "type": "string"},
        {"name": "bundle", "type": "string"},
        {"name": "at_us", "type": "long"},
        {"name": "served_us", "type": "long"},
        {"name": "batch_id", "type": "string"},
        {"name": "row", "type": "int"},
        {"name": "batch_size", "type": "int"},
        {"name": "request", "type": "bytes"},
        {"name": "lookups", "type": {"type": "array", "items": _LOOKUP}},
        {"name": "features", "type": "bytes"},
        {"name": "transforms", "type": "bytes"},
        {"name": "output", "type": "bytes"},
        {"name": "defaulted", "type": "boolean"},
    ],
}
_PARSED = fastavro.parse_schema(dict(PREDICTION_SCHEMA))


def prediction_topic(namespace: str) -> str:
    """The topic of a namespace's predictions.

    >>> prediction_topic("flights")
    'flights.predictions'
    """
    return f"{namespace}.predictions"


@dataclass(frozen=True, slots=True)
class LookupRecord:
    """One state as it was read for one row.

    Args:
        alias: the lookup's name in the model.
        view: the view's name.
        layout: the view's layout fingerprint.
        key: the entity key's bytes.
        found: whether there was a state.
        newest_us: its newest event time, 0 where there was none.
        offsets: its included offset per contributing partition: (partition, offset), sorted.
        ahead: the state held events at or after the moment of reading.
        own: the request's own event was folded in before reading.
    """

    alias: str
    view: str
    layout: str
    key: bytes
    found: bool
    newest_us: int
    offsets: tuple[tuple[int, int], ...]
    ahead: bool
    own: bool


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One answered row.

    Args:
        prediction_id: names the answer.
        model: the model's name.
        bundle: the version that answered.
        at_us: the moment that the features were read for.
        served_us: when the answer was given.
        batch_id: names the request that the row came in.
        row: the row's place in it.
        batch_size: its rows; outputs are compared bit for bit only at the same size.
        request: the request event's fields as validated, canonical JSON.
        lookups: what was read, in the model's order.
        features: float64 LE: the lookups' features one after another.
        transforms: float64 LE: the on-demand transforms' values.
        output: float64 LE: what the graph answered.
        defaulted: the store did not answer, and the model declares defaults for that.
    """

    prediction_id: str
    model: str
    bundle: str
    at_us: int
    served_us: int
    batch_id: str
    row: int
    batch_size: int
    request: bytes
    lookups: tuple[LookupRecord, ...]
    features: bytes
    transforms: bytes
    output: bytes
    defaulted: bool


class PredictionCodec:
    """Prediction records to bytes and back."""

    def encode(self, record: PredictionRecord) -> bytes:
        """The Avro datum of a record. Costs about 10 µs: it runs behind the response."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, _PARSED, _plain(record))
        return out.getvalue()

    def decode(self, value: bytes) -> PredictionRecord:
        """The record of a datum.

        Raises:
            CodecError: it is not the datum of a prediction.
        """
        return _record(_read(value))

    def decode_batch(self, raw: RawBatch) -> Decoded:
        """A frame of `prediction_schema` for the log; what is no prediction is rejected with the reason."""
        from headrace_schemas.batches import Decoded, Reject

        rows: list[Mapping[str, Any]] = []
        good: list[int] = []
        rejects: list[Reject] = []
        for row, value in enumerate(raw.values):
            try:
                if value is None:
                    raise CodecError("prediction", "it must be an Avro record, but it has no value")
                rows.append(_read(value))
                good.append(row)
            except CodecError as error:
                rejects.append(Reject(row=row, reason=str(error), code="undecodable"))
        return Decoded(frame=_frame(rows, good, raw), rejects=rejects)


def records(frame: pl.DataFrame) -> list[PredictionRecord]:
    """The records of a frame of `prediction_schema`, in its order."""
    own = frame.select(prediction_fields())
    return [_record(row) for row in own.iter_rows(named=True)]


def prediction_fields() -> list[str]:
    """The names of a prediction's own columns."""
    return [field["name"] for field in PREDICTION_SCHEMA["fields"]]


def prediction_schema() -> TableSchema:
    """The log table of predictions: the record's fields, then the meta columns; ``_event_time_us`` is ``at_us``."""
    from headrace_schemas.tables import table_schema

    return table_schema("predictions", _polars_fields())


def _polars_fields() -> dict[str, pl.DataType]:
    import polars as pl

    types = {
        "string": pl.String(),
        "long": pl.Int64(),
        "int": pl.Int32(),
        "bytes": pl.Binary(),
        "boolean": pl.Boolean(),
    }

    def of(avro: Any) -> pl.DataType:
        if isinstance(avro, str):
            return types[avro]
        if avro["type"] == "array":
            return pl.List(of(avro["items"]))
        return pl.Struct([pl.Field(field["name"], of(field["type"])) for field in avro["fields"]])

    return {field["name"]: of(field["type"]) for field in PREDICTION_SCHEMA["fields"]}


def _frame(rows: Sequence[Mapping[str, Any]], good: Sequence[int], raw: RawBatch) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    from headrace_schemas.batches import hash_values, meta_columns

    own = pl.DataFrame(rows, schema=_polars_fields(), orient="row")
    id_hash = hash_values([str(row["prediction_id"]).encode() for row in rows])
    return own.with_columns(meta_columns(raw, np.array(good, np.int64), own["at_us"].to_numpy(), id_hash))


def _read(value: bytes) -> Mapping[str, Any]:
    stream = io.BytesIO(value)
    try:
        found = fastavro.schemaless_reader(stream, _PARSED, None)
    except Exception as error:  # noqa: BLE001  (fastavro raises whatever the bytes lead it to)
        raise CodecError(
            "prediction", f"it is not the Avro record of a prediction ({type(error).__name__}: {error})"
        ) from None
    if stream.tell() != len(value):
        raise CodecError(
            "prediction", f"{len(value) - stream.tell()} bytes are left behind the Avro record of a prediction"
        )
    return cast("Mapping[str, Any]", found)


def _plain(record: PredictionRecord) -> dict[str, Any]:
    plain = {name: getattr(record, name) for name in prediction_fields()}
    plain["lookups"] = [
        {
            "alias": lookup.alias,
            "view": lookup.view,
            "layout": lookup.layout,
            "key": lookup.key,
            "found": lookup.found,
            "newest_us": lookup.newest_us,
            "offsets": [{"partition": partition, "offset": offset} for partition, offset in lookup.offsets],
            "ahead": lookup.ahead,
            "own": lookup.own,
        }
        for lookup in record.lookups
    ]
    return plain


def _record(row: Mapping[str, Any]) -> PredictionRecord:
    lookups = tuple(
        LookupRecord(**{**lookup, "offsets": tuple((o["partition"], o["offset"]) for o in lookup["offsets"])})
        for lookup in row["lookups"]
    )
    return PredictionRecord(**{**row, "lookups": lookups})
