"""Files and frames as events: columns checked against the event's declaration before anything is sent.

What may not live here: sending (`producing.py`), and judging values; whether a row keeps its contract is the stream's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

import headrace as hr
from headrace.errors import ConfigError
from headrace.fields import FieldType
from headrace.suggestions import did_you_mean

_TYPES: dict[FieldType, pl.DataType] = {
    FieldType.STRING: pl.String(),
    FieldType.INT64: pl.Int64(),
    FieldType.FLOAT64: pl.Float64(),
    FieldType.BOOLEAN: pl.Boolean(),
    FieldType.TIMESTAMP: pl.Int64(),
}
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": lambda file: pl.read_csv(file, infer_schema=False),
    ".ndjson": lambda file: pl.read_ndjson(file, infer_schema_length=None),
    ".jsonl": lambda file: pl.read_ndjson(file, infer_schema_length=None),
}


def read_file(file: Path) -> pl.DataFrame:
    """The rows of a Parquet, CSV or NDJSON file; CSV columns stay text, so that no value is guessed.

    Raises:
        ConfigError: there is no such file, or it is not what its name says.
    """
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{file}: its name must end in {', '.join(_READERS)}, but it ends in {file.suffix!r}; convert it"
        )
    try:
        return reader(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{file}: it must be a readable {file.suffix[1:]} file, but {error}; check it") from None


def conform(frame: pl.DataFrame, event: hr.Event, *, source: str) -> pl.DataFrame:
    """`frame` with exactly the event's fields in their types, times as microseconds since 1970 in UTC.

    Args:
        frame: one row per event; nullable fields may be missing.
        event: the declaration.
        source: what to call the rows in a message.

    Raises:
        ConfigError: a column is missing, unknown, or cannot be read as its field's type.
    """
    for name in frame.columns:
        if name not in event.fields:
            raise ConfigError(
                f"{source}: event {event.name!r} has no field {name!r}; {did_you_mean(name, event.fields)} "
                f"Rename or drop the column"
            )
    columns = []
    for name, field in event.fields.items():
        if name in frame.columns:
            columns.append(_column(frame[name], name, field.type, f"{source}, column {name!r}"))
        elif field.nullable:
            columns.append(pl.Series(name, [None], dtype=_TYPES[field.type]).new_from_index(0, frame.height))
        else:
            raise ConfigError(
                f"{source}: event {event.name!r} needs the field {name!r}, but there is no such column; add it"
            )
    return pl.DataFrame(columns)


def _column(column: pl.Series, name: str, kind: FieldType, place: str) -> pl.Series:
    if column.dtype == pl.String and kind is not FieldType.STRING:
        column = column.set(column == "", None)  # how CSV writes null
    try:
        read = parse_times(column) if kind is FieldType.TIMESTAMP else _values(column, kind)
    except pl.exceptions.PolarsError:
        read = None
    lost = None if read is None else read.is_null() & column.is_not_null()
    if read is None or lost is None or lost.any():
        example = column.drop_nulls()[0] if lost is None else column.filter(lost)[0]
        raise ConfigError(f"{place}: required {_WORDS[kind]}, got {example!r} ({column.dtype}); mend the column")
    return read.alias(name)


_WORDS = {
    FieldType.STRING: "text",
    FieldType.INT64: "whole numbers",
    FieldType.FLOAT64: "numbers",
    FieldType.BOOLEAN: "true or false",
    FieldType.TIMESTAMP: "times with a zone (2013-12-01T06:30:00Z) or microseconds since 1970",
}


def _values(column: pl.Series, kind: FieldType) -> pl.Series:
    if column.dtype == pl.String and kind is FieldType.BOOLEAN:
        return column.str.to_lowercase().replace_strict(
            {"true": True, "false": False}, default=None, return_dtype=pl.Boolean
        )
    return column.cast(_TYPES[kind], strict=False)


def parse_times(column: pl.Series) -> pl.Series:
    """Times as microseconds since 1970 in UTC; null where a text is no time with a zone."""
    if column.dtype == pl.String:
        micros = column.cast(pl.Int64, strict=False)
        # A text without an offset is refused: this format demands one.
        iso = column.str.replace("Z$", "+00:00").str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        return micros.fill_null(iso.cast(pl.Int64))
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is None:
            raise pl.exceptions.ComputeError("a time without a zone")
        return column.dt.cast_time_unit("us").cast(pl.Int64)
    return column.cast(pl.Int64)
