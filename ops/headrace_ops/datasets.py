"""Datasets as files: reading a spine, and writing a dataset with its manifest beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from headrace.errors import ConfigError
from headrace.fields import FieldType
from headrace_ops.frames import parse_times, read_file


class Manifest(Protocol):
    """How a dataset was made."""

    @property
    def hash(self) -> str: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    def to_json(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """The two files of a dataset."""

    data: Path
    manifest: Path
    rows: int
    columns: tuple[str, ...]
    hash: str
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, object]:
        """What was written as JSON-able data."""
        return {
            "data": str(self.data),
            "manifest": str(self.manifest),
            "rows": self.rows,
            "columns": list(self.columns),
            "hash": self.hash,
            "counts": dict(self.counts),
        }


def spine_frame(file: Path, keys: Mapping[str, FieldType], *, time: str | None = None) -> pl.DataFrame:
    """The rows of a spine file; in a CSV file, whose columns are text, integer keys and the times are read as such.

    Args:
        file: Parquet, CSV or NDJSON.
        keys: type of each key column.
        time: the column of moments.

    Raises:
        ConfigError: the file cannot be read, or a column is not of its type.
    """
    frame = read_file(file)
    for name, kind in keys.items():
        if kind is FieldType.INT64 and name in frame.columns and frame[name].dtype == pl.String:
            try:
                frame = frame.with_columns(pl.col(name).cast(pl.Int64))
            except pl.exceptions.PolarsError:
                raise ConfigError(f"{file}, column {name!r}: required whole numbers; mend the column") from None
    if time is not None and time in frame.columns and frame[time].dtype == pl.String:
        times = parse_times(frame[time])
        if times.null_count() > frame[time].null_count():
            raise ConfigError(
                f"{file}, column {time!r}: required times with a zone, such as 2013-12-01T06:30:00Z; mend the column"
            )
        frame = frame.with_columns(times.alias(time).cast(pl.Datetime("us", "UTC")))
    return frame


def write(frame: pl.DataFrame, manifest: Manifest, out: Path) -> Written:
    """Write a dataset as Parquet or CSV, by the file's name, and its manifest beside it.

    Raises:
        ConfigError: another kind of file, or a directory that cannot be written.
    """
    beside = out.with_name(out.name + ".manifest.json")
    writers: dict[str, Callable[[Path], object]] = {".parquet": frame.write_parquet, ".csv": frame.write_csv}
    if out.suffix not in writers:
        raise ConfigError(
            f"{out}: a dataset is written as .parquet or .csv, but the name ends in {out.suffix!r}; rename it"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writers[out.suffix](out)
        beside.write_text(json.dumps(manifest.to_json(), indent=2), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: a dataset needs a place that can be written, but {error}; choose another") from error
    return Written(out, beside, frame.height, tuple(frame.columns), manifest.hash, manifest.counts)
