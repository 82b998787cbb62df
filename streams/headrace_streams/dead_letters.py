"""Sets events aside that broke their contract, before anything behind them is committed.

A dead letter is acknowledged by all replicas before its batch goes on to be folded, so an event is never both left out of the
states and forgotten. A worker that dies in between writes it again, under the same id. What may not live here: judging events.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, Producer

from headrace.errors import ServiceUnavailable
from headrace_schemas.batches import RawBatch, Reject
from headrace_schemas.dead_letters import DeadLetter, dead_letter_topic, encode_dead_letter
from headrace_schemas.stores.kafka import ensure_topics, producer
from headrace_streams.journal import Journal

_NOTE_EVERY_S = 10.0
_LOOK_S = 1.0


class DeadLetterBox:
    """Writes dead letters and waits until they are safe.

    Args:
        bootstrap: addresses of brokers.
        namespace: the project's namespace; its dead letters have one topic.
        journal: where they are counted.
        outage_s: how long the broker may be away.
        waiting: called now and then while letters are not acknowledged yet.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        journal: Journal,
        *,
        outage_s: float = 60.0,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._bootstrap, self._topic = bootstrap, dead_letter_topic(namespace)
        self._journal, self._outage_s, self._waiting = journal, outage_s, waiting
        self._producer: Producer | None = None
        self._noted_at = float("-inf")
        self.counts: Counter[str] = Counter()
        """How many were written, by topic and code."""

    def write(self, raw: RawBatch, topic_id: str, rejects: Sequence[Reject]) -> None:
        """Set rejected rows of a batch aside; returns once they are acknowledged.

        Raises:
            ServiceUnavailable: the broker did not acknowledge them in time.
        """
        if not rejects:
            return
        if self._producer is None:
            ensure_topics(self._bootstrap, {self._topic: 1})
            self._producer = producer(self._bootstrap, linger_ms=1, delivery_timeout_ms=int(self._outage_s * 1000))
        failures: list[str] = []

        def delivered(error: KafkaError | None, _message: Message[bytes, bytes]) -> None:
            if error is not None:
                failures.append(str(error))

        for reject in rejects:
            self._produce(self._producer, _letter(raw, topic_id, reject), delivered)
        if self._unacknowledged(self._producer) or failures:
            reason = failures[0] if failures else "dead letters were not acknowledged in time"
            raise ServiceUnavailable("Kafka", self._bootstrap, reason)
        self.counts.update(f"{raw.topic}/{reject.code}" for reject in rejects)
        self._note(rejects[0])

    def _unacknowledged(self, to: Producer) -> int:
        deadline = time.monotonic() + self._outage_s
        while (left := to.flush(_LOOK_S)) and time.monotonic() < deadline:
            self._waiting()
        return left

    def _produce(
        self, to: Producer, letter: DeadLetter, delivered: Callable[[KafkaError | None, Message[bytes, bytes]], None]
    ) -> None:
        message = encode_dead_letter(letter)
        while True:
            try:
                to.produce(
                    self._topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers),
                    on_delivery=delivered,
                )
                return
            except BufferError:
                to.poll(0.1)

    def _note(self, example: Reject) -> None:
        if time.monotonic() - self._noted_at > _NOTE_EVERY_S:
            self._noted_at = time.monotonic()
            self._journal.note("dead-letters", counts=dict(self.counts), example=example.reason, topic=self._topic)


def _letter(raw: RawBatch, topic_id: str, reject: Reject) -> DeadLetter:
    row = reject.row
    return DeadLetter(
        topic=raw.topic,
        partition=int(raw.partition[row]),
        offset=int(raw.offset[row]),
        topic_id=topic_id,
        key=raw.keys[row],
        value=raw.values[row],
        timestamp_us=int(raw.timestamp_us[row]),
        reason=reject.reason,
        code=reject.code,
        at_us=raw.received_us,
    )
