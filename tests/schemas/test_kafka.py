"""The broker client, on the embedded broker and on Apache Kafka: identity, true ends, reading, and a missing broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.errors import NotFound, ServiceUnavailable, StoreError
from headrace_schemas.batches import RawBatch
from headrace_schemas.stores import kafka
from headrace_schemas.stores.records import open_records
from tests.services import Services


@pytest.fixture
def topic(services: Services, prefix: str) -> Iterator[str]:
    name = f"{prefix}t"
    kafka.ensure_topics(services.kafka, {name: 3})
    yield name
    kafka.delete_topics(services.kafka, [name])


def fill(producer: Producer, topic: str, counts: dict[int, int]) -> None:
    for partition, count in counts.items():
        for n in range(count):
            producer.produce(topic, b"value %d" % n, key=b"key", partition=partition, timestamp=1_000 + n)
    assert producer.flush(10) == 0


def test_a_topic_is_created_once_and_keeps_its_identity(services: Services, topic: str) -> None:
    identity = kafka.topic_identity(services.kafka, topic)
    assert identity.partitions == 3
    assert kafka.ensure_topics(services.kafka, {topic: 5}) == {topic: identity}
    assert topic in kafka.topic_names(services.kafka)


def test_a_topic_that_was_made_anew_is_another(services: Services, topic: str) -> None:
    before = kafka.topic_identity(services.kafka, topic)
    kafka.delete_topics(services.kafka, [topic])
    deadline = time.monotonic() + 10
    while topic in kafka.topic_names(services.kafka) and time.monotonic() < deadline:
        time.sleep(0.05)
    after = kafka.ensure_topics(services.kafka, {topic: 3})[topic]
    assert after.topic_id != before.topic_id


def test_an_unknown_topic_is_answered_with_what_exists(services: Services, topic: str) -> None:
    with pytest.raises(NotFound, match=f"there is no topic '{topic}x'; did you mean"):
        kafka.topic_identity(services.kafka, topic + "x")
    assert topic + "x" not in kafka.topic_names(services.kafka)


def test_deleting_what_is_not_there_is_no_error(services: Services, prefix: str) -> None:
    kafka.delete_topics(services.kafka, [f"{prefix}never"])
    kafka.delete_topics(services.kafka, [])


def test_a_topic_that_the_broker_refuses_is_told(services: Services) -> None:
    if services.name == "embedded":
        pytest.skip("the embedded broker takes any name")
    with pytest.raises(StoreError, match="topic 'not a topic' could not be created with 1 partitions"):
        kafka.ensure_topics(services.kafka, {"not a topic": 1})


def test_the_end_is_behind_the_last_record_of_a_large_batch(services: Services, topic: str) -> None:
    """An embedded broker's ListOffsets answers the last batch's base plus one; the fetch's watermark is the truth."""
    fill(kafka.producer(services.kafka, linger_ms=200), topic, {0: 500, 2: 1})
    assert kafka.end_offsets(services.kafka, topic) == {0: 500, 1: 0, 2: 1}
    assert kafka.first_offsets(services.kafka, topic) == {0: 0, 1: 0, 2: 0}


def test_reading_to_the_end_yields_every_record_once(services: Services, topic: str) -> None:
    fill(kafka.producer(services.kafka), topic, {0: 700, 1: 30})
    with kafka.TopicReader(services.kafka, topic) as reader:
        found = sorted((m.partition(), m.offset()) for m in reader.read_to_end())
    assert found == [(0, n) for n in range(700)] + [(1, n) for n in range(30)]


def test_a_broker_says_whether_it_answers_a_waiting_fetch_at_once(services: Services, topic: str) -> None:
    assert kafka.answers_at_once(services.kafka) is (services.name == "real")
    if services.name != "real":
        return
    reader = open_records(services.kafka, fetch_wait_max_ms=20_000)
    try:
        reader.assign([(topic, 0, 0)])
        assert reader.fetch(10, 0) == ([], [])
        time.sleep(1.0)  # the fetch is open
        fill(kafka.producer(services.kafka), topic, {0: 1})
        began, found = time.monotonic(), 0
        while not found and time.monotonic() - began < 10.0:
            found = len(reader.fetch(10, 0)[0])
            time.sleep(0.01)
        assert found == 1
    finally:
        reader.close()


def test_reading_begins_where_it_is_told(services: Services, topic: str) -> None:
    fill(kafka.producer(services.kafka), topic, {0: 20, 1: 3})
    with kafka.TopicReader(services.kafka, topic, {0: 17}) as reader:
        found = sorted((m.partition(), m.offset()) for m in reader.read_to_end())
    assert found == [(0, 17), (0, 18), (0, 19), (1, 0), (1, 1), (1, 2)]


def test_reading_an_empty_topic_ends_at_once(services: Services, topic: str) -> None:
    with kafka.TopicReader(services.kafka, topic) as reader:
        assert list(reader.read_to_end()) == []


def remove_before(services: Services, topic: str, offsets: dict[int, int]) -> None:
    """What a broker does with records that are older than the topic's retention time."""
    admin = AdminClient({"bootstrap.servers": services.kafka})
    for future in admin.delete_records([TopicPartition(topic, p, offset) for p, offset in offsets.items()]).values():
        future.result(timeout=10)


def test_records_that_expire_while_they_are_read_are_no_silence(
    services: Services, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if services.name == "embedded":
        pytest.skip("the embedded broker keeps every record")
    fill(kafka.producer(services.kafka), topic, {0: 20, 1: 3})
    before = kafka._offsets(services.kafka, topic, 15.0)
    remove_before(services, topic, {0: 15, 1: 3})
    monkeypatch.setattr(kafka, "_offsets", lambda *_: before)
    with kafka.TopicReader(services.kafka, topic, patience_s=5.0) as reader:
        assert [(m.partition(), m.offset()) for m in reader.read_to_end()] == [(0, n) for n in range(15, 20)]


def test_records_that_expire_while_the_ends_are_asked_for_leave_the_ends_as_they_are(
    services: Services, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if services.name == "embedded":
        pytest.skip("the embedded broker keeps every record")
    fill(kafka.producer(services.kafka), topic, {0: 20, 1: 3})
    read_to_ends, calls = kafka._read_to_ends, []

    def late(*arguments: Any) -> dict[int, int] | None:
        if not calls:
            remove_before(services, topic, {0: 20})
        calls.append(arguments)
        return read_to_ends(*arguments)

    monkeypatch.setattr(kafka, "_read_to_ends", late)
    assert kafka._offsets(services.kafka, topic, 5.0) == {0: (20, 20), 1: (0, 3), 2: (0, 0)}
    assert len(calls) == 2


def test_a_position_that_is_lost_is_an_error_and_not_a_jump(services: Services, topic: str) -> None:
    if services.name == "embedded":
        pytest.skip("the embedded broker answers a fetch past the end with silence")
    fill(kafka.producer(services.kafka), topic, {0: 5})
    with (
        kafka.TopicReader(services.kafka, topic, {0: 999}) as reader,
        pytest.raises(StoreError, match=r"partition 0 cannot be read .*the one that was read before"),
    ):
        all(reader.read(timeout_s=0.2) is not None for _ in range(50))


def test_messages_become_a_batch_of_columns(services: Services, topic: str) -> None:
    fill(kafka.producer(services.kafka), topic, {1: 3})
    with kafka.TopicReader(services.kafka, topic) as reader:
        raw = RawBatch.from_messages(topic, list(reader.read_to_end()), received_us=77)
    assert (len(raw), raw.topic, raw.received_us) == (3, topic, 77)
    assert raw.partition.tolist() == [1, 1, 1]
    assert raw.offset.tolist() == [0, 1, 2]
    assert raw.timestamp_us.tolist() == [1_000_000, 1_001_000, 1_002_000]
    assert raw.timestamp_type.tolist() == [0, 0, 0]
    assert raw.arrival_us().tolist() == raw.timestamp_us.tolist()
    assert (raw.keys, raw.values) == ([b"key"] * 3, [b"value 0", b"value 1", b"value 2"])


@pytest.mark.parametrize(
    "call",
    [
        lambda address: kafka.topic_names(address, patience_s=0.1),
        lambda address: kafka.topic_identity(address, "t", patience_s=0.1),
        lambda address: kafka.ensure_topics(address, {"t": 1}, patience_s=0.1),
        lambda address: kafka.end_offsets(address, "t", patience_s=0.1),
    ],
    ids=["names", "identity", "ensure", "ends"],
)
def test_a_missing_broker_is_told_with_its_address(call: object) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="Kafka at 127.0.0.1:1 does not answer") as caught:
        call("127.0.0.1:1")  # type: ignore[operator]
    assert caught.value.exit_code == 3
    assert time.monotonic() - started < 15
