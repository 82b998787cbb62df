"""Upkeep: files stay few beside a writer that never waits, and a failure stops nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headrace.errors import StoreError
from headrace_schemas.stores.log import Compacted, LogTable
from headrace_schemas.stores.upkeep import Upkeep
from headrace_schemas.tables import META, table_schema

SCHEMA = table_schema("numbers", {"n": pl.Int64()})


def append(table: LogTable, offset: int) -> None:
    meta = {name: pl.Series([0], dtype=dtype) for name, dtype in META.items()} | {"_offset": pl.Series([offset])}
    table.append(pl.DataFrame({"n": [offset], **meta}).select(SCHEMA.frame_schema.names()), {0: (offset, offset + 1)})


@pytest.fixture
def table(tmp_path: Path) -> LogTable:
    return LogTable.open(tmp_path / "log", SCHEMA, "topic-1")


def test_a_writer_with_upkeep_keeps_its_files_few_and_its_rows_all(table: LogTable) -> None:
    upkeep = Upkeep(table, most_files=20)
    most, done = 0, 0
    for offset in range(200):
        append(table, offset)
        done += isinstance(upkeep.step(), Compacted)
        most = max(most, table.files())
    upkeep.close()
    assert done >= 2
    assert most < 100
    assert table.scan().sort("_offset").collect()["n"].to_list() == list(range(200))
    assert table.watermark() == {0: 200}


def test_few_files_are_left_alone(table: LogTable) -> None:
    upkeep = Upkeep(table, most_files=20)
    for offset in range(20):
        append(table, offset)
        assert upkeep.step() is None
    upkeep.close()
    assert table.files() == 20


def test_what_a_compaction_did_is_told_once(table: LogTable) -> None:
    upkeep = Upkeep(table, most_files=3)
    for offset in range(4):
        append(table, offset)
    assert upkeep.step() is None
    upkeep.close()
    assert upkeep.step() == Compacted(files_before=4, files_after=1)
    assert upkeep.step() is None


def test_a_failure_is_told_once_and_not_repeated_at_every_commit(
    table: LogTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(table: LogTable) -> Compacted:
        tried.append(table)
        raise StoreError("the disk is full")

    monkeypatch.setattr(LogTable, "compact", fail)
    upkeep = Upkeep(table, most_files=3)
    told = []
    for offset in range(8):
        append(table, offset)
        told.append(upkeep.step())
        upkeep.close()
    assert [str(found) for found in told if found is not None] == ["the disk is full"]
    assert len(tried) == 1
    assert table.watermark() == {0: 8}
