"""The offline log: exactly once through its own transactions, one writer per partition, values bit for bit."""

from __future__ import annotations

import multiprocessing
import random
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import Fenced, Gap, IdentityError, StoreError
from headrace_schemas.predictions import prediction_schema
from headrace_schemas.settings import load_settings
from headrace_schemas.stores import log
from headrace_schemas.stores.log import LogTable, event_log, prediction_log
from headrace_schemas.tables import META, TableSchema, event_schema, table_schema

PAID = hr.Event(
    "paid",
    fields={
        "card": hr.string(),
        "at": hr.timestamp(),
        "amount": hr.float64(nullable=True),
        "n": hr.int64(),
        "ok": hr.boolean(nullable=True),
        "settled": hr.timestamp(nullable=True),
    },
    time="at",
)
SCHEMA = event_schema(PAID)


def rows_at(places: list[tuple[int, int]], schema: TableSchema = SCHEMA) -> pl.DataFrame:
    """A row for each (partition, offset), its values made from the place."""
    rng = random.Random(str(places))
    n = len(places)
    columns = {
        "card": [f"card-{partition}-{offset}" for partition, offset in places],
        "at": [offset * 1_000_000 for _, offset in places],
        "amount": [rng.choice([None, -0.0, 0.1, 1e308, 5e-324]) for _ in places],
        "n": [rng.randrange(-(2**63), 2**63) for _ in places],
        "ok": [rng.choice([None, True, False]) for _ in places],
        "settled": [rng.choice([None, -(2**52), 2**52]) for _ in places],
        "_partition": [partition for partition, _ in places],
        "_offset": [offset for _, offset in places],
        "_timestamp_us": [rng.choice([-1, 10**15]) for _ in places],
        "_timestamp_type": [rng.choice([0, 1, 255]) for _ in places],
        "_received_us": [7] * n,
        "_event_time_us": [offset * 1_000_000 for _, offset in places],
        "_id_hash": [rng.choice([0, 2**63, 2**64 - 1]) for _ in places],
    }
    return pl.DataFrame({name: columns[name] for name in schema.frame_schema}, schema=schema.frame_schema)


def span(partition: int, start: int, upto: int) -> pl.DataFrame:
    return rows_at([(partition, offset) for offset in range(start, upto)])


def places(table: LogTable) -> list[tuple[int, int]]:
    return sorted(table.scan().select("_partition", "_offset").collect().rows())


def bits(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    """Rows with floats as their bits, sorted by place."""
    return [
        tuple(struct.pack("<d", value) if isinstance(value, float) else value for value in row)
        for row in frame.sort("_partition", "_offset").iter_rows()
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "events" / "paid"


@pytest.fixture
def table(path: Path) -> LogTable:
    return LogTable.open(path, SCHEMA, "topic-1")


def test_what_was_appended_comes_back_bit_for_bit(table: LogTable) -> None:
    frame = rows_at([(p, o) for p in range(3) for o in range(200)])
    table.append(frame, dict.fromkeys(range(3), (0, 200)))
    table.compact()
    read = table.scan().collect()
    assert read.schema == SCHEMA.frame_schema == frame.schema
    assert bits(read) == bits(frame)


def test_a_nan_and_a_negative_zero_are_kept(path: Path) -> None:
    schema = table_schema("floats", {"x": pl.Float64()})
    values = [float("nan"), -0.0, 0.0, float("inf"), struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\x7f")[0]]
    meta = {name: pl.Series([0] * 5, dtype=dtype) for name, dtype in META.items()} | {"_offset": pl.Series(range(5))}
    frame = pl.DataFrame({"x": values, **meta}).select(schema.frame_schema.names())
    table = LogTable.open(path, schema, "t")
    table.append(frame, {0: (0, 5)})
    assert bits(table.scan().collect()) == bits(frame)


def test_declared_times_are_times_for_other_tools(table: LogTable, path: Path) -> None:
    table.append(span(0, 0, 3), {0: (0, 3)})
    (file,) = path.rglob("*.parquet")
    assert pl.read_parquet_schema(file)["at"] == pl.Datetime("us", "UTC")


def test_an_unwritten_table_reads_as_empty_and_is_not_made(path: Path) -> None:
    table = LogTable.open(path, SCHEMA)
    assert table.scan().collect().schema == SCHEMA.frame_schema
    assert (table.version, table.watermark(), table.files(), table.topic_id) == (-1, {}, 0, None)
    assert not path.exists()


def test_a_reader_sees_what_was_committed_after_it_opened(table: LogTable, path: Path) -> None:
    reader = LogTable.open(path, SCHEMA)
    table.append(span(0, 0, 3), {0: (0, 3)})
    assert places(reader) == [(0, 0), (0, 1), (0, 2)]
    assert (reader.watermark(), reader.topic_id) == ({0: 3}, "topic-1")


def test_the_same_batch_again_adds_nothing(table: LogTable) -> None:
    assert table.append(span(0, 0, 5), {0: (0, 5)}) == 5
    version = table.version
    assert table.append(span(0, 0, 5), {0: (0, 5)}) == 0
    assert (table.version, table.watermark()) == (version, {0: 5})
    assert len(places(table)) == 5


def test_an_overlapping_batch_adds_only_what_is_new(table: LogTable) -> None:
    table.append(span(0, 0, 5), {0: (0, 5)})
    assert table.append(pl.concat([span(0, 3, 8), span(1, 0, 2)]), {0: (3, 8), 1: (0, 2)}) == 5
    assert places(table) == [(0, o) for o in range(8)] + [(1, 0), (1, 1)]
    assert table.watermark() == {0: 8, 1: 2}


def test_offsets_without_rows_are_covered_as_well(table: LogTable) -> None:
    """Rejected, aborted and compacted records leave holes; a range of nothing but holes advances the watermark."""
    table.append(rows_at([(0, 2)]), {0: (0, 5)})
    table.append(SCHEMA.frame_schema.to_frame(), {0: (5, 9), 2: (4, 6)})
    assert table.watermark() == {0: 9, 2: 6}
    assert places(table) == [(0, 2)]


def test_a_partition_begins_where_its_topic_begins(table: LogTable) -> None:
    table.append(span(0, 7, 9), {0: (7, 9)})
    assert table.watermark() == {0: 9}


def test_a_gap_is_refused_and_nothing_is_written(table: LogTable) -> None:
    table.append(span(0, 0, 5), {0: (0, 5)})
    with pytest.raises(Gap, match="log of event 'paid', partition 0: offsets 5 to 5 are missing") as caught:
        table.append(pl.concat([span(0, 6, 7), span(1, 0, 1)]), {0: (6, 7), 1: (0, 1)})
    assert (caught.value.expected, caught.value.got) == (5, 6)
    assert table.watermark() == {0: 5}


@pytest.mark.parametrize("place", [(0, 5), (0, -1), (1, 0)])
def test_a_row_outside_its_range_is_refused(table: LogTable, place: tuple[int, int]) -> None:
    with pytest.raises(StoreError, match="every row must lie in the range of its partition"):
        table.append(rows_at([place]), {0: (0, 5)})
    assert table.version <= 0


def test_of_two_writers_at_one_moment_one_wins_and_the_other_is_fenced(table: LogTable, path: Path) -> None:
    """Both have loaded the same version; the one that commits second is told by Delta, not by luck."""
    table.append(span(0, 0, 5), {0: (0, 5)})
    zombie = LogTable.open(path, SCHEMA, "topic-1")
    zombie.refresh = lambda: None  # type: ignore[method-assign]
    table.append(span(0, 5, 8), {0: (5, 8)})
    with pytest.raises(Fenced, match="log of event 'paid', partition 0 is owned by another worker"):
        zombie.append(span(0, 5, 9), {0: (5, 9)})
    assert places(table) == [(0, o) for o in range(8)]
    assert table.watermark() == {0: 8}


def test_a_commit_that_fails_for_another_reason_is_no_fence(table: LogTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.append(span(0, 0, 5), {0: (0, 5)})

    def fail(*_: object, **__: object) -> None:
        raise CommitFailedError("No space left on device")

    monkeypatch.setattr(log.deltalake, "write_deltalake", fail)
    with pytest.raises(StoreError, match=r"it could not append \(No space left on device\)"):
        table.append(span(0, 5, 6), {0: (5, 6)})


def test_writers_of_different_partitions_do_not_fence_each_other(table: LogTable, path: Path) -> None:
    table.append(pl.concat([span(0, 0, 1), span(1, 0, 1)]), {0: (0, 1), 1: (0, 1)})
    other = LogTable.open(path, SCHEMA, "topic-1")
    other.refresh = lambda: None  # type: ignore[method-assign]
    table.append(span(0, 1, 2), {0: (1, 2)})
    assert other.append(span(1, 1, 2), {1: (1, 2)}) == 1
    assert len(places(table)) == 4


def _write_all(path: Path, results: list[str], seed: int) -> None:
    """A writer as after a restart: from the watermark on, until it is fenced or done."""
    rng = random.Random(seed)
    table = LogTable.open(path, SCHEMA, "topic-1")
    try:
        while (start := table.watermark().get(0, 0)) < 60:
            upto = min(60, start + rng.randrange(1, 6))
            table.append(span(0, start, upto), {0: (start, upto)})
        results.append("done")
    except Fenced:
        results.append("fenced")


def test_writers_that_race_lose_nothing_and_double_nothing(table: LogTable, path: Path) -> None:
    table.append(SCHEMA.frame_schema.to_frame(), {0: (0, 0)})
    results: list[str] = []
    for round_ in range(20):
        threads = [threading.Thread(target=_write_all, args=(path, results, 10 * round_ + i)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if table.watermark() == {0: 60}:
            break
    assert places(table) == [(0, o) for o in range(60)]
    assert "fenced" in results


def _die_while_writing(path: Path, ready: object) -> None:
    table = LogTable.open(path, SCHEMA, "topic-1")
    while True:
        start = table.watermark().get(0, 0)
        table.append(span(0, start, start + 50), {0: (start, start + 50)})
        ready.set()  # type: ignore[attr-defined]


def test_a_writer_that_is_killed_leaves_a_whole_table(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for delay_s in (0.0, 0.013, 0.029):
        ready = context.Event()
        writer = context.Process(target=_die_while_writing, args=(path, ready))
        writer.start()
        assert ready.wait(60)
        threading.Event().wait(delay_s)
        writer.kill()
        writer.join()
        table = LogTable.open(path, SCHEMA, "topic-1")
        upto = table.watermark()[0]
        assert places(table) == [(0, o) for o in range(upto)]
        assert upto > 0


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 6)), max_size=8))
def test_any_sequence_of_appends_holds_each_offset_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    table = LogTable.open(tmp_path_factory.mktemp("log"), SCHEMA, "topic-1")
    held: dict[int, set[int]] = {}
    known: Mapping[int, int] = {}
    for partition, start, length in steps:
        upto = start + length
        if start > known.get(partition, start):
            with pytest.raises(Gap):
                table.append(span(partition, start, upto), {partition: (start, upto)})
            continue
        table.append(span(partition, start, upto), {partition: (start, upto)})
        first = known.get(partition, start)
        held.setdefault(partition, set()).update(range(max(first, start), upto))
        known = table.watermark()
    assert places(table) == sorted((p, o) for p, offsets in held.items() for o in offsets)


def test_a_table_of_another_topic_identity_is_refused(table: LogTable, path: Path) -> None:
    table.append(span(0, 0, 5), {0: (0, 5)})
    with pytest.raises(
        IdentityError, match="required topic id topic-1, .* got topic id topic-2; the topic was made anew"
    ):
        LogTable.open(path, SCHEMA, "topic-2")


def test_appending_needs_the_topics_identity(path: Path) -> None:
    with pytest.raises(StoreError, match="appending needs the id of the topic that is logged, but none was given"):
        LogTable.open(path, SCHEMA).append(span(0, 0, 1), {0: (0, 1)})


def test_an_added_field_is_null_in_old_rows_and_an_older_program_reads_on(table: LogTable, path: Path) -> None:
    table.append(span(0, 0, 2), {0: (0, 2)})
    wider_event = hr.Event("paid", fields={**PAID.fields, "tip": hr.float64(nullable=True)}, time="at")
    wider = LogTable.open(path, event_schema(wider_event), "topic-1")
    new = span(0, 2, 4).with_columns(tip=pl.lit(0.5)).select(wider.schema.frame_schema.names())
    wider.append(new, {0: (2, 4)})
    assert wider.scan().sort("_offset").collect()["tip"].to_list() == [None, None, 0.5, 0.5]
    assert table.scan().collect().schema == SCHEMA.frame_schema
    table.append(span(0, 4, 5), {0: (4, 5)})
    assert wider.scan().sort("_offset").collect()["tip"].to_list() == [None, None, 0.5, 0.5, None]


def test_a_field_whose_type_changed_is_refused(table: LogTable, path: Path) -> None:
    table.append(span(0, 0, 2), {0: (0, 2)})
    changed = hr.Event("paid", fields={**PAID.fields, "n": hr.float64()}, time="at")
    with pytest.raises(StoreError, match="column 'n' must be Int64, as in its files, but it is declared as Float64"):
        LogTable.open(path, event_schema(changed), "topic-1")


def test_compaction_bounds_the_files_and_changes_no_row(table: LogTable) -> None:
    for start in range(0, 60, 2):
        table.append(
            pl.concat([span(0, start, start + 2), span(1, start, start + 2)]),
            {0: (start, start + 2), 1: (start, start + 2)},
        )
    before = bits(table.scan().collect())
    done = table.compact()
    assert (done.files_before, done.files_after) == (60, 2)
    assert bits(table.scan().collect()) == before
    assert table.watermark() == {0: 60, 1: 60}


def test_a_writer_goes_on_while_its_table_is_compacted(table: LogTable, path: Path) -> None:
    for start in range(10):
        table.append(span(0, start, start + 1), {0: (start, start + 1)})
    refresh = table.refresh
    table.refresh = lambda: None  # type: ignore[method-assign]  # the writer has loaded; now the compaction commits
    LogTable.open(path, SCHEMA).compact()
    table.append(span(0, 10, 11), {0: (10, 11)})
    table.refresh = refresh  # type: ignore[method-assign]
    assert places(table) == [(0, o) for o in range(11)]


def test_replaced_files_stay_for_readers_and_go_with_their_time(table: LogTable, path: Path) -> None:
    for start in range(4):
        table.append(span(0, start, start + 1), {0: (start, start + 1)})
    version = table.version
    table.compact()
    assert len(table.scan(version=version).collect()) == 4
    assert len(list(path.rglob("*.parquet"))) == 5
    table.append(span(0, 4, 5), {0: (4, 5)})
    table.compact(keep_hours=0)
    assert len(list(path.rglob("*.parquet"))) == 1


def test_an_older_version_can_be_read(table: LogTable) -> None:
    table.append(span(0, 0, 2), {0: (0, 2)})
    version = table.version
    table.append(span(0, 2, 4), {0: (2, 4)})
    assert table.scan(version=version).collect()["_offset"].sort().to_list() == [0, 1]


def test_a_filter_by_partition_skips_the_files_of_others(table: LogTable, path: Path) -> None:
    table.append(pl.concat([span(0, 0, 2), span(1, 0, 2)]), {0: (0, 2), 1: (0, 2)})
    (file,) = path.glob("_partition=1/*.parquet")
    file.write_bytes(b"not read")
    assert table.scan().filter(pl.col("_partition") == 0).collect().height == 2


@pytest.mark.parametrize("directory", ["run=3/log", "with space/log", "ünïcode"])
def test_directories_above_a_table_may_have_any_name(tmp_path: Path, directory: str) -> None:
    table = LogTable.open(tmp_path / directory, SCHEMA, "topic-1")
    table.append(span(0, 0, 2), {0: (0, 2)})
    assert places(LogTable.open(tmp_path / directory, SCHEMA)) == [(0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("directory", "rule"),
    [
        ("card=3", "no directory above it may be called after one of its columns, but one begins with card="),
        ("per%20cent", "its path must have no percent sign"),
    ],
)
def test_a_directory_that_a_reader_would_mistake_is_refused(tmp_path: Path, directory: str, rule: str) -> None:
    with pytest.raises(StoreError, match=rf"{rule}.*set \[log\] path"):
        LogTable.open(tmp_path / directory / "log", SCHEMA)


def test_a_place_that_cannot_be_written_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    table = LogTable.open(tmp_path / "file" / "log", SCHEMA, "topic-1")
    with pytest.raises(StoreError, match=r"it could not create \(.*\); nothing was changed; .*\[log\] path"):
        table.append(span(0, 0, 1), {0: (0, 1)})


def test_a_damaged_table_is_told(table: LogTable, path: Path) -> None:
    table.append(span(0, 0, 1), {0: (0, 1)})
    for file in (path / "_delta_log").iterdir():
        file.write_bytes(b"{")
    with pytest.raises(StoreError, match="it could not read"):
        LogTable.open(path, SCHEMA)


def test_a_version_that_never_was_is_told(table: LogTable) -> None:
    table.append(span(0, 0, 1), {0: (0, 1)})
    with pytest.raises(StoreError, match="log of event 'paid' at .*: it could not read"):
        table.scan(version=99)


def test_the_projects_tables_lie_where_its_settings_say(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("", encoding="utf-8")
    loaded = load_settings(tmp_path, {})
    assert event_log(loaded, PAID).path == tmp_path / ".headrace/log/events/paid"
    assert prediction_log(loaded).path == tmp_path / ".headrace/log/predictions"
    assert prediction_log(loaded).schema == prediction_schema()


def test_rows_that_arrived_too_long_ago_go_and_the_watermark_stays(tmp_path: Path) -> None:
    table = LogTable.open(tmp_path / "paid", SCHEMA, "topic")
    stamped = [(0, 5), (1, 50), (2, -1), (3, -1)]  # offset, and Kafka's timestamp: -1 where there was none
    frame = rows_at([(0, offset) for offset, _ in stamped]).with_columns(
        _timestamp_us=pl.Series([stamp for _, stamp in stamped], dtype=pl.Int64()),
        _received_us=pl.Series([1, 1, 5, 50], dtype=pl.Int64()),
    )
    table.append(frame, {0: (0, 4)})
    assert table.retain(20) == 2
    assert places(table) == [(0, 1), (0, 3)]
    assert table.watermark() == {0: 4}
    assert table.append(frame, {0: (0, 4)}) == 0  # what went does not come again
    assert table.retain(20) == 0
