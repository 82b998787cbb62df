"""Buckets: an event log divided by entity, so that memory is bounded by a bucket and not by the log.

A small log is one bucket and never touches the disk. A large one is read once, batch by batch, and each batch is divided by
the hash of its entity keys into files that are read back one after another::

    log ──► batch ──► key hash % buckets ──► bucket-0.arrow   bucket-1.arrow   …

All events of an entity, and all its rows, lie in one bucket. What must not live here: what happens to a bucket.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from headrace.kernel import hash_keys
from headrace_schemas.keys import encode_keys

BUCKET_EVENTS = 10_000_000
"""Events per bucket: about 1 GB while a bucket of twelve features is being swept."""

BATCH_EVENTS = 500_000


def count_buckets(events: int, bucket_events: int = BUCKET_EVENTS) -> int:
    """How many buckets a log of some events needs.

    >>> count_buckets(25_000_000), count_buckets(0)
    (3, 1)
    """
    return max(1, -(-events // bucket_events))


def bucket_of(data: NDArray[np.uint8], offsets: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """The bucket of each packed entity key."""
    # The upper bits: lanes are cut from the lower ones, and a log of one lane must still spread.
    return ((hash_keys(data, offsets) >> np.uint64(32)) % np.uint64(buckets)).astype(np.int64)


def divide_log(events: pl.LazyFrame, key_fields: Sequence[str], buckets: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """The events of each bucket: (bucket, frame).

    Args:
        events: the log's columns that are needed; the order of rows is not kept.
        key_fields: the columns of the entity key.
        buckets: how many.
    """
    if buckets == 1:
        yield 0, events.collect(engine="streaming")
        return
    with tempfile.TemporaryDirectory(prefix="headrace-buckets-") as directory:
        paths = _spill(events, key_fields, [Path(directory) / f"bucket-{i}.arrow" for i in range(buckets)])
        for bucket, path in enumerate(paths):
            yield bucket, pl.read_ipc_stream(path)
            path.unlink()


def _spill(events: pl.LazyFrame, key_fields: Sequence[str], paths: Sequence[Path]) -> Sequence[Path]:
    schema = pl.DataFrame(schema=events.collect_schema()).to_arrow().schema
    with ExitStack() as open_files:
        writers = [open_files.enter_context(pa.ipc.new_stream(str(path), schema)) for path in paths]
        for batch in events.collect_batches(chunk_size=BATCH_EVENTS, maintain_order=False):
            bucket = bucket_of(*encode_keys(batch, key_fields), len(paths))
            order = np.argsort(bucket, kind="stable")
            arranged, cuts = batch[order], np.searchsorted(bucket[order], np.arange(len(paths) + 1))
            for writer, start, stop in zip(writers, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
                if stop > start:
                    writer.write_table(arranged[start:stop].to_arrow().cast(schema))
    return paths
