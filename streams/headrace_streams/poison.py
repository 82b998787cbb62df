"""Records that end the process that handles them: found row by row, written down for all readers, set aside.

    two unforeseen ends, and some partition is where it was ──▶ the next group is one careful process:
                              one record at a time, its place in a file while it is handled
    it ends at a place    ──▶ careful again
    the same place again  ──▶ that record is poison: a line on the topic <namespace>.poison, which every reader of events reads

A crash of native code leaves no exception, but it leaves the file. A service that is away or refuses is nobody's fault and leaves
nothing. What may not live here: deciding to start again.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headrace.errors import CodecError, ContractError, HeadraceError, NotFound, ServiceUnavailable
from headrace_schemas.batches import RawBatch, Reject
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import FOR_EVER, TopicReader, end_offsets, ensure_topics, producer
from headrace_streams.items import Logged, Polled, Slice, Span, Tick

CODE = "poison"
_CAREFUL_ROWS = 20_000  # so many one by one; what ended the process was among the first
_ENDS, _SOON_S = 2, 120.0  # so many unforeseen ends within that time are no accident
_BLANK = b" " * 4096
_WRITE_S = 30.0
_AT_ONCE = 20  # items of one poll, so that the sink gets its turn
MAYBE, SURE = "maybe", "sure"  # how careful a group shall be: if it is stuck, or in any case


def poison_topic(namespace: str) -> str:
    """The topic that names the records of a namespace that no reader may handle.

    >>> poison_topic("flights")
    'flights.poison'
    """
    return f"{namespace}.poison"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies, and what happened there."""

    topic_id: str
    partition: int
    offset: int
    reason: str = ""

    def is_at(self, other: Place) -> bool:
        """Whether it is the same record."""
        return (self.topic_id, self.partition, self.offset) == (other.topic_id, other.partition, other.offset)


Poison = Mapping[str, Mapping[tuple[int, int], str]]
"""By topic id, the places that are poison, with the reason."""


def read_poison(settings: Settings) -> Poison:
    """All records that were found to be poison.

    Raises:
        ServiceUnavailable: Kafka is away.
    """
    found: dict[str, dict[tuple[int, int], str]] = {}
    with contextlib.suppress(NotFound), TopicReader(settings.kafka, poison_topic(settings.namespace)) as reader:
        for message in reader.read_to_end():
            place = Place(**json.loads(message.value() or b"{}"))
            found.setdefault(place.topic_id, {})[place.partition, place.offset] = place.reason
    return found


def write_poison(settings: Settings, place: Place) -> None:
    """Write a record down as poison, for all readers and for ever.

    Raises:
        ServiceUnavailable: Kafka did not take it.
    """
    topic = poison_topic(settings.namespace)
    ensure_topics(settings.kafka, {topic: 1}, config=FOR_EVER)
    sender = producer(settings.kafka)
    sender.produce(
        topic, json.dumps(asdict(place)).encode(), f"{place.topic_id}/{place.partition}/{place.offset}".encode()
    )
    if sender.flush(_WRITE_S):
        raise ServiceUnavailable("Kafka", settings.kafka, "what was found to be poison was not acknowledged in time")


def sift(raw: RawBatch, known: Mapping[tuple[int, int], str]) -> tuple[RawBatch, list[Reject]]:
    """The rows of a batch that may be handled, and rejects for the others; rejects count rows of the whole batch."""
    if not known:
        return raw, []
    rows = [
        row for row, place in enumerate(zip(raw.partition.tolist(), raw.offset.tolist(), strict=True)) if place in known
    ]
    if not rows:
        return raw, []
    rejects = [Reject(row, known[int(raw.partition[row]), int(raw.offset[row])], CODE) for row in rows]
    return take(raw, np.delete(np.arange(len(raw)), rows).tolist()), rejects


def without(frame: pl.DataFrame, known: Mapping[tuple[int, int], str]) -> pl.DataFrame:
    """Rows of the log that may be handled."""
    if not known:
        return frame
    places = pl.DataFrame(list(known), schema={"_partition": pl.Int32(), "_offset": pl.Int64()}, orient="row")
    return frame.join(places, on=["_partition", "_offset"], how="anti", maintain_order="left")


def take(raw: RawBatch, rows: Sequence[int]) -> RawBatch:
    """Some rows of a batch."""
    return RawBatch(
        raw.topic, raw.partition[rows], raw.offset[rows], raw.timestamp_us[rows], raw.timestamp_type[rows], raw.received_us,
        [raw.keys[row] for row in rows], [raw.values[row] for row in rows],
    )  # fmt: skip


class PlaceFile:
    """Says which record a process is handling, so that it can be asked after the process has ended.

    Args:
        settings: of the project.
        role: ``stream`` or ``log``.
        worker: the process' number.
    """

    def __init__(self, settings: Settings, role: str, worker: int) -> None:
        self._path = _file(settings, "handling", role, worker)

    def read(self) -> Place | None:
        """The record that was being handled; None if none was."""
        try:
            text = self._path.read_bytes().strip()
            return Place(**json.loads(text)) if text else None
        except (OSError, ValueError, TypeError):
            return None

    def forget(self) -> None:
        """Nothing is being handled."""
        self._path.unlink(missing_ok=True)

    def open(self) -> Handling:
        """Begin to say so."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return Handling(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644))


def stands_still(settings: Settings, role: str, worker: int, starts: Mapping[str, Mapping[int, int]]) -> bool:
    """Whether a process begins, in some partition that has more, where the group before it had begun.

    Args:
        settings: of the project.
        role: ``stream`` or ``log``.
        worker: the process' number.
        starts: by topic and partition, where it begins; it is remembered.
    """
    before = _starts_before(settings, role)
    path = _file(settings, "started", role, worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(starts))
    same = {t: [p for p, at in of.items() if (t, str(p), at) in before] for t, of in starts.items()}
    for topic, partitions in same.items():
        ends = end_offsets(settings.kafka, topic) if partitions else {}
        if any(starts[topic][partition] < ends.get(partition, 0) for partition in partitions):
            return True
    return False


def _starts_before(settings: Settings, role: str) -> set[tuple[str, str, int]]:
    """Where all processes of the group before had begun, however many they were: (topic, partition, offset)."""
    found: set[tuple[str, str, int]] = set()
    first = _file(settings, "started", role, 0)
    for path in first.parent.glob(glob.escape(first.name[:-1]) + "*"):
        with contextlib.suppress(OSError, ValueError):
            starts = json.loads(path.read_text())
            found |= {(topic, partition, at) for topic, of in starts.items() for partition, at in of.items()}
    return found


def _file(settings: Settings, what: str, role: str, worker: int) -> Path:
    return settings.run_path / f"{what}-{settings.namespace}-{role}-{worker}"


class Handling:
    """One record at a time: the source's batches cut into single ones, each named while it is decoded and while it is folded.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = _CAREFUL_ROWS
        self._ids: dict[str, str] = {}

    @property
    def over(self) -> bool:
        """Whether so many went well that it is enough."""
        return self._left <= 0

    def begins(self, topic_ids: Mapping[str, str]) -> None:
        """Learn the topics' ids."""
        self._ids.update(topic_ids)

    @contextmanager
    def at(self, place: Place | None) -> Iterator[None]:
        """While a record is handled."""
        if place is None or self.over:
            yield
            return
        self._write(place)
        try:
            yield
        except (ContractError, CodecError) as error:
            self._write(_because(place, error))
            raise
        except HeadraceError:
            self._write(None)  # a service, a lane: nothing that a record can be blamed for
            raise
        except Exception as error:
            self._write(_because(place, error))
            raise
        self._write(None)

    def _write(self, place: Place | None) -> None:
        text = b"" if place is None else json.dumps(asdict(place)).encode()[: len(_BLANK)]
        os.pwrite(self._descriptor, text.ljust(len(_BLANK)), 0)

    def cut(self, items: Sequence[Polled | Logged]) -> list[Any]:
        """Single records, each brought to its end before the next one begins."""
        if self.over:
            return list(items)
        pieces: list[Any] = []
        for item in items:
            for piece in singles(item):
                pieces += [piece, Tick()]
                self._left -= 1
        return pieces

    def decoding(self, decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`decode`, with the record named."""

        def named(batch: Polled | Logged) -> Any:
            with self.at(self._place(batch)):
                return list(decode(batch))

        return named

    def _place(self, batch: Polled | Logged) -> Place | None:
        if isinstance(batch, Logged):
            topic, offsets = batch.topic, batch.frame["_offset"].to_list()
        else:
            topic, offsets = batch.raw.topic, batch.raw.offset.tolist()
        return Place(self._ids[topic], batch.spans[0].partition, offsets[0]) if len(offsets) == 1 else None


class NamedSink:
    """A sink whose records are named while they are folded.

    Args:
        sink: does it.
        handling: names them.
        topic_of: the id of the topic of an item.
    """

    def __init__(self, sink: Any, handling: Handling, topic_of: Callable[[Any], str]) -> None:
        self._sink, self._handling, self._topic_of = sink, handling, topic_of

    def write(self, items: Sequence[Any]) -> None:
        """Take items in their order, each to its end."""
        for item in items:
            place = None
            if isinstance(item, Slice) and len(item.events.offset) == 1:
                place = Place(self._topic_of(item), int(item.events.partition[0]), int(item.events.offset[0]))
            with self._handling.at(place):
                self._sink.write([item])

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()


class CarefulSource:
    """A source whose batches are cut into single records for a while.

    Args:
        source: the source.
        handling: cuts them.
    """

    def __init__(self, source: Any, handling: Handling) -> None:
        self._source, self._handling = source, handling
        self._waiting: deque[Any] = deque()
        self.pause_ms = source.pause_ms

    def poll(self) -> Sequence[Any]:
        """What the source has, one by one."""
        if not self._waiting:
            self._waiting.extend(self._handling.cut(self._source.poll()))
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()


def singles(batch: Polled | Logged) -> list[Polled | Logged]:
    """A batch as one batch for each record; what lies behind the last record of a partition goes with it, or alone."""

    def some(rows: range, *spans: Span) -> Polled | Logged:
        if isinstance(batch, Logged):
            return Logged(batch.topic, batch.frame[rows.start : rows.stop], spans)
        return Polled(take(batch.raw, list(rows)), spans)

    if isinstance(batch, Logged):
        partitions, offsets = batch.frame["_partition"].to_list(), batch.frame["_offset"].to_list()
    else:
        partitions, offsets = batch.raw.partition.tolist(), batch.raw.offset.tolist()
    places = list(zip(partitions, offsets, strict=True))
    starts = {span.partition: span.start for span in batch.spans}
    ends = {span.partition: span.upto for span in batch.spans}
    last = {partition: row for row, (partition, _) in enumerate(places)}
    pieces = []
    for row, (partition, offset) in enumerate(places):
        upto = ends[partition]
        if row != last[partition] or upto.next != offset + 1:
            upto = type(upto)(offset + 1, upto.epoch)
        pieces.append(some(range(row, row + 1), Span(partition, starts[partition], upto)))
        starts[partition] = offset + 1
    pieces += [some(range(0), Span(p, starts[p], upto)) for p, upto in ends.items() if starts[p] < upto.next]
    return pieces


def _because(place: Place, error: Exception) -> Place:
    return Place(place.topic_id, place.partition, place.offset, f"{type(error).__name__}: {error}"[:1000])


class Suspicion:
    """What the supervisor knows of ends that nobody foresaw.

    Args:
        settings: of the project.
        role: ``stream`` or ``log``.
        clock: monotonic seconds.
    """

    def __init__(self, settings: Settings, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file = PlaceFile(settings, role, 0)  # a careful process is always alone
        self._ends: list[float] = []
        self._suspect: Place | None = None

    @property
    def careful(self) -> str:
        """Whether the next group should take one record at a time: `SURE`, `MAYBE`, or not at all."""
        if self._suspect is not None:
            return SURE
        return MAYBE if len([at for at in self._ends if at > self._clock() - _SOON_S]) >= _ENDS else ""

    def starts(self) -> None:
        """A group is about to start."""
        self._file.forget()

    def enough(self) -> None:
        """One process in place of several was careful enough; it takes another end to be careful again."""
        self._ends, self._suspect = self._ends[-1:], None

    def ended(self, code: int) -> Place | None:
        """A group ended in a way that nobody foresaw; the record that has now ended two, which is poison."""
        self._ends.append(self._clock())
        found = self._file.read()
        before, self._suspect = self._suspect, found
        if found is None or before is None or not found.is_at(before):
            return None
        self._suspect = None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        reason = f"it ended the process that handled it, twice ({found.reason or how})"
        return Place(found.topic_id, found.partition, found.offset, reason)
