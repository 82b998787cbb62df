"""Bytewax's own windowing: its Kafka source, four `fold_window` steps, a sink of pipelines. One worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from workload import CONSUMER, HOPPING, KAFKA, OVERLAPPING, TOPIC, WINDOWS_US, Results, decode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
folded = 0


def rows(messages: list[Any]) -> list[tuple[str, tuple[datetime, float]]]:
    out = []
    for message in messages:
        payment = decode(message.value)
        out.append((payment["card"], (EPOCH + timedelta(microseconds=payment["paid_at"]), payment["amount"])))
    return out


def paid_at(value: tuple[datetime, float]) -> datetime:
    return value[0]


def empty() -> list[float]:
    return [0, 0.0, float("inf"), float("-inf")]


def fold(found: list[float], value: tuple[datetime, float]) -> list[float]:
    amount = value[1]
    found[0] += 1
    found[1] += amount
    found[2] = min(found[2], amount)
    found[3] = max(found[3], amount)
    return found


def fold_and_count(found: list[float], value: tuple[datetime, float]) -> list[float]:
    """The fold of the last window, which counts events: it is called as often for each as windows overlap."""
    global folded
    folded += 1
    return fold(found, value)


def merge(one: list[float], other: list[float]) -> list[float]:
    return [one[0] + other[0], one[1] + other[1], min(one[2], other[2]), max(one[3], other[3])]


class Partition(StatelessSinkPartition[Any]):
    def __init__(self) -> None:
        self._results = Results()
        self._told = 0

    def write_batch(self, items: list[Any]) -> None:
        for card, (window, start_us, found) in items:
            self._results.put(card, window, start_us, *found)
        now = folded // OVERLAPPING[-1]
        self._results.counted(now - self._told)
        self._told = now
        self._results.flush_if_due()


class Redis(DynamicSink[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> Partition:
        return Partition()


def dataflow() -> Dataflow:
    flow = Dataflow("peer")
    config = {key: str(value) for key, value in CONSUMER.items()}
    source = KafkaSource([KAFKA], [TOPIC], batch_size=1000, add_config=config)
    cards = op.flat_map_batch("decode", op.input("payments", flow, source), rows)
    # The watermark of a card runs on with the system's clock. Without a wait, a card whose next event takes a second to come
    # through a busy worker, and is less than that second later, loses it.
    clock = windowing.EventClock(ts_getter=paid_at, wait_for_system_duration=timedelta(minutes=1))
    closed = []
    for number, (length_us, slide_us) in enumerate(WINDOWS_US):
        length, slide = timedelta(microseconds=length_us), timedelta(microseconds=slide_us if HOPPING else length_us)
        windower = windowing.SlidingWindower(length=length, offset=slide, align_to=EPOCH)
        folder = fold_and_count if number == len(WINDOWS_US) - 1 else fold
        out = windowing.fold_window(f"window{number}", cards, clock, windower, empty, folder, merge)
        step_us = slide // timedelta(microseconds=1)
        closed.append(
            op.map_value(f"name{number}", out.down, lambda value, n=number, s=step_us: (n, value[0] * s, value[1]))
        )
    op.output("redis", op.merge("all", *closed), Redis())
    return flow


if __name__ == "__main__":
    cli_main(dataflow())
