"""Sending events: a producer per event, and the replay of a frame at a rate or along its own time.

Kafka's timestamp of a record is the moment of sending: it is the recorded arrival, and history that is loaded today arrived
today. What may not live here: reading files (`frames.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import polars as pl

import headrace as hr
from headrace.errors import NotFound, ServiceUnavailable, StoreError
from headrace_schemas.codecs import EventCodec
from headrace_schemas.framing import Schemas
from headrace_schemas.stores import kafka

_CHUNK = 5_000
_FULL_S = 0.05

_BULK_LINGER_MS = 100

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """What a replay did.

    Attributes:
        events: how many events the broker acknowledged.
        seconds: how long it took, acknowledgement included.
    """

    events: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0


class EventProducer:
    """Encodes events and sends them to their topic; as a context manager it waits for the broker at its end.

    Args:
        bootstrap: addresses of brokers.
        event: the event.
        key: the field whose value routes a record to a partition; by default the event's id. An entity's events may lie in
            several partitions: their order does not matter to its features.
        reports: note in `written` (partition → offset) and `last` where the broker put the events; costs as much as encoding.
        bulk: few large batches, for events that are only waited for together; brokers and readers pay by the batch.
        schemas: the project's schema registry, if it has one; the event's schema is registered there when it is needed.
        settings: further librdkafka settings.
    """

    def __init__(
        self,
        bootstrap: str,
        event: hr.Event,
        *,
        key: str | None = None,
        reports: bool = False,
        bulk: bool = False,
        schemas: Schemas | None = None,
        **settings: object,
    ) -> None:
        self.event = event
        self._bootstrap, self._key = bootstrap, key or event.id
        if self._key is not None and self._key not in event.fields:
            raise NotFound(f"field of event {event.name!r} named", self._key, event.fields)
        if bulk:
            settings = {"linger_ms": _BULK_LINGER_MS, **settings}
        self._encode = EventCodec(event, schemas=schemas).encode
        self._producer = kafka.producer(
            bootstrap,
            queue_buffering_max_messages=200_000,
            message_timeout_ms=30_000,
            delivery_report_only_error=not reports,
            **settings,
        )
        self._failed: list[str] = []
        self.written: dict[int, int] = {}
        self.last = (-1, -1)

    def send(self, record: Mapping[str, object]) -> None:
        """Send one event; it may still be on its way when this returns.

        Args:
            record: a value for each field.

        Raises:
            CodecError: the record does not fit the event's schema.
        """
        key = None if self._key is None else str(record[self._key]).encode()
        value = self._encode(record)
        while True:
            try:
                self._producer.produce(self.event.topic, value, key, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(_FULL_S)

    def poll(self) -> None:
        """Let reports of the broker come in."""
        self._producer.poll(0)
        self._raise()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until the broker has acknowledged everything.

        Raises:
            ServiceUnavailable: it did not within the time.
            StoreError: it refused a record.
        """
        left = self._producer.flush(timeout_s)
        self._raise()
        if left:
            raise ServiceUnavailable("Kafka", self._bootstrap, f"{left} events unacknowledged after {timeout_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(str(error.str()))
            return
        partition, offset = self.last = int(message.partition()), int(message.offset())
        self.written[partition] = max(offset, self.written.get(partition, -1))

    def _raise(self) -> None:
        if self._failed:
            raise StoreError(
                f"Kafka at {self._bootstrap}: topic {self.event.topic!r} refused {len(self._failed)} events "
                f"({self._failed[0]}); nothing more was sent"
            )


def replay(
    producer: EventProducer,
    frame: pl.DataFrame,
    *,
    rate: float | None = None,
    speed: float | None = None,
    progress: Progress | None = None,
) -> Sent:
    """Send the rows of a frame in their order, and wait until the broker has them all.

    Args:
        producer: where to.
        frame: rows as `conform` makes them.
        rate: events per second at most.
        speed: event time passes this many times as fast as it did; 1 is as it happened.
        progress: told after each chunk.
    """
    event = producer.event
    pace = _Pace(frame[event.time] if speed else None, rate=rate, speed=speed)
    began, done = time.monotonic(), 0
    for chunk in frame.iter_slices(_CHUNK):
        for record in chunk.iter_rows(named=True):
            pace.wait(done)
            producer.send(record)
            done += 1
        producer.poll()
        if progress is not None:
            progress(event.name, done, frame.height)
    producer.flush()
    return Sent(done, time.monotonic() - began)


class _Pace:
    """When the n-th event is due."""

    def __init__(self, times: pl.Series | None, *, rate: float | None, speed: float | None) -> None:
        self._times, self._rate, self._speed = times, rate, speed
        self._began = time.monotonic()

    def wait(self, index: int) -> None:
        if self._rate is not None:
            due_s = index / self._rate
        elif self._times is not None and self._speed is not None:
            due_s = (self._times[index] - self._times[0]) / 1e6 / self._speed
        else:
            return
        left_s = self._began + due_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
