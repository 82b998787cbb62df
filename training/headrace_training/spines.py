"""Spines: the rows for which a dataset is built: requests with their moments, and the reads that their lookups become.

Three sources: the log of a model's request event, any table of requests, and any table of entity keys and times. A spine
keeps its table as it came (it stands first in a dataset) beside the typed columns that are computed with.

What must not live here: labels, sweeping, and predictions (``served``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace import kernel
from headrace.errors import ConfigError
from headrace.events import FieldRef
from headrace.fields import FieldType
from headrace.layout import Layout
from headrace.suggestions import did_you_mean
from headrace_schemas.codecs import frame_columns
from headrace_schemas.keys import encode_keys
from headrace_schemas.tables import EVENT_TIME, OFFSET, PARTITION, frame_fields
from headrace_training.lookups import ID_HASH, PackedKeys, Reads


@dataclass(frozen=True, slots=True)
class Spine:
    """Rows that features are wanted for.

    Attributes:
        table: the rows as they came; a dataset's first columns.
        typed: the request's fields in their declared types, as far as they are there.
        at_us: the moment of each row.
        id_hash: hash of each row's event id, for rows that fold their own event.
        source: what a manifest says of it.
        left_out: rows that are not in it, by reason.
    """

    table: pl.DataFrame
    typed: pl.DataFrame
    at_us: NDArray[np.int64]
    id_hash: NDArray[np.uint64] | None
    source: Mapping[str, object]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at_us)

    def take(self, rows: NDArray[np.int64]) -> Spine:
        """Some of the rows."""
        hashes = None if self.id_hash is None else self.id_hash[rows]
        return Spine(self.table[rows], self.typed[rows], self.at_us[rows], hashes, self.source, self.left_out)

    def reads(self, lookup: hr.Lookup, *, folded: bool) -> Reads:
        """The reads of one lookup.

        Args:
            lookup: which view, and by which request fields.
            folded: whether each row's own event is folded before its read.
        """
        keys = PackedKeys.of(self.typed, lookup.key_fields)
        return Reads(keys, self.at_us, self.own_events(lookup.view) if folded else None)

    def own_events(self, view: hr.FeatureView) -> kernel.EventBatch:
        """The rows' own events, as the view folds them.

        Raises:
            ConfigError: the rows have no event id, so an event that has arrived as well would count twice.
        """
        if self.id_hash is None:
            raise ConfigError(
                f"spine: rows that count their own event need column {view.event.id!r}, its id; add it to the table"
            )
        return kernel.prepare(
            Layout.of(view),
            frame_columns(self.typed, view.event, view.columns),
            # It has no place in the topic yet: the kernel folds it as the last event of its moment.
            partition=np.zeros(len(self), np.int32),
            offset=np.zeros(len(self), np.int64),
            id_hash=self.id_hash,
        )

    def request_columns(self, model: hr.Model) -> dict[str, NDArray[Any]]:
        """The request fields that the model computes with, as `assemble` takes them."""
        return dict(frame_columns(self.typed, model.request, computed_fields(model)))


def computed_fields(model: hr.Model) -> tuple[str, ...]:
    """The request fields whose values enter inputs or transforms, and the time, in the event's order."""
    used = {item.name for item in model.inputs if item.kind == "request"} | {model.request.time}
    for transform in model.transforms:
        used |= {source.name for source in transform.inputs.values() if isinstance(source, FieldRef)}
    return tuple(name for name in model.request.fields if name in used)


def needed_fields(model: hr.Model) -> tuple[str, ...]:
    """The request fields that a spine must have: computed ones, entity keys, and what a folded event needs."""
    used = set(computed_fields(model))
    for lookup, folded in zip(model.lookups, model.folded, strict=True):
        used |= set(lookup.key_fields)
        if folded:
            used |= {*lookup.view.columns, str(model.request.id)}
    return tuple(name for name in model.request.fields if name in used)


def spine_from_log(
    model: hr.Model, log: pl.LazyFrame, *, from_us: int | None = None, until_us: int | None = None
) -> Spine:
    """A model's request events, one row per event id, by time, partition and offset.

    Args:
        model: the model.
        log: the log of its request event.
        from_us: events from this moment on; None takes all.
        until_us: events strictly before this moment; None takes all.
    """
    if from_us is not None:
        log = log.filter(pl.col(EVENT_TIME) >= from_us)
    if until_us is not None:
        log = log.filter(pl.col(EVENT_TIME) < until_us)
    frame = log.collect().sort(EVENT_TIME, PARTITION, OFFSET)
    distinct = frame.unique([model.request.id or ID_HASH], keep="first", maintain_order=True)
    asked = _with_keys(distinct, model)
    left_out = {"duplicate": len(frame) - len(distinct), "no entity key": len(distinct) - len(asked)}
    fields = asked.select(list(model.request.fields))
    source = {"events": model.request.name, "from_us": from_us, "until_us": until_us}
    return Spine(fields, fields, asked[EVENT_TIME].to_numpy(), asked[ID_HASH].to_numpy(), source, left_out)


def spine_from_requests(model: hr.Model, table: pl.DataFrame) -> Spine:
    """Any table of requests: columns named as the request event's fields; further columns are kept and not used.

    Raises:
        ConfigError: a needed column is missing or of another type, or holds nulls where none may be.
    """
    event = model.request
    typed = _typed(table, event, needed_fields(model), f"model {model.name!r}")
    _no_null_keys(typed, model)
    hashes = None
    if event.id is not None and event.id in typed.columns and any(model.folded):
        hashes = kernel.hash_keys(*encode_keys(typed, [event.id]))
    return Spine(table, typed, typed[event.time].to_numpy(), hashes, {"table": list(table.columns)})


def spine_from_keys(views: tuple[hr.FeatureView, ...], table: pl.DataFrame, *, time: str = "at") -> Spine:
    """Any table of entity keys and moments.

    Args:
        views: the views to be read; the table has a column for each of their entities' keys.
        table: the rows.
        time: the column of moments: timestamps, or microseconds.

    Raises:
        ConfigError: a column is missing, of another type, or holds nulls.
    """
    keys = {name: key for view in views for name, key in view.entity.keys.items()}
    columns = {time: hr.timestamp(), **keys}
    typed = _typed_columns(table, columns, f"views {', '.join(view.name for view in views)}")
    for name in columns:
        if typed[name].null_count():
            raise ConfigError(
                f"spine: column {name!r} must not hold nulls, but {typed[name].null_count()} of {len(typed)} rows do; "
                "leave those rows out"
            )
    return Spine(table, typed, typed[time].to_numpy(), None, {"table": list(table.columns), "time": time})


def _with_keys(frame: pl.DataFrame, model: hr.Model) -> pl.DataFrame:
    # A request without a key could not have been asked: serving refuses it.
    return frame.drop_nulls(list({name for lookup in model.lookups for name in lookup.key_fields}))


def _no_null_keys(typed: pl.DataFrame, model: hr.Model) -> None:
    for name in {name for lookup in model.lookups for name in lookup.key_fields}:
        if nulls := typed[name].null_count():
            raise ConfigError(
                f"spine: column {name!r} is an entity key of model {model.name!r} and must not hold nulls, but {nulls} of "
                f"{len(typed)} rows do; leave those rows out"
            )


def _typed(table: pl.DataFrame, event: hr.Event, names: tuple[str, ...], what: str) -> pl.DataFrame:
    return _typed_columns(table, {name: event.fields[name] for name in names}, what)


def _typed_columns(table: pl.DataFrame, fields: Mapping[str, hr.Field], what: str) -> pl.DataFrame:
    columns = []
    for name, declared in fields.items():
        if name not in table.columns:
            raise ConfigError(
                f"spine: {what} needs a column {name!r} ({declared.type.value}), but the table has "
                f"{', '.join(table.columns)}; {did_you_mean(name, table.columns)}"
            )
        columns.append(_typed_column(table[name], declared))
    return pl.DataFrame(columns)


def _accepts(declared: FieldType, dtype: pl.DataType) -> bool:
    match declared:
        case FieldType.STRING:
            return dtype in (pl.String, pl.Categorical, pl.Enum)
        case FieldType.INT64:
            return dtype.is_integer()
        case FieldType.FLOAT64:
            return dtype.is_numeric()
        case FieldType.BOOLEAN:
            return dtype == pl.Boolean
        case FieldType.TIMESTAMP:
            return dtype.is_integer() or (isinstance(dtype, pl.Datetime) and dtype.time_zone is not None)


def _typed_column(series: pl.Series, declared: hr.Field) -> pl.Series:
    target = FRAME_TYPES[declared.type]
    if series.dtype == pl.Null and declared.nullable:
        return series.cast(target)
    if not _accepts(declared.type, series.dtype):
        hint = "; give times a zone, such as UTC" if series.dtype == pl.Datetime else ""
        raise ConfigError(
            f"spine: column {series.name!r} must be of type {declared.type.value}, but it is {series.dtype}{hint}; "
            "cast it before"
        )
    if series.dtype == pl.Datetime:
        return series.dt.epoch("us").alias(series.name)
    return series.cast(target)


FRAME_TYPES: Mapping[FieldType, pl.DataType] = {
    FieldType.STRING: pl.String(),
    FieldType.INT64: pl.Int64(),
    FieldType.FLOAT64: pl.Float64(),
    FieldType.BOOLEAN: pl.Boolean(),
    FieldType.TIMESTAMP: pl.Int64(),
}


def typed_records(event: hr.Event, records: list[dict[str, Any]]) -> pl.DataFrame:
    """Request records (times in microseconds) as typed columns, null where a field did not come."""
    schema = frame_fields(event)
    return pl.DataFrame({name: [record.get(name) for record in records] for name in schema}, schema=schema)
