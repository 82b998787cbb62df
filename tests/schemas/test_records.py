"""Records read in bulk: without an object for each and with one, the same columns, bytes, ends and troubles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from headrace_schemas.batches import NO_TIMESTAMP, RawBatch
from headrace_schemas.columns import PackedValues
from headrace_schemas.stores import librdkafka, records
from headrace_schemas.stores.kafka import consumer, ensure_topics, producer
from headrace_schemas.stores.records import (
    Fetched,
    NativeRecords,
    ObjectRecords,
    Records,
    Trouble,
    is_end,
    open_records,
)
from tests.services import Services

NOW_US = 1_700_000_000_000_000
SETTINGS: dict[str, Any] = {"enable_partition_eof": True, "fetch_wait_max_ms": 2}
READERS: dict[str, Callable[[str], Records]] = {
    "native": lambda kafka: NativeRecords(kafka, **SETTINGS),
    "objects": lambda kafka: ObjectRecords(consumer(kafka, **SETTINGS)),
}


@dataclass
class Read:
    """All that a reader told until it had seen the ends."""

    fetched: list[Fetched] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def rows(self) -> list[tuple[Any, ...]]:
        """Every record, in the order of topic, partition and offset."""
        return sorted(
            (raw.topic, *row, epoch)
            for one in self.fetched
            for raw in [one.raw]
            for *row, epoch in zip(
                raw.partition.tolist(), raw.offset.tolist(), raw.timestamp_us.tolist(), raw.timestamp_type.tolist(),
                [repr(key) for key in raw.keys], [repr(value) for value in raw.values], one.epoch.tolist(), strict=True,
            )
        )  # fmt: skip


def read(found: Records, places: list[tuple[str, int, int]], most: int = 10_000) -> Read:
    found.assign(places)
    told, deadline = Read(), time.monotonic() + 30
    while len(told.ends) < len(places):
        assert time.monotonic() < deadline, f"only {told.ends} of {places}"
        fetched, troubles = found.fetch(most, NOW_US)
        assert all(is_end(trouble) for trouble in troubles), troubles
        told.fetched += fetched
        told.ends |= {(t.topic or "", t.partition or 0): t.offset or 0 for t in troubles}
        time.sleep(0.002)
    return told


@pytest.fixture
def topics(services: Services, prefix: str) -> list[str]:
    """Two topics of three partitions with records of all kinds."""
    names = [f"{prefix}one", f"{prefix}two"]
    ensure_topics(services.kafka, dict.fromkeys(names, 3))
    sender, rng = producer(services.kafka), np.random.default_rng(1)
    for number in range(900):
        value: bytes | None = rng.bytes(int(rng.integers(0, 300)))
        value = None if number % 50 == 7 else value
        key = None if number % 3 else b"%d" % number
        sender.produce(names[number % 2], value, key, partition=int(rng.integers(0, 2)), timestamp=1_000 + number)
    assert sender.flush(30) == 0
    return names


@pytest.fixture
def opened() -> Iterator[list[Records]]:
    found: list[Records] = []
    yield found
    for one in found:
        one.close()


def test_both_readers_tell_the_same(services: Services, topics: list[str], opened: list[Records]) -> None:
    places = [(topic, partition, 0) for topic in topics for partition in range(3)]
    told = []
    for kind, most in (("native", 10_000), ("objects", 10_000), ("native", 7)):
        opened.append(READERS[kind](services.kafka))
        told.append(read(opened[-1], places, most))
    assert len(told[0].rows()) == 900
    assert told[0].rows() == told[1].rows() == told[2].rows()
    assert told[0].ends == told[1].ends == told[2].ends
    assert {row[-3] for row in told[0].rows()} >= {"None"}
    assert max(len(one.raw) for one in told[2].fetched) <= 7
    for one in told[0].fetched:
        assert one.raw.received_us == NOW_US
        assert isinstance(one.raw.values, PackedValues)


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_begins_where_it_is_told(
    services: Services, topics: list[str], opened: list[Records], kind: str
) -> None:
    opened.append(READERS[kind](services.kafka))
    told = read(opened[0], [(topics[0], 0, 100), (topics[1], 1, 5)])
    firsts = {(row[0], row[1]): row[2] for row in reversed(told.rows())}
    assert firsts == {(topics[0], 0): 100, (topics[1], 1): 5}
    end = told.ends[topics[0], 0]
    if services.name != "embedded":  # which answers (0, 1) to whoever asks for the end
        assert opened[0].watermarks(topics[0], 0, 10.0) == (0, end)
    assert opened[0].watermarks(topics[0], 0)[1] == end


@pytest.mark.parametrize("kind", READERS)
def test_a_position_that_is_lost_is_a_trouble(
    services: Services, topics: list[str], opened: list[Records], kind: str
) -> None:
    opened.append(READERS[kind](services.kafka))
    opened[0].assign([(topics[0], 0, 1_000_000)])
    if services.name == "embedded":
        pytest.skip("the embedded broker says nothing at all to a fetch beyond its end")
    troubles: list[Trouble] = []
    deadline = time.monotonic() + 30
    while not troubles and time.monotonic() < deadline:
        troubles += opened[0].fetch(100, NOW_US)[1]
        time.sleep(0.01)
    assert troubles[0].code == KafkaError._AUTO_OFFSET_RESET
    assert (troubles[0].topic, troubles[0].partition) == (topics[0], 0)
    assert "out of range" in troubles[0].text.lower()


@pytest.mark.parametrize("kind", READERS)
def test_without_a_broker_nothing_comes_and_its_end_cannot_be_told(opened: list[Records], kind: str) -> None:
    opened.append(READERS[kind]("127.0.0.1:1"))
    opened[0].assign([("nowhere", 0, 0)])
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        fetched, troubles = opened[0].fetch(100, NOW_US)
        assert fetched == []
        assert not any(is_end(trouble) for trouble in troubles)
        time.sleep(0.02)
    with pytest.raises(KafkaException):
        opened[0].watermarks("nowhere", 0, 0.2)


def test_transactions_leave_the_same_gaps(services: Services, prefix: str, opened: list[Records]) -> None:
    if services.name == "embedded":
        pytest.skip("the embedded broker knows no transactions")
    topic = f"{prefix}paid"
    ensure_topics(services.kafka, {topic: 1})
    sender = Producer({"bootstrap.servers": services.kafka, "transactional.id": secrets.token_hex(4), "log_level": 0})
    sender.init_transactions(30)
    for number in range(6):
        sender.begin_transaction()
        sender.produce(topic, b"%d" % number, partition=0)
        sender.flush(30)
        (sender.commit_transaction if number % 2 else sender.abort_transaction)(30)
    told = []
    for open_one in READERS.values():
        opened.append(open_one(services.kafka))
        told.append(read(opened[-1], [(topic, 0, 0)]))
    assert told[0].rows() == told[1].rows()
    assert [row[-2] for row in told[0].rows()] == ["b'1'", "b'3'", "b'5'"]
    assert told[0].ends == told[1].ends == {(topic, 0): 12}


def test_without_the_librarys_functions_records_come_as_objects(
    services: Services, topics: list[str], opened: list[Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise librdkafka.UnavailableError("no such symbol")

    monkeypatch.setattr(librdkafka, "functions", missing)
    opened.append(open_records(services.kafka, **SETTINGS))
    assert isinstance(opened[0], ObjectRecords)
    assert len(read(opened[0], [(topics[0], 0, 0)]).rows()) > 100


def test_the_functions_are_reached_here(opened: list[Records]) -> None:
    opened.append(open_records("127.0.0.1:1"))
    assert isinstance(opened[0], NativeRecords)


def test_a_setting_that_the_library_refuses_is_named() -> None:
    with pytest.raises(KafkaException, match="nonsense"):
        NativeRecords("127.0.0.1:1", nonsense=1)


def test_a_closed_reader_says_so() -> None:
    found = NativeRecords("127.0.0.1:1")
    found.close()
    found.close()
    for use in (lambda: found.fetch(1, 0), lambda: found.watermarks("t", 0)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_a_batch_says_when_records_arrived() -> None:
    packed = PackedValues(np.zeros(16, np.uint8), np.zeros(2, np.int64), np.array([True]))
    one = np.zeros(1, np.int64)
    raw = RawBatch("t", one.astype(np.int32), one, one - 1, np.array([NO_TIMESTAMP], np.uint8), NOW_US, packed, packed)
    assert raw.arrival_us().tolist() == [NOW_US]
    assert list(raw.values) == [None]
    assert records.is_end(Trouble(KafkaError._PARTITION_EOF, "", "t", 0, 1))
