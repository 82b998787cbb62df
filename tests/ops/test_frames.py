"""Files as events: what is accepted, and the message for what is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace.errors import ConfigError
from headrace_ops.frames import conform, read_file

SEEN = hr.Event(
    "seen",
    time="at",
    fields={
        "who": hr.string(),
        "at": hr.timestamp(),
        "times": hr.int64(nullable=True),
        "warm": hr.float64(nullable=True),
        "left": hr.boolean(),
    },
)
AT = datetime(2026, 1, 5, 10, tzinfo=UTC)
AT_US = round(AT.timestamp() * 1e6)


def frame(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"who": ["ada"], "at": [AT], "left": [True], **columns})


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"seen.{suffix}"
    if suffix == "parquet":
        frame(times=[3], warm=[1.5]).write_parquet(file)
    elif suffix == "csv":
        file.write_text("who,at,left,times,warm\nada,2026-01-05T11:00:00+01:00,true,3,1.5\n", encoding="utf-8")
    else:
        file.write_text(
            '{"who": "ada", "at": "2026-01-05T10:00:00Z", "left": true, "times": 3, "warm": 1.5}\n', encoding="utf-8"
        )
    rows = conform(read_file(file), SEEN, source="here").rows(named=True)
    assert rows == [{"who": "ada", "at": AT_US, "times": 3, "warm": 1.5, "left": True}]


def test_nullable_fields_may_be_missing_or_empty() -> None:
    assert conform(frame(), SEEN, source="here")["times"].to_list() == [None]
    assert conform(frame(times=[""]), SEEN, source="here")["times"].to_list() == [None]


def test_microseconds_are_times_too() -> None:
    assert conform(frame(at=[AT_US]), SEEN, source="here")["at"].to_list() == [AT_US]
    assert conform(frame(at=[str(AT_US)]), SEEN, source="here")["at"].to_list() == [AT_US]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"whom": ["x"]}, "has no field 'whom'; did you mean 'who'"),
        ({"times": ["many"]}, "column 'times': required whole numbers, got 'many'"),
        ({"warm": ["hot"]}, "column 'warm': required numbers, got 'hot'"),
        ({"left": ["perhaps"]}, "column 'left': required true or false, got 'perhaps'"),
        ({"at": ["2026-01-05T10:00:00"]}, "column 'at': required times with a zone"),
        ({"at": [datetime(2026, 1, 5)]}, "column 'at': required times with a zone"),  # noqa: DTZ001
    ],
)
def test_a_column_that_does_not_fit_is_named(columns: dict[str, list[object]], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        conform(frame(**columns), SEEN, source="here")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ConfigError, match="needs the field 'left', but there is no such column"):
        conform(frame().drop("left"), SEEN, source="here")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its name must end in \.parquet"):
        read_file(tmp_path / "seen.xlsx")
    broken = tmp_path / "seen.parquet"
    broken.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="must be a readable parquet file"):
        read_file(broken)
