"""A producer that writes payments in transactions: committed ones, aborted ones, and some that stay open for a while.

    begin ── records ── flushed ── (open for a while) ──┬── commit     they count
                                                        ├── abort      they count for nobody
                                                        └── fence      another of its name aborts it; it wakes and must not commit

Each of its calls is repeated until the broker has answered, as the client asks for. What may not live here: what the records are.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaException, Producer

from headrace_schemas.stores import kafka
from tests.recovery.chaos.account import Account

MOST_WAITING = 5  # transactions
_ANSWER_S = 10.0
_PATIENCE_S = 120.0
_SILENT = logging.getLogger("tests.recovery.chaos.teller")  # a client that is fenced says so, whatever its log level
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SETTINGS: dict[str, object] = {
    "logger": _SILENT,
    "transaction_timeout_ms": 600_000,  # no transaction ends by itself
    "delivery_timeout_ms": 300_000,
    "retry_backoff_ms": 50,
    "topic_metadata_refresh_interval_ms": 500,
    "linger_ms": 1,
}


class Ending(StrEnum):
    """How a transaction ends."""

    COMMIT = "committed"
    ABORT = "aborted"
    FENCE = "aborted by fencing"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Records that count together or not at all.

    Args:
        records: partitions and values.
        ending: what becomes of it.
        open_s: how long it stays open once the broker has all of it.
        opened: set from then on.
    """

    records: Sequence[tuple[int, bytes]]
    ending: Ending
    open_s: float = 0.0
    opened: threading.Event = field(default_factory=threading.Event)


class Teller:
    """Writes one transaction after the other, in a thread of its own.

    Args:
        bootstrap: addresses of brokers.
        topic: where to.
        name: of its transactions.
        account: what it tells of them.
    """

    def __init__(self, bootstrap: str, topic: str, name: str, account: Account) -> None:
        self._bootstrap, self._topic, self._name, self._account = bootstrap, topic, name, account
        self._waiting: queue.Queue[Transaction | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def busy(self) -> bool:
        """Whether so many wait that no more should come."""
        return self._waiting.qsize() >= MOST_WAITING

    def start(self) -> None:
        self._thread.start()

    def put(self, transaction: Transaction) -> None:
        """Write this one next."""
        self._waiting.put(transaction)

    def stop(self) -> None:
        """End every transaction that waits, then itself."""
        self._waiting.put(None)
        self._thread.join(2 * _PATIENCE_S)
        assert not self._thread.is_alive(), f"{self._name} did not come to its end"

    def _run(self) -> None:
        try:
            producer = self._opened()
            while (transaction := self._waiting.get()) is not None:
                producer = self._write(producer, transaction)
        except Exception as error:  # noqa: BLE001  (whatever it is, the run has to know)
            self._account.failed.append(f"{self._name}: {error!r}")

    def _opened(self) -> Producer:
        """A new producer of this name, which aborts what an older one left open."""
        producer = kafka.producer(self._bootstrap, transactional_id=f"{self._topic}-{self._name}", **_SETTINGS)
        _patiently(lambda: producer.init_transactions(_ANSWER_S))
        return producer

    def _write(self, producer: Producer, transaction: Transaction) -> Producer:
        """Write one; the producer that goes on."""
        places: list[tuple[int, int]] = []

        def delivered(error: object, message: Any) -> None:
            if error is None and message.offset() is not None and message.offset() >= 0:
                places.append((message.partition(), message.offset()))

        self._account.begin(self._name, {partition for partition, _ in transaction.records})
        producer.begin_transaction()
        for partition, value in transaction.records:
            _produce(producer, self._topic, value, partition, delivered)
        deadline = time.monotonic() + _PATIENCE_S
        while producer.flush(1.0):
            assert time.monotonic() < deadline, "the broker did not take a transaction"
        transaction.opened.set()
        time.sleep(transaction.open_s)
        return self._end(producer, transaction, places)

    def _end(self, producer: Producer, transaction: Transaction, places: list[tuple[int, int]]) -> Producer:
        if transaction.ending is Ending.COMMIT and _commits(producer):
            self._account.commit(self._name, len(transaction.records), places)
            return producer
        if transaction.ending is Ending.FENCE:
            successor = self._opened()
            if _commits(producer):
                self._account.failed.append(f"{self._name}: a producer that was fenced has committed")
            self._account.abort(self._name, Ending.FENCE, places)
            return successor
        _patiently(lambda: producer.abort_transaction(_ANSWER_S))
        self._account.abort(self._name, Ending.ABORT, places)
        return producer


def _commits(producer: Producer) -> bool:
    """Whether the transaction could be committed; where not it is to be aborted, or another one has done so."""
    try:
        _patiently(lambda: producer.commit_transaction(_ANSWER_S))
    except KafkaException as error:
        if error.args[0].txn_requires_abort() or error.args[0].fatal():
            return False
        raise
    return True


def _patiently(call: Callable[[], None]) -> None:
    """Until it is answered: the client says which errors the same call may mend."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _produce(producer: Producer, topic: str, value: bytes, partition: int, delivered: Callable[..., None]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return producer.produce(topic, value=value, partition=partition, on_delivery=delivered)
        except (BufferError, KafkaException):  # too much at once, or it has not heard of the new partition yet
            assert time.monotonic() < deadline
            producer.poll(0.05)
