"""The log as a source: what the topic no longer keeps is read from there, up to the first offset that it still keeps.

    log ──Logged [from, next)──▶ … ──▶ Logged up to the hand-over │ Polled from there on ◀── Kafka

The rows were decoded and judged when they were logged; offsets without a row (rejects, aborted records) lie inside the ranges, as
with the topic. Partitions take turns, in pieces of bounded size. What may not live here: deciding whether the log has everything
(`headrace_streams.starts`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl

from headrace_schemas.stores.lanes import Watermark
from headrace_schemas.stores.log import LogTable
from headrace_streams.items import Logged, Polled, Span
from headrace_streams.journal import Journal

_OFFSETS_AT_ONCE = 400_000  # read from disk
_ROWS_AT_ONCE = 40_000  # folded


class History:
    """Ranges of one topic, from its log.

    Args:
        topic: the topic.
        log: its log; what is committed to it later is not looked at.
        starts: by partition, the first offset to read.
        upto: by partition, where to end.
    """

    def __init__(self, topic: str, log: LogTable, starts: Mapping[int, int], upto: Mapping[int, Watermark]) -> None:
        self.topic, self.starts, self.upto = topic, dict(starts), dict(upto)
        self._log = log
        self._turns = deque((partition, starts[partition]) for partition in sorted(upto))
        self._ready: deque[Logged] = deque()

    def next(self) -> Logged | None:
        """The next piece; None at the end."""
        while not self._ready and self._turns:
            partition, start = self._turns.popleft()
            end = self.upto[partition]
            stop = min(start + _OFFSETS_AT_ONCE, end.next)
            self._cut(partition, start, end if stop == end.next else Watermark(stop))
            if stop < end.next:
                self._turns.append((partition, stop))
        return self._ready.popleft() if self._ready else None

    def _cut(self, partition: int, start: int, upto: Watermark) -> None:
        rows = self._log.read(partition, start, upto.next)
        for first in range(0, rows.height, _ROWS_AT_ONCE):
            piece = rows[first : first + _ROWS_AT_ONCE]
            if first + _ROWS_AT_ONCE < rows.height:
                behind = Watermark(int(piece["_offset"][-1]) + 1)
                start = self._put(partition, start, piece, behind)
            else:
                self._put(partition, start, piece, upto)
        if not rows.height:
            self._put(partition, start, rows, upto)

    def _put(self, partition: int, start: int, rows: pl.DataFrame, upto: Watermark) -> int:
        self._ready.append(Logged(self.topic, rows, (Span(partition, start, upto),)))
        return upto.next


class Source(Protocol):
    """What reads the topics."""

    @property
    def pause_ms(self) -> int: ...
    def poll(self) -> Sequence[Polled]: ...
    def close(self) -> None: ...


class HistoryFirst:
    """A source that reads the log, where it has to, and then the topics.

    Args:
        histories: of each topic that needs one.
        source: the topics, from where the histories end.
        journal: where the beginning and the end are reported.
    """

    def __init__(self, histories: Sequence[History], source: Source, journal: Journal) -> None:
        self._histories, self._source, self._journal = deque(histories), source, journal
        self.pause_ms = source.pause_ms
        self._rows = 0
        for history in histories:
            upto = {partition: mark.next for partition, mark in history.upto.items()}
            journal.note("hydrating", topic=history.topic, starts=history.starts, upto=upto)

    def poll(self) -> Sequence[Polled | Logged]:
        """One piece of history, or what has arrived; see `KafkaSource.poll`."""
        while self._histories:
            piece = self._histories[0].next()
            if piece is not None:
                self._rows += piece.frame.height
                return [piece]
            self._journal.note("hydrated", topic=self._histories.popleft().topic, rows=self._rows)
        return self._source.poll()

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()
