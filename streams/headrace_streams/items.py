"""What flows through the feature pipeline: a page of types.

    source ──Opening──▶ every shard        claim your lanes; this is where I begin
    source ──Polled──▶ decode ──Slice──▶ shard        one batch, its view's rows and ranges
    source ──Logged──▶ decode ──Slice──▶ shard        the same, from the log
    source ──Tick──▶ every shard           nothing more for now: bring everything to its end
    source ──Stop──▶ every shard           the last item

A shard is a share of the lanes of every view (lane % shards). All of these cross process borders in a group of several
workers, so they are plain data. What may not live here: behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from headrace.kernel import EventBatch
from headrace_schemas.batches import RawBatch
from headrace_schemas.stores.lanes import Watermark
from headrace_streams.cache import Packed


@dataclass(frozen=True, slots=True)
class TopicStart:
    """Where a source begins to read a topic.

    Args:
        topic_id: the broker's id of the topic.
        partitions: how many it has.
        starts: for each partition that this source reads, the first offset it will read and what stands before it.
        firsts: for each of them, where a lane may begin that holds nothing of it.
    """

    topic_id: str
    partitions: int
    starts: Mapping[int, Watermark]
    firsts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Opening:
    """The first item of every source to every shard, so that idle lanes are claimed too.

    Args:
        source: which source speaks.
        sources: how many there are.
        topics: what it reads, by topic.
    """

    source: int
    sources: int
    topics: Mapping[str, TopicStart]


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of one partition that a batch covers: [start, upto.next), records that do not exist included."""

    partition: int
    start: int
    upto: Watermark


@dataclass(frozen=True, slots=True)
class Polled:
    """One poll's records of one topic, and the ranges that they cover."""

    raw: RawBatch
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """Rows of one topic that the log holds, decoded and judged, and the ranges that they cover."""

    topic: str
    frame: pl.DataFrame
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """One shard's rows of one batch, for one view.

    Args:
        view: the view's place in the project.
        spans: the ranges that the batch covers, rows or not.
        keys: entity keys of the rows.
        events: the rows.
    """

    view: int
    spans: tuple[Span, ...]
    keys: Packed
    events: EventBatch


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing more for now."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The last item of a source.

    Args:
        source: which source.
    """

    source: int
