"""Pathway's own windows over its Kafka reader. One worker thread."""

from __future__ import annotations

from functools import partial
from typing import Any

import pathway as pw
from workload import CONSUMER, GROUP, HOPPING, KAFKA, TOPIC, WINDOWS_US, Results, decode

BACKLOG = (
    1_000 if HOPPING else 20_000
)  # rows in one batch and waiting; without it the first batch is whatever the topic holds

results = Results()


@pw.udf(deterministic=True)
def payment(datum: bytes) -> tuple[str, int, float]:
    found = decode(datum)
    return found["card"], found["paid_at"], found["amount"]


class Progress:
    """Counts events whose batch went through all windows: each output is told when a batch's time has ended for it.

    Args:
        outputs: how many there are.
    """

    def __init__(self, outputs: int) -> None:
        self._came: dict[int, int] = {}
        self._ended = [-1] * outputs

    def came(self, key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        self._came[time] = self._came.get(time, 0) + 1

    def ended(self, output: int, time: int) -> None:
        self._ended[output] = time
        everywhere = min(self._ended)
        for done in [each for each in self._came if each <= everywhere]:
            results.counted(self._came.pop(done))
        results.flush()


def write(number: int) -> Any:
    def put(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        if is_addition:
            results.put(row["card"], number, row["start"], row["n"], row["total"], row["least"], row["most"])

    return put


def main() -> None:
    settings = {
        "bootstrap.servers": KAFKA,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",
        **{key: str(value) for key, value in CONSUMER.items()},
    }
    raw = pw.io.kafka.read(settings, topic=TOPIC, format="raw", autocommit_duration_ms=100, max_backlog_size=BACKLOG)
    decoded = raw.select(p=payment(pw.this.data))
    payments = decoded.select(card=pw.this.p.get(0), paid_at=pw.this.p.get(1), amount=pw.this.p.get(2))
    progress = Progress(len(WINDOWS_US) + 1)
    for number, (length, slide) in enumerate(WINDOWS_US):
        window = pw.temporal.sliding(hop=slide, duration=length) if HOPPING else pw.temporal.tumbling(length)
        # No cutoff: it would follow the fastest partition, and drop what the others still hold.
        found = payments.windowby(pw.this.paid_at, window=window, instance=pw.this.card).reduce(
            card=pw.this._pw_instance,
            start=pw.this._pw_window_start,
            n=pw.reducers.count(),
            total=pw.reducers.sum(pw.this.amount),
            least=pw.reducers.min(pw.this.amount),
            most=pw.reducers.max(pw.this.amount),
            newest=pw.reducers.max(pw.this.paid_at),
        )
        if HOPPING:  # of the windows that hold an event, the one that is about to end is read
            found = found.filter(pw.this.start + length - pw.this.newest <= slide)
        pw.io.subscribe(found, on_change=write(number), on_time_end=partial(progress.ended, number))
    pw.io.subscribe(payments, on_change=progress.came, on_time_end=partial(progress.ended, len(WINDOWS_US)))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
