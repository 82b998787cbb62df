"""The offline log: one Delta table per event and one for predictions, written by one writer per table partition.

Exactly once, through the table itself: every commit carries, for each Kafka partition, the offset behind the last record that
it covers (a Delta application transaction ``<topic id>/<partition>``), and the digest of that record (``…/digest``). An append loads the newest handle, compares, cuts off
the rows below, and commits *through that handle*; if somebody else advanced the same partition in between, Delta reports the
conflict, nothing is written, and the writer is fenced. Delta does not compare application transactions by itself, so the
comparison here is what keeps a restarted writer from appending twice.

A table belongs to one topic identity; a topic that was re-created counts from zero and must not continue it. What may not
live here: what the columns mean (``tables.py``), decoding, when to commit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import deltalake
import polars as pl
from arro3.core import Table as ArrowTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

import headrace as hr
from headrace.errors import Fenced, Gap, IdentityError, StoreError
from headrace_schemas.settings import Settings
from headrace_schemas.tables import OFFSET, PARTITION, TableSchema, event_schema

_TOPIC_ID = "headrace.topicId"
# Checkpoints keep loading short however many commits there are; commits are kept as long as the files that they name.
_CONFIGURATION = {"delta.checkpointInterval": "50", "delta.logRetentionDuration": "interval 7 days"}
_WRITER = deltalake.WriterProperties(compression="ZSTD", compression_level=1)
_COMPACT_FILE_BYTES = 128 * 1024 * 1024
_DIGEST_BYTES = 8
_KEEP_HOURS = 7 * 24  # how long files that compaction replaced stay for readers of older versions


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did."""

    files_before: int
    files_after: int


class LogTable:
    """One Delta table of records with Kafka offsets.

    Opening makes nothing: a table that nobody wrote yet reads as empty. The first append makes it.

    Args:
        path: the table's directory.
        schema: its columns.
        topic_id: the broker's id of the topic that it is filled from; needed to append and to ask for a watermark of a
            table that does not exist yet.

    Raises:
        IdentityError: the table was filled from another topic identity.
        StoreError: the directory is not readable as a table, or its columns have other types.
    """

    def __init__(self, path: Path, schema: TableSchema, topic_id: str | None = None) -> None:
        self.path, self.schema = Path(path).absolute(), schema
        self._check_path()
        self._topic_id = topic_id
        self._table: deltalake.DeltaTable | None = None
        self.refresh()

    @classmethod
    def open(cls, path: Path, schema: TableSchema, topic_id: str | None = None) -> LogTable:
        """The table at a path; see the class."""
        return cls(path, schema, topic_id)

    @property
    def version(self) -> int:
        """The version of the newest commit that this handle has seen; -1 before the first."""
        return -1 if self._table is None else int(self._table.version())

    @property
    def topic_id(self) -> str | None:
        """The topic identity that the table is filled from."""
        return self._topic_id

    def refresh(self) -> None:
        """See what others have committed."""
        with self._errors("read"):
            if self._table is not None:
                self._table.update_incremental()
                return
            with contextlib.suppress(TableNotFoundError):
                self._table = deltalake.DeltaTable(str(self.path))
        if self._table is not None:
            self._check_identity(self._table)
            self._check_types(self._table)

    def watermark(self) -> dict[int, int]:
        """The offset behind the last covered record, by Kafka partition, as of the newest commit."""
        self.refresh()
        return self._watermark()

    def digests(self) -> dict[int, str]:
        """The digest of the record before the watermark, by Kafka partition, where the last commit was given one."""
        if self._table is None:
            return {}
        found = {p: self._table.transaction_version(self._app(f"{p}/digest")) for p in range(self._partitions())}
        return {p: (number % 2**64).to_bytes(_DIGEST_BYTES).hex() for p, number in found.items() if number}

    def append(
        self,
        frame: pl.DataFrame,
        progress: Mapping[int, tuple[int, int]],
        digests: Mapping[int, str] | None = None,
    ) -> int:
        """Add the rows that are not there yet, and advance the watermark, in one commit.

        Args:
            frame: rows of the table's columns; each lies in the range of its partition.
            progress: per partition the covered range (from, next): offsets that hold no row (rejected, aborted or compacted
                records) are covered as well.
            digests: per partition the digest of the record before `next`, in hexadecimal; empty where there is none.

        Returns:
            The number of rows added: 0 where everything was there already.

        Raises:
            Gap: a range begins behind the watermark; nothing is written.
            Fenced: somebody else advanced one of these partitions meanwhile; nothing is written.
            StoreError: the disk refused, or a row lies outside its range; nothing is written.
        """
        self.refresh()
        table = self._table if self._table is not None else self._create()
        known = self._watermark()
        for partition, (start, _) in progress.items():
            if start > known.get(partition, start):
                raise Gap(f"log of {self.schema.name}, partition {partition}", known[partition], start)
        advance = {p: upto for p, (start, upto) in progress.items() if upto > known.get(p, start)}
        rows = self._rows(frame, progress, known)
        if advance:
            self._commit(table, rows, advance, known, digests or {})
        return rows.height

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows, lazily; filters on ``_partition`` and ``_offset`` skip files. The order is not promised.

        Args:
            version: the version to read; by default the newest.

        The values are bit for bit those that were appended.
        """
        self.refresh()
        table = self._table
        if version is not None:
            with self._errors("read"):
                table = deltalake.DeltaTable(str(self.path), version=version)
        return self._lazily([] if table is None else self._files(table))

    def _lazily(self, files: list[Path]) -> pl.LazyFrame:
        if not files:
            return pl.LazyFrame(schema=self.schema.frame_schema)
        stored = pl.scan_parquet(
            files,
            schema=self.schema.held_schema,
            hive_partitioning=True,
            # Directories above the table may look like partitions as well, and polars wants to be told of them.
            hive_schema={PARTITION: pl.Int32(), **dict.fromkeys(_hive_names(self.path), pl.String())},
            missing_columns="insert",  # files from before a field was added
            extra_columns="ignore",  # files from after one, read by an older program
        )
        return stored.select(column.from_stored() for column in self.schema.columns)

    def read(self, partition: int, start: int, upto: int) -> pl.DataFrame:
        """The rows of one partition in a range of offsets, by offset, as of the newest commit that this handle has seen.

        Only files whose range of offsets meets the range are opened.
        """
        if self._table is None:
            return pl.DataFrame(schema=self.schema.frame_schema)
        actions = pl.DataFrame(self._table.get_add_actions(flatten=True))
        lowest, highest = f"min.{OFFSET}", f"max.{OFFSET}"
        meets = (pl.col(f"partition.{PARTITION}").cast(pl.Int32) == partition) & ~(
            (pl.col(lowest) >= upto) | (pl.col(highest) < start)
        ).fill_null(value=False)
        paths = [self.path / str(path) for path in actions.filter(meets)["path"].to_list()]
        rows = self._lazily(paths).filter(pl.col(OFFSET).is_between(start, upto, closed="left"))
        with self._errors("read"):
            return rows.sort(OFFSET).collect()

    def drop(self, places: Iterable[tuple[int, int]]) -> int:
        """Take single rows out, such as those that were found to be poison; how many.

        Args:
            places: partitions and offsets.
        """
        known = self.watermark()
        held = [(partition, offset) for partition, offset in places if offset < known.get(partition, 0)]
        if self._table is None or not held:
            return 0
        return self.delete(
            " OR ".join(f"({PARTITION} = {partition} AND {OFFSET} = {offset})" for partition, offset in held)
        )

    def delete(self, predicate: str) -> int:
        """Take rows out; how many. Files that hold one are written anew without them, appends go on meanwhile.

        Args:
            predicate: in SQL, over the stored columns.
        """
        self.refresh()
        if self._table is None:
            return 0
        with self._errors("drop rows from"):
            done = self._table.delete(predicate, writer_properties=_WRITER)
        return int(done.get("num_deleted_rows") or 0)

    def retain(self, since_us: int) -> int:
        """Take out what arrived before a moment; how many rows. Rows without a recorded arrival go by when they were received.

        Args:
            since_us: microseconds since 1970.
        """
        # Plain comparisons, so that the statistics of a file rule it out without its being read.
        return self.delete(
            f"(_timestamp_us >= 0 AND _timestamp_us < {since_us}) OR (_timestamp_us < 0 AND _received_us < {since_us})"
        )

    def files(self) -> int:
        """The number of live data files: what makes commits and scans slow when it grows."""
        self.refresh()
        return 0 if self._table is None else len(self._files(self._table))

    def compact(self, *, keep_hours: int = _KEEP_HOURS) -> Compacted:
        """Merge small files; rows and offsets stay as they are, and appends go on meanwhile.

        Args:
            keep_hours: files that were replaced longer ago than this are deleted. A reader of an older version that runs
                longer than this fails.
        """
        before = self.files()
        if self._table is not None and before:
            with self._errors("compact"):
                self._table.optimize.compact(target_size=_COMPACT_FILE_BYTES, writer_properties=_WRITER)
                self._table.vacuum(retention_hours=keep_hours, dry_run=False, enforce_retention_duration=False)
        return Compacted(files_before=before, files_after=self.files())

    def _files(self, table: deltalake.DeltaTable) -> list[Path]:
        # Not file_uris(): it percent-encodes the directories above the table, and no reader decodes them again.
        return [self.path / str(relative) for relative in table.get_add_actions().column("path").to_pylist()]

    def _watermark(self) -> dict[int, int]:
        if self._table is None:
            return {}
        found = {p: self._table.transaction_version(self._app(p)) for p in range(self._partitions())}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def _partitions(self) -> int:
        # Delta answers for one application at a time, so one of them counts how many there are to ask for.
        assert self._table is not None
        return self._table.transaction_version(self._app("partitions")) or 0

    def _app(self, partition: int | str) -> str:
        return f"{self._topic_id}/{partition}"

    def _create(self) -> deltalake.DeltaTable:
        if self._topic_id is None:
            raise StoreError(
                f"log of {self.schema.name} at {self.path}: appending needs the id of the topic that is logged, "
                f"but none was given; open the table with topic_id"
            )
        columns = ArrowTable.from_arrow(pl.DataFrame(schema=self.schema.stored_schema)).schema
        with self._errors("create"):
            self.path.mkdir(parents=True, exist_ok=True)
            # "ignore": of two writers that make it at once one does, and both go on with what is there.
            deltalake.DeltaTable.create(
                str(self.path),
                columns,
                mode="ignore",
                partition_by=[PARTITION],
                configuration={**_CONFIGURATION, _TOPIC_ID: self._topic_id},
                raise_if_key_not_exists=False,
            )
        self.refresh()
        assert self._table is not None
        return self._table

    def _check_path(self) -> None:
        clash = _hive_names(self.path) & set(self.schema.frame_schema)
        if clash:
            rule = f"no directory above it may be called after one of its columns, but one begins with {min(clash)}="
        elif "%" in str(self.path):
            rule = "its path must have no percent sign, which Delta takes for an escaped character"
        else:
            return
        raise StoreError(f"log of {self.schema.name} at {self.path}: {rule}; set [log] path to another directory")

    def _check_identity(self, table: deltalake.DeltaTable) -> None:
        recorded = table.metadata().configuration.get(_TOPIC_ID)
        if self._topic_id is not None and recorded != self._topic_id:
            raise IdentityError(
                self.schema.name,
                required=f"topic id {recorded}, from which the log at {self.path} was filled",
                got=f"topic id {self._topic_id}",
                remedy="the topic was made anew: set [log] path to a new directory, or move this one away",
            )
        self._topic_id = recorded

    def _check_types(self, table: deltalake.DeltaTable) -> None:
        held = pl.DataFrame(ArrowTable.from_pydict({}, schema=table.schema().to_arrow())).schema
        for column in self.schema.columns:
            if column.name in held and held[column.name] != column.stored:
                raise StoreError(
                    f"log of {self.schema.name} at {self.path}: column {column.name!r} must be {held[column.name]}, as in "
                    f"its files, but it is declared as {column.stored}; give the changed event a new name, "
                    f"or set [log] path to a new directory"
                )

    def _rows(
        self, frame: pl.DataFrame, progress: Mapping[int, tuple[int, int]], known: Mapping[int, int]
    ) -> pl.DataFrame:
        """The rows to add, in stored form: those at or above the watermark."""
        ranges = pl.DataFrame(
            {
                PARTITION: list(progress),
                "_from": [start for start, _ in progress.values()],
                "_next": [upto for _, upto in progress.values()],
                "_known": [known.get(partition, start) for partition, (start, _) in progress.items()],
            },
            schema={PARTITION: pl.Int32(), "_from": pl.Int64(), "_next": pl.Int64(), "_known": pl.Int64()},
        )
        placed = frame.join(ranges, on=PARTITION, how="left", maintain_order="left")
        inside = placed.select(
            pl.col(OFFSET).is_between("_from", "_next", closed="left").fill_null(value=False)
        ).to_series()
        if not inside.all():
            row = placed.filter(~inside).row(0, named=True)
            raise StoreError(
                f"log of {self.schema.name}: every row must lie in the range of its partition, but partition "
                f"{row[PARTITION]} has offset {row[OFFSET]} and range {progress.get(row[PARTITION])}; pass the range of the batch"
            )
        fresh = placed.filter(pl.col(OFFSET) >= pl.col("_known"))
        return fresh.select(column.to_stored() for column in self.schema.columns)

    def _commit(
        self,
        table: deltalake.DeltaTable,
        rows: pl.DataFrame,
        advance: Mapping[int, int],
        known: Mapping[int, int],
        digests: Mapping[int, str],
    ) -> None:
        transactions = [deltalake.Transaction(self._app(p), upto) for p, upto in sorted(advance.items())]
        transactions += [deltalake.Transaction(self._app(f"{p}/digest"), _number(digests.get(p, ""))) for p in advance]
        partitions = max(advance) + 1
        if partitions > self._partitions():
            transactions.append(deltalake.Transaction(self._app("partitions"), partitions))
        columns = {field.name for field in table.schema().fields}
        with self._errors("append"):
            try:
                deltalake.write_deltalake(
                    table,
                    rows,
                    mode="append",
                    # Only where the columns differ: it rewrites the table's metadata, which conflicts with other commits.
                    schema_mode=None if columns == set(rows.columns) else "merge",
                    writer_properties=_WRITER,
                    commit_properties=deltalake.CommitProperties(app_transactions=transactions),
                )
            except CommitFailedError as error:
                table.update_incremental()
                moved = [str(p) for p, offset in self._watermark().items() if p in advance and offset != known.get(p)]
                if not moved:
                    raise  # the commit failed for another reason, such as a full disk
                raise Fenced(f"log of {self.schema.name}, partition {', '.join(moved)}") from error

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (DeltaError, OSError) as error:
            raise StoreError(
                f"log of {self.schema.name} at {self.path}: it could not {verb} ({error}); nothing was changed; "
                f"free space or mend the directory's permissions, or set [log] path to another directory"
            ) from error


def _number(digest: str) -> int:
    """A digest as the number that an application transaction can carry."""
    return int.from_bytes(bytes.fromhex(digest), signed=True) if digest else 0


def _hive_names(path: Path) -> set[str]:
    return {part.split("=", 1)[0] for part in path.parts if "=" in part}


def event_log(settings: Settings, event: hr.Event, topic_id: str | None = None) -> LogTable:
    """The log of an event's validated records.

    Args:
        settings: the project's.
        event: the event.
        topic_id: the broker's id of its topic; a writer gives it, a reader need not.
    """
    return LogTable.open(settings.log_path / "events" / event.name, event_schema(event), topic_id)


def prediction_log(settings: Settings, topic_id: str | None = None) -> LogTable:
    """The log of served predictions."""
    from headrace_schemas.predictions import prediction_schema

    return LogTable.open(settings.log_path / "predictions", prediction_schema(), topic_id)
