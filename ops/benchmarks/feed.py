"""Payments at a fixed rate, whether anybody keeps up or not, from a thread of its own.

What may not live here: measuring.
"""

from __future__ import annotations

import bisect
import threading
import time
from types import TracebackType
from typing import Self

import numpy as np

from headrace_schemas.codecs import EventCodec
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import kafka
from ops.benchmarks.stream import CARDS, DEVICES, FROM_US, MERCHANTS, PARTITIONS

_STEP_S = 0.005
_LINGER_MS = 5  # what Kafka's own producer does since version 4
_PREPARED = 20_000  # records, sent again and again with later times of arrival


class Feed:
    """An open-loop producer.

    Args:
        loaded: the project.
        rate: events a second.
        cards: of how many cards.
    """

    def __init__(self, loaded: LoadedProject, rate: int, cards: int = CARDS) -> None:
        event = loaded.project.event("payments")
        self._topic, self._rate = event.topic, rate
        kafka.ensure_topics(loaded.settings.kafka, {event.topic: PARTITIONS})
        self._producer = kafka.producer(loaded.settings.kafka, linger_ms=_LINGER_MS, delivery_report_only_error=True)
        codec, rng = EventCodec(event), np.random.default_rng(11)
        values = [
            codec.encode(
                {
                    "card": f"card{rng.integers(cards):07d}",
                    "merchant": f"m{rng.integers(MERCHANTS):05d}",
                    "device": f"d{rng.integers(DEVICES):05d}",
                    "paid_at": FROM_US + number * 1_000,
                    "amount": round(float(rng.gamma(2.0, 30.0)), 2),
                }
            )
            for number in range(_PREPARED)
        ]
        self._records = [{"value": value} for value in values]
        self._times: list[float] = []
        self._counts: list[int] = []
        self._sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(30)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self._sent < due:
                first = self._sent % _PREPARED
                piece = self._records[first : first + due - self._sent]
                # One partition for each step, as Kafka's own producer sticks to one for a batch. One call for all takes a third
                # of the time that a call for each would take.
                self._producer.produce_batch(self._topic, piece, partition=len(self._times) % PARTITIONS)
                self._sent += len(piece)
            self._producer.poll(0)
            self._times.append(time.monotonic())
            self._counts.append(self._sent)
            time.sleep(_STEP_S)

    @property
    def sent(self) -> int:
        """How many were sent until now."""
        return self._sent

    def sent_at(self, moment_s: float) -> int:
        """How many were sent until a moment of the monotonic clock."""
        place = bisect.bisect_right(self._times, moment_s)
        return self._counts[place - 1] if place else 0
