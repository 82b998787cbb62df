"""What flows while things break: payments, some of them late, repeated, broken or from the future, some in transactions, from one seed.

What may not live here: what becomes of them (`expectation.py`).
"""

from __future__ import annotations

import io
import queue
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka
from tests.recovery.chaos.account import Account
from tests.recovery.chaos.teller import Ending, Teller, Transaction

START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
STEP_US = 150_000  # of event time from one payment to the next
FUTURE_US = 86_400_000_000
MOST_WAITING = 4_000  # records that the broker has not acknowledged
CARDS = 1_000
TELLERS = 2
_TRANSACTIONS = 0.004  # so many for each record that is sent without
_DEDUPE = 64  # transactions come to lie between a record and its repetition
_TOLD = 40  # records of a transaction, at most
_SLOW_RECORDS = 60
_REFRESH: dict[str, object] = {"topic_metadata_refresh_interval_ms": 500}

FEATURES = """
import headrace as hr
paid = hr.Event("paid", fields={{"id": hr.string(), "card": hr.string(), "shop": hr.int64(), "town": hr.string(),
    "amount": hr.float64(nullable=True, ge=-1000, le=1000), "at": hr.timestamp()}}, time="at", id="id",
    topic="{topic}", future_tolerance="1h")
card = hr.Entity("card", keys={{"card": hr.string()}})
place = hr.Entity("place", keys={{"town": hr.string(), "shop": hr.int64()}})
spending = hr.FeatureView("spending", entity=card, event=paid, dedupe={dedupe}, features={{
    "payments": hr.count().over("10m", "1h"), "total": hr.sum("amount").over("1h"), "ever": hr.count().lifetime(),
    "last": hr.last("amount").lifetime()}})
sales = hr.FeatureView("sales", entity=place, event=paid, dedupe={dedupe}, features={{
    "payments": hr.count().over("10m"), "mean": hr.mean("amount", where=hr.col("amount") > 20).over("1h"),
    "largest": hr.max("amount").over("1h"), "ever": hr.count().lifetime()}})
pulse = hr.FeatureView("pulse", entity=card, event=paid, dedupe={dedupe}, features={{"payments": hr.count().over("1m")}})
"""


def write_project(root: Path, topic: str, namespace: str) -> LoadedProject:
    """The project on disk, loaded; where its services are comes from the environment of the processes."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "features.py").write_text(FEATURES.format(topic=topic, dedupe=_DEDUPE))
    (root / "headrace.toml").write_text(f'[project]\nname = "chaos"\nnamespace = "{namespace}"\n')
    return load_project(root, environ={})


class Payments:
    """Produces without a pause, in a thread of its own, until it is stopped.

    Args:
        bootstrap: addresses of brokers.
        loaded: the project.
        partitions: of the topic at the beginning.
        seed: decides every record.
        rate: records a second.
        transactions: whether a part is written in transactions.

    Attributes:
        account: what was acknowledged.
    """

    def __init__(
        self, bootstrap: str, loaded: LoadedProject, partitions: int, seed: int, rate: int, *, transactions: bool
    ) -> None:
        self._bootstrap, self._rate = bootstrap, rate
        self._event = loaded.project.event("paid")
        self.topic, self.partitions = self._event.topic, partitions
        self._schema = fastavro.parse_schema(dict(self._event.avro_schema))
        self._chance = random.Random(seed)
        self._recent: list[tuple[int, bytes]] = []
        self._number = 0
        self._burst = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self.account = Account()
        kafka.ensure_topics(bootstrap, {self.topic: partitions})
        self._producer = kafka.producer(bootstrap, delivery_timeout_ms=300_000, retry_backoff_ms=50, **_REFRESH)
        names = [f"teller {number}" for number in range(TELLERS)] if transactions else []
        self._tellers = [Teller(bootstrap, self.topic, name, self.account) for name in names]
        self._slow = Teller(bootstrap, self.topic, "slow teller", self.account)
        self._to_leave_open: list[tuple[Ending, float, queue.Queue[Transaction]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for teller in self._all_tellers():
            teller.start()
        self._thread.start()

    def stop(self) -> int:
        """Stop, and wait until the broker has everything; how many records count."""
        self._stop.set()
        self._thread.join(60)
        for teller in self._all_tellers():
            teller.stop()
        assert self._producer.flush(120) == 0, "the broker did not take everything"
        assert not self.account.failed, self.account.failed[:3]
        self.account.settle(kafka.end_offsets(self._bootstrap, self.topic))
        return self.account.records

    def burst(self, count: int) -> None:
        """Send so many besides, at once."""
        with self._lock:
            self._burst += count

    def ends(self) -> dict[int, int]:
        """Behind the last acknowledged record that may be read, by partition."""
        return self.account.readable()

    def leave_open(self, ending: Ending, seconds: float) -> None:
        """Leave a transaction in one partition open for so long; returns once it is open."""
        begun: queue.Queue[Transaction] = queue.Queue()
        with self._lock:
            self._to_leave_open.append((ending, seconds, begun))
        transaction = begun.get(timeout=60)
        assert transaction.opened.wait(180), "the transaction did not begin"

    def _all_tellers(self) -> list[Teller]:
        return [*self._tellers, self._slow] if self._tellers else []

    def add_partition(self) -> None:
        """One more, which gets its share from now on."""
        wanted = self.partitions + 1
        admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})
        for future in admin.create_partitions([NewPartitions(self.topic, wanted)], request_timeout=10).values():
            future.result(timeout=20)
        deadline = time.monotonic() + 30
        while kafka.topic_identity(self._bootstrap, self.topic).partitions != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.partitions = wanted

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self._rate) - sent
            with self._lock:
                burst, self._burst = self._burst, 0
            for _ in range(max(due, 0) + burst):
                if self._waiting > MOST_WAITING:
                    break
                if self._tellers and self._chance.random() < _TRANSACTIONS:
                    self._tell()
                self._send()
            self._begin_slow_ones()
            sent = int((time.monotonic() - began) * self._rate)
            self._producer.poll(0.01)

    def _tell(self) -> None:
        """The next transaction. Some that were aborted are written again, as an application does that was interrupted."""
        records = self._records(self._chance.randint(1, _TOLD), range(self.partitions))
        teller = self._chance.choice(self._tellers)
        endings = self._chance.choice(
            ((Ending.COMMIT,), (Ending.COMMIT,), (Ending.ABORT,), (Ending.ABORT, Ending.COMMIT))
        )
        open_s = self._chance.uniform(0.0, 0.3)
        if not teller.busy:
            for ending in endings:
                teller.put(Transaction(records, ending, open_s))

    def _begin_slow_ones(self) -> None:
        with self._lock:
            wanted, self._to_leave_open = self._to_leave_open, []
        for ending, seconds, begun in wanted:
            partition = self._chance.randrange(self.partitions)
            records = self._records(_SLOW_RECORDS, [partition])
            transaction = Transaction(records, ending, seconds)
            self._slow.put(transaction)
            begun.put(transaction)

    def _send(self) -> None:
        partition, value = self._record(range(self.partitions))
        self._waiting += 1
        deadline = time.monotonic() + 60
        while True:
            try:
                self._producer.produce(self.topic, value=value, partition=partition, on_delivery=self._delivered)
                return
            except (BufferError, KafkaException):  # too much at once, or it has not heard of the new partition yet
                assert time.monotonic() < deadline
                self._producer.poll(0.05)

    def _delivered(self, error: object, message: Any) -> None:
        self._waiting -= 1
        if error is not None:
            self.account.failed.append(str(error))
        else:
            self.account.acknowledge(message.partition(), message.offset())

    def _records(self, count: int, partitions: Sequence[int]) -> list[tuple[int, bytes]]:
        """Records of one transaction. They repeat only one another: how far apart others come to lie is left to chance."""
        recent, self._recent = self._recent, []
        records = [self._record(partitions) for _ in range(count)]
        self._recent = recent
        return records

    def _record(self, partitions: Sequence[int]) -> tuple[int, bytes]:
        """The next record and its partition: now and then one that has been, is broken, or is not to be yet."""
        chance = self._chance.random()
        if chance < 0.03 and self._recent:
            return self._chance.choice(self._recent)  # a producer that sent twice
        partition = self._chance.choice(partitions)
        late_us = 360 * MINUTE_US if chance < 0.05 else 20 * MINUTE_US if chance < 0.3 else MINUTE_US // 4
        value = self._encoded(late_us=late_us)
        if chance > 0.99:
            return partition, self._broken(value)
        self._recent = [*self._recent[-20:], (partition, value)]
        return partition, value

    def _encoded(self, *, late_us: int, **others: Any) -> bytes:
        self._number += 1
        at_us = START_US + self._number * STEP_US - self._chance.randrange(late_us)
        record = {
            "id": f"p{self._number}",
            "card": f"card {min(int(self._chance.paretovariate(0.5)), CARDS)}",
            "shop": self._chance.randrange(4),
            "town": self._chance.choice(["Linz", "Graz"]),
            "amount": None if self._chance.random() < 0.1 else round(self._chance.random() * 100, 2),
            "at": at_us,
        } | others
        datum = io.BytesIO()
        fastavro.schemaless_writer(datum, self._schema, record)
        return datum.getvalue()

    def _broken(self, value: bytes) -> bytes:
        match self._chance.randrange(6):
            case 0:
                return b""
            case 1:
                return value[: self._chance.randrange(1, len(value))]
            case 2:
                return value + b"\x00"
            case 3:
                return self._chance.randbytes(self._chance.randrange(1, 60))
            case 4:
                return self._encoded(late_us=MINUTE_US, amount=1_048.0)
            case _:
                return self._encoded(late_us=MINUTE_US, at=time.time_ns() // 1000 + FUTURE_US)
