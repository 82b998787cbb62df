"""Log tables: their columns as frames see them, and as files hold them.

A frame of events has the event's fields, then `META`: where the record lay, when it arrived, when it happened. Delta knows no
unsigned numbers, so two columns are stored otherwise, bit for bit reversible; declared timestamps are stored as timestamps, so
that other tools show them as such. What may not live here: files, transactions (``stores/log.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

import headrace as hr
from headrace.fields import REQUIRED, Default, FieldType

PARTITION = "_partition"
OFFSET = "_offset"
EVENT_TIME = "_event_time_us"

#: Columns that every log table has behind its own.
META: Mapping[str, pl.DataType] = {
    PARTITION: pl.Int32(),
    OFFSET: pl.Int64(),
    "_timestamp_us": pl.Int64(),  # Kafka's timestamp, -1 where there was none
    "_timestamp_type": pl.UInt8(),  # 0 set by the producer, 1 set by the broker, 255 none
    "_received_us": pl.Int64(),
    EVENT_TIME: pl.Int64(),
    "_id_hash": pl.UInt64(),
}

_FRAME_TYPES: Mapping[FieldType, pl.DataType] = {
    FieldType.STRING: pl.String(),
    FieldType.INT64: pl.Int64(),
    FieldType.FLOAT64: pl.Float64(),
    FieldType.BOOLEAN: pl.Boolean(),
    FieldType.TIMESTAMP: pl.Int64(),
}
_STORED_TIMESTAMP = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: its name.
        frame: its type in frames.
        stored: its type in files.
        aliases: names that it has in older files.
        default: what it is in files that are older than the column, where it is never null.
    """

    name: str
    frame: pl.DataType
    stored: pl.DataType
    aliases: tuple[str, ...] = ()
    default: Default = None

    def to_stored(self) -> pl.Expr:
        """The stored form of the column of a frame."""
        if self.frame == pl.UInt64():
            return pl.col(self.name).reinterpret(signed=True)
        return pl.col(self.name).cast(self.stored)

    def from_stored(self) -> pl.Expr:
        """The frame's form of the stored column."""
        if self.frame == pl.UInt64():
            return pl.col(self.name).reinterpret(signed=False)
        # A file has the column under one of its names, or not at all.
        held = pl.coalesce(self.name, *self.aliases) if self.aliases else pl.col(self.name)
        found = held.cast(self.frame)
        return (
            found if self.default is None else found.fill_null(pl.lit(self.default, dtype=self.frame)).alias(self.name)
        )


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of one log table.

    Args:
        name: what to call the table in messages.
        columns: its columns in the frame's order.
    """

    name: str
    columns: tuple[Column, ...]

    @property
    def frame_schema(self) -> pl.Schema:
        """Names and types of a frame of this table."""
        return pl.Schema({column.name: column.frame for column in self.columns})

    @property
    def stored_schema(self) -> pl.Schema:
        """Names and types of what is written to its files."""
        return pl.Schema({column.name: column.stored for column in self.columns})

    @property
    def held_schema(self) -> pl.Schema:
        """Names and types of what its files may hold, those of before included."""
        older = {alias: column.stored for column in self.columns for alias in column.aliases}
        return pl.Schema(older | dict(self.stored_schema))


def table_schema(name: str, own: Mapping[str, pl.DataType], timestamps: frozenset[str] = frozenset()) -> TableSchema:
    """A log table of `own` columns and `META`.

    Args:
        name: what to call the table in messages.
        own: the frame's type of each own column.
        timestamps: own columns of microseconds to be stored as timestamps.
    """
    columns = [
        Column(column, frame, _STORED_TIMESTAMP if column in timestamps else _stored(frame))
        for column, frame in [*own.items(), *META.items()]
    ]
    return TableSchema(name=name, columns=tuple(columns))


def event_schema(event: hr.Event) -> TableSchema:
    """The log table of an event: its fields, and `META`."""
    timestamps = frozenset(name for name, field in event.fields.items() if field.type is FieldType.TIMESTAMP)
    plain = table_schema(f"event {event.name!r}", frame_fields(event), timestamps)
    return replace(plain, columns=tuple(_evolved(column, event) for column in plain.columns))


def _evolved(column: Column, event: hr.Event) -> Column:
    field = event.fields.get(column.name)
    if field is None or (not field.aliases and field.default is REQUIRED):
        return column
    aliases = tuple(alias for alias in field.aliases if alias not in event.fields)
    return replace(column, aliases=aliases, default=None if field.default is REQUIRED else field.default)


def frame_fields(event: hr.Event) -> dict[str, pl.DataType]:
    """The frame's type of each of an event's fields."""
    return {name: _FRAME_TYPES[field.type] for name, field in event.fields.items()}


def _stored(frame: pl.DataType) -> pl.DataType:
    if frame == pl.UInt64():
        return pl.Int64()
    if frame == pl.UInt8():
        return pl.Int16()
    return frame
