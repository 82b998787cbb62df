"""What flows while things break: payments, some of them late, repeated, broken or from the future, from one seed.

What may not live here: what becomes of them (`expectation.py`).
"""

from __future__ import annotations

import io
import random
import threading
import time
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka

START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
STEP_US = 150_000  # of event time from one payment to the next
FUTURE_US = 86_400_000_000
MOST_WAITING = 4_000  # records that the broker has not acknowledged
CARDS = 1_000
_REFRESH: dict[str, object] = {"topic_metadata_refresh_interval_ms": 500}

FEATURES = """
import headrace as hr
paid = hr.Event("paid", fields={{"id": hr.string(), "card": hr.string(), "shop": hr.int64(), "town": hr.string(),
    "amount": hr.float64(nullable=True, ge=-1000, le=1000), "at": hr.timestamp()}}, time="at", id="id",
    topic="{topic}", future_tolerance="1h")
card = hr.Entity("card", keys={{"card": hr.string()}})
place = hr.Entity("place", keys={{"town": hr.string(), "shop": hr.int64()}})
spending = hr.FeatureView("spending", entity=card, event=paid, features={{
    "payments": hr.count().over("10m", "1h"), "total": hr.sum("amount").over("1h"), "ever": hr.count().lifetime(),
    "last": hr.last("amount").lifetime()}})
sales = hr.FeatureView("sales", entity=place, event=paid, features={{
    "payments": hr.count().over("10m"), "mean": hr.mean("amount", where=hr.col("amount") > 20).over("1h"),
    "largest": hr.max("amount").over("1h"), "ever": hr.count().lifetime()}})
pulse = hr.FeatureView("pulse", entity=card, event=paid, features={{"payments": hr.count().over("1m")}})
"""


def write_project(root: Path, topic: str, namespace: str) -> LoadedProject:
    """The project on disk, loaded; where its services are comes from the environment of the processes."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "features.py").write_text(FEATURES.format(topic=topic))
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
    """

    def __init__(self, bootstrap: str, loaded: LoadedProject, partitions: int, seed: int, rate: int) -> None:
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
        self.acknowledged = 0
        self._ends: dict[int, int] = {}
        self.failed: list[str] = []
        kafka.ensure_topics(bootstrap, {self.topic: partitions})
        self._producer = kafka.producer(bootstrap, delivery_timeout_ms=300_000, retry_backoff_ms=50, **_REFRESH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """Stop, and wait until the broker has everything; how many records there are."""
        self._stop.set()
        self._thread.join(60)
        assert self._producer.flush(120) == 0, "the broker did not take everything"
        assert not self.failed, self.failed[:3]
        with self._lock:
            self._ends = kafka.end_offsets(self._bootstrap, self.topic)
        return self.acknowledged

    def burst(self, count: int) -> None:
        """Send so many besides, at once."""
        with self._lock:
            self._burst += count

    def ends(self) -> dict[int, int]:
        """Behind the last acknowledged record, by partition."""
        with self._lock:
            return dict(self._ends)

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
                self._send()
            sent = int((time.monotonic() - began) * self._rate)
            self._producer.poll(0.01)

    def _send(self) -> None:
        partition, value = self._record()
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
            self.failed.append(str(error))
            return
        with self._lock:
            self.acknowledged += 1
            if message.offset() is not None:  # unknown where only the answer to a repetition came back
                self._ends[message.partition()] = max(self._ends.get(message.partition(), 0), message.offset() + 1)

    def _record(self) -> tuple[int, bytes]:
        """The next record and its partition: now and then one that has been, is broken, or is not to be yet."""
        chance = self._chance.random()
        if chance < 0.03 and self._recent:
            return self._chance.choice(self._recent)  # a producer that sent twice
        partition = self._chance.randrange(self.partitions)
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
