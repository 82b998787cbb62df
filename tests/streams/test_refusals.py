"""Refusals that need a broker which misbehaves: each stops with a message that names what to do, and nothing is skipped."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from headrace.errors import ConfigError, Gap, HeadraceError, IdentityError, ServiceUnavailable, StoreError
from headrace_schemas.batches import RawBatch, Reject
from headrace_schemas.dead_letters import dead_letter_topic
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.kafka import TopicIdentity
from headrace_schemas.stores.lanes import Watermark
from headrace_schemas.stores.records import ObjectRecords
from headrace_streams import dead_letters, identity, source
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.errors import IDENTITY, RESTART, WRONG_SETTINGS, RestartNeeded, exit_code
from headrace_streams.identity import Auditor
from headrace_streams.items import Polled
from headrace_streams.journal import Journal
from headrace_streams.source import Assignment, KafkaSource
from tests.services import Services
from tests.streams.shop import VIEWS, Shop

# --- a broker by script ----------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What a consumer hands over: a record, or an event in its place."""

    at: int
    code: int | None = None

    def topic(self) -> str:
        return "paid"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return b"value %d" % self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def leader_epoch(self) -> int:
        return 0


@dataclass
class Script:
    """A consumer that hands over one list after the other."""

    polls: list[list[Record]] = field(default_factory=list)
    watermarks: tuple[int, int] | None = (0, 4)

    def assign(self, _: Sequence[TopicPartition]) -> None: ...
    def unassign(self) -> None: ...
    def close(self) -> None: ...

    def consume(self, _most: int, _timeout_s: float) -> list[Record]:
        return self.polls.pop(0) if self.polls else []

    def get_watermark_offsets(self, _: TopicPartition, timeout: float) -> tuple[int, int]:
        if self.watermarks is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self.watermarks

    def poll(self, _timeout_s: float) -> Record | None:
        found = self.consume(1, 0.0)
        return found[0] if found else None


class Quiet:
    """No identity is checked."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def check(self) -> None: ...
    def hurry(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    scripted = Script()
    monkeypatch.setattr(identity, "consumer", lambda *_, **__: scripted)
    monkeypatch.setattr(source, "open_records", lambda *_, **__: ObjectRecords(cast("Any", scripted)))
    monkeypatch.setattr(source, "Watch", Quiet)
    return scripted


def poll(script: Script, *polls: list[Record], start: int = 5) -> list[Polled]:
    script.polls = list(polls)
    assignment = Assignment("paid", TopicIdentity("id", 1), {0: Watermark(start)}, {0: 0})
    reader = KafkaSource("nowhere:1", [assignment], Journal("test", io.StringIO()))
    return [polled for _ in polls for polled in reader.poll()]


def test_a_record_below_the_position_is_a_gap(script: Script) -> None:
    with pytest.raises(Gap, match="which went back") as caught:
        poll(script, [Record(5), Record(6)], [Record(3)])
    assert exit_code(caught.value) == RESTART


def test_offsets_without_a_record_lie_inside_the_range(script: Script) -> None:
    polled = poll(script, [Record(5)], [Record(9)], [Record(12, KafkaError._PARTITION_EOF)])
    spans = [(span.start, span.upto.next) for one in polled for span in one.spans]
    assert spans == [(5, 6), (6, 10), (10, 12)]


@pytest.mark.parametrize(
    "code",
    [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION,
     KafkaError.UNKNOWN_TOPIC_OR_PART],
)  # fmt: skip
def test_a_lost_position_stops_and_never_skips(script: Script, code: int) -> None:
    with pytest.raises(IdentityError, match="from the position that was reached") as caught:
        poll(script, [Record(5, code)])
    assert "another [project] namespace" in str(caught.value)
    assert exit_code(caught.value) == IDENTITY


@pytest.mark.parametrize("watermarks", [(6, 6), (9, 20)])
def test_records_that_expire_before_they_are_read_start_the_group_again(
    script: Script, watermarks: tuple[int, int]
) -> None:
    """Whether the log has them is for the next start to find out; it stops if not, and names what is missing."""
    script.watermarks = watermarks
    with pytest.raises(RestartNeeded, match="partition 0: records expired before they were read; the worker") as caught:
        poll(script, [Record(5, KafkaError._AUTO_OFFSET_RESET)])
    assert exit_code(caught.value) == RESTART


def test_a_position_is_not_judged_while_the_broker_is_away(script: Script) -> None:
    script.watermarks = None
    with pytest.raises(ServiceUnavailable, match="nowhere:1"):
        poll(script, [Record(5, KafkaError._AUTO_OFFSET_RESET)])


def test_an_end_before_the_position_stops(script: Script) -> None:
    with pytest.raises(IdentityError, match="to reach offset 6, which was read, got an end at 4"):
        poll(script, [Record(5)], [Record(4, KafkaError._PARTITION_EOF)])


def test_a_topic_that_may_not_be_read_is_told(script: Script) -> None:
    with pytest.raises(StoreError, match="cannot be read .* check the permissions"):
        poll(script, [Record(5, KafkaError.TOPIC_AUTHORIZATION_FAILED)])


def test_a_broker_that_is_away_is_waited_for(script: Script) -> None:
    assert poll(script, [Record(0, KafkaError._TRANSPORT)], [Record(5)])


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([Record(4, KafkaError._AUTO_OFFSET_RESET)], "got an end before it"),
        ([Record(4, KafkaError._PARTITION_EOF)], "got an end before it"),
        ([Record(4, KafkaError.UNKNOWN_TOPIC_OR_PART)], "got no such partition"),
        ([Record(4)], "got another record"),
    ],
)
def test_a_record_that_is_not_there_any_more_stops(script: Script, answers: list[Record], told: str) -> None:
    script.polls = [answers]
    with pytest.raises(IdentityError, match=told):
        Auditor("nowhere:1").check_record("paid", 0, Watermark(5, 0, "feed"))


def test_a_broker_that_is_too_busy_to_answer_is_no_other_topic(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a starved machine ten silent seconds passed for an end before the record, and the group ended for good."""
    monkeypatch.setattr(identity, "_SILENCE_S", 0.05)
    monkeypatch.setattr(identity, "end_offsets", lambda *_, **__: {0: 5})
    with pytest.raises(ServiceUnavailable, match="partition 0: no fetch from offset 4 was answered"):
        Auditor("nowhere:1").check_record("paid", 0, Watermark(5, 0, "feed"))
    monkeypatch.setattr(identity, "end_offsets", lambda *_, **__: {0: 4})
    with pytest.raises(IdentityError, match="got an end before it"):
        Auditor("nowhere:1").check_record("paid", 0, Watermark(5, 0, "feed"))
    assert not script.polls


# --- a real one ------------------------------------------------------------------------------------------------------


def test_a_project_without_views_has_nothing_to_stream(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, "")
    with shop.streaming() as run:
        error = run.fails()
    assert isinstance(error, ConfigError)
    assert "declare an hr.FeatureView" in str(error)
    assert exit_code(error) == WRONG_SETTINGS


def test_a_topic_that_vanished_before_the_start_stops_it(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS)
    shop.produce(20)
    with shop.streaming() as run:
        shop.wait(run)
    kafka.delete_topics(services.kafka, [shop.topic])
    with shop.streaming() as run:
        error = run.fails()
    assert isinstance(error, IdentityError)
    assert "no topic of that name" in str(error)


def test_a_topic_that_grew_starts_the_group_again(services: Services, prefix: str, tmp_path: Path) -> None:
    if services.name != "real":
        pytest.skip("the embedded broker cannot add partitions")
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    with shop.streaming() as run:
        shop.produce(40)
        shop.wait(run)
        admin = AdminClient({"bootstrap.servers": services.kafka})
        for future in admin.create_partitions([NewPartitions(shop.topic, 3)]).values():
            future.result(20)
        error = run.fails()
    assert isinstance(error, RestartNeeded)
    assert "grew from 1 to 3 partitions" in str(error)
    shop.partitions = 3
    shop._producer = kafka.producer(services.kafka)  # the one before learns of new partitions only after minutes
    shop.produce(60)
    with shop.streaming(take_over=True) as run:
        shop.wait(run)
    assert shop.check() > 100


def test_a_topic_that_shrank_or_is_another_one_stops(services: Services, prefix: str, tmp_path: Path) -> None:
    """A broker that was restored from an older copy."""
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=2)
    known = kafka.topic_identity(services.kafka, shop.topic)
    auditor = Auditor(services.kafka)
    auditor.check_topics({shop.topic: known})
    for other, told in (
        (TopicIdentity(known.topic_id, 5), "required 5 partitions, got 2"),
        (TopicIdentity("another", 2), "it was made anew"),
    ):
        with pytest.raises(IdentityError, match=told):
            auditor.check_topics({shop.topic: other})
    with pytest.raises(IdentityError, match="no topic of that name"):
        auditor.check_topics({f"{prefix}nowhere": known})


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_dead_letters_that_nobody_acknowledges_stop_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "ensure_topics", lambda *_: None)
    waited: list[float] = []
    box = DeadLetterBox(
        "127.0.0.1:1",
        "n",
        Journal("test", io.StringIO()),
        outage_s=2.0,
        waiting=lambda: waited.append(time.monotonic()),
    )
    raw = RawBatch.from_messages("paid", [Record(0)], 1)
    with pytest.raises(ServiceUnavailable, match="Kafka at 127.0.0.1:1"):
        box.write(raw, "id", [Reject(0, "it is broken", "undecodable")])
    assert waited, "who waits has to say so"


def test_a_dead_letter_topic_that_refuses_stops_the_stream_and_loses_nothing(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    """Nothing behind the broken event is committed until it is set aside."""
    if services.name != "real":
        pytest.skip("the embedded broker takes records of any size")
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    aside = dead_letter_topic(shop.namespace)
    admin = AdminClient({"bootstrap.servers": services.kafka})
    small = NewTopic(aside, num_partitions=1, replication_factor=1, config={"max.message.bytes": "100"})
    admin.create_topics([small])[aside].result(20)
    with shop.streaming() as run:
        shop.produce(30)
        shop.wait(run)
        shop.produce_raw(b"\xff" * 200)
        shop.produce(30)
        error = run.fails()
    assert isinstance(error, HeadraceError)
    assert exit_code(error) == 3
    for view in shop.loaded.project.views:
        assert online.progress(shop.client, shop.namespace, view) == {0: 30}
    kafka.delete_topics(services.kafka, [aside])
    with shop.streaming(take_over=True) as run:
        shop.wait(run)
    assert shop.check() > 100
    with kafka.TopicReader(services.kafka, aside) as reader:
        assert len(list(reader.read_to_end())) == 1
