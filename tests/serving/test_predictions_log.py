"""Predictions are logged behind their answers, in a bounded buffer, and none is lost without being counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from headrace_serving.predictions_log import PredictionLog


class FakeSink:
    """A producer with a small queue that acknowledges when it is told to."""

    def __init__(self, queue: int = 10_000) -> None:
        self.queue = queue
        self.sent: list[tuple[bytes, bytes]] = []
        self.outstanding: list[Callable[[object, object], None]] = []
        self.reports: list[tuple[Callable[[object, object], None], object]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Callable[[object, object], None]) -> None:
        assert topic == "predictions"
        if len(self.outstanding) >= self.queue:
            raise BufferError("Local: Queue full")
        self.sent.append((key, value))
        self.outstanding.append(on_delivery)

    def acknowledge(self, error: object = None) -> None:
        self.reports += [(callback, error) for callback in self.outstanding]
        self.outstanding = []

    def poll(self, timeout: float) -> int:
        reports, self.reports = self.reports, []
        for callback, error in reports:
            callback(error, None)
        return len(reports)

    def flush(self, timeout: float) -> int:
        self.acknowledge()
        self.poll(0)
        return 0

    def __len__(self) -> int:
        return len(self.outstanding) + len(self.reports)


def records(entry: list[int]) -> Iterator[tuple[bytes, bytes]]:
    for number in entry:
        if number < 0:
            raise ValueError("cannot be encoded")
        yield b"%d" % number, b"value %d" % number


def log_into(sink: FakeSink, capacity: int = 1000) -> PredictionLog[list[int]]:
    return PredictionLog(sink, "predictions", records, len, capacity, pause_s=0.0)


def run(scenario: Callable[[], object]) -> None:
    async def started() -> None:
        await scenario()  # type: ignore[misc]

    asyncio.run(started())


def test_appending_returns_before_anything_is_encoded() -> None:
    async def scenario() -> None:
        sink = FakeSink()
        log = log_into(sink)
        log.append([1, 2])
        assert sink.sent == []
        assert log.pending == 2
        await asyncio.sleep(0.01)
        assert sink.sent == [(b"1", b"value 1"), (b"2", b"value 2")]
        assert log.pending == 2  # they are not acknowledged yet
        sink.acknowledge()
        sink.poll(0)
        assert log.pending == 0
        assert log.counts.produced == 2

    run(scenario)


def test_a_turn_of_the_event_loop_takes_a_bounded_share() -> None:
    async def scenario() -> None:
        sink = FakeSink()
        log = log_into(sink)
        log.append(list(range(100)))
        shares = [0]
        while shares[-1] < 100:
            await asyncio.sleep(0)
            shares.append(len(sink.sent))
        assert max(after - before for before, after in pairwise(shares)) <= 16
        assert [key for key, _ in sink.sent] == [b"%d" % number for number in range(100)]

    run(scenario)


def test_what_does_not_fit_is_dropped_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        log = log_into(FakeSink(), capacity=3)
        for _ in range(4):
            log.append([1, 2])
        assert log.counts.overflowed == 6
        assert log.pending == 2

    with caplog.at_level(logging.ERROR, "headrace.serving"):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "2 predictions were answered but not logged: the buffer of 3 is full; "
            "see headrace_prediction_log_failures in /metrics"
        )
    ]


def test_a_full_queue_of_the_client_is_waited_out_in_order() -> None:
    async def scenario() -> None:
        sink = FakeSink(queue=2)
        log = log_into(sink)
        log.append([1, 2, 3, 4])
        await asyncio.sleep(0.01)
        assert len(sink.sent) == 2
        assert log.counts.overflowed == 0
        sink.acknowledge()
        await asyncio.sleep(0.1)
        assert [key for key, _ in sink.sent] == [b"1", b"2", b"3", b"4"]

    run(scenario)


def test_delivery_failures_are_counted_and_the_end_of_an_outage_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        sink = FakeSink()
        log = log_into(sink)
        log.start()
        log.append([1, 2])
        await asyncio.sleep(0.01)
        sink.acknowledge(error="Broker: gone")
        await asyncio.sleep(0.6)
        assert log.counts.undelivered == log.counts.failures == 2
        await log.close(1.0)

    with caplog.at_level(logging.WARNING, "headrace.serving"):
        run(scenario)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        (
            "a prediction was answered but not logged: Kafka: Broker: gone; "
            "see headrace_prediction_log_failures in /metrics"
        ),
        "the prediction log is whole again; 2 predictions are missing",
    ]


def test_an_entry_that_cannot_be_encoded_does_not_silence_the_others() -> None:
    async def scenario() -> None:
        sink = FakeSink()
        log = log_into(sink)
        log.append([-1, 7])
        log.append([1])
        await asyncio.sleep(0.05)
        assert sink.sent == [(b"1", b"value 1")]
        assert log.counts.unencodable == 2  # the whole rest of the entry is lost
        sink.acknowledge()
        sink.poll(0)
        assert log.pending == 0

    run(scenario)


def test_closing_sends_what_is_left_and_waits_for_it() -> None:
    async def scenario() -> None:
        sink = FakeSink()
        log = log_into(sink)
        log.start()
        log.append(list(range(500)))
        assert await log.close(1.0) == 0
        assert len(sink.sent) == 500
        log.append([1])
        assert log.counts.overflowed == 1

    run(scenario)
