"""A lost store, a new view, and a topic that has forgotten its beginning: the log has it, so the features are whole."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.errors import IdentityError
from headrace_schemas.dead_letters import dead_letter_topic, decode_dead_letter
from headrace_schemas.stores import kafka
from headrace_schemas.stores.lanes import Watermark
from headrace_schemas.stores.log import event_log
from headrace_streams import history
from headrace_streams.errors import RestartNeeded
from headrace_streams.journal import Journal
from headrace_streams.source import Assignment, KafkaSource
from tests.services import Services
from tests.streams.shop import MORE_VIEWS, VIEWS, Shop


@pytest.fixture
def shop(services: Services, prefix: str, tmp_path: Path) -> Shop:
    if services.name != "real":
        pytest.skip("the embedded broker keeps every record")
    return Shop(services, prefix, tmp_path, VIEWS, seed=71)


def expire(shop: Shop, share: float) -> dict[int, int]:
    """Let the topic forget a share of each partition; the first offset that it keeps of each."""
    ends = kafka.end_offsets(shop.services.kafka, shop.topic)
    firsts = {partition: int(end * share) for partition, end in ends.items()}
    admin = AdminClient({"bootstrap.servers": shop.services.kafka})
    places = [TopicPartition(shop.topic, partition, first) for partition, first in firsts.items()]
    for future in admin.delete_records(places).values():
        future.result(20)
    assert kafka.first_offsets(shop.services.kafka, shop.topic) == firsts
    return firsts


def set_aside(shop: Shop) -> set[tuple[int, int]]:
    """Partition and offset of each dead letter."""
    with kafka.TopicReader(shop.services.kafka, dead_letter_topic(shop.namespace)) as reader:
        letters: Any = [(m.key(), m.value(), m.headers()) for m in reader.read_to_end()]
    return {(letter.partition, letter.offset) for letter in (decode_dead_letter(*parts) for parts in letters)}


def poll_for(source: KafkaSource, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        source.poll()


def feed_log(shop: Shop) -> None:
    with shop.logging():
        shop.wait_for_log()


def test_a_lost_store_is_read_again_from_the_log_and_then_from_the_topic(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_OFFSETS_AT_ONCE", 70)  # several pieces of several parts
    monkeypatch.setattr(history, "_ROWS_AT_ONCE", 30)
    shop.produce(400)
    shop.produce_raw(b"\xff", b"\xff\xfe")  # offsets that the log has no row of
    shop.produce(200)
    with shop.streaming() as run:
        shop.wait(run)
    feed_log(shop)
    reads = shop.states()
    firsts = expire(shop, 0.7)
    shop.client.flushall()
    with shop.streaming() as run:
        shop.wait(run)
        told = run.wait_for("hydrated")
        assert run.noted("hydrating")[0]["starts"] == {str(p): 0 for p in firsts}
        assert run.noted("hydrating")[0]["upto"] == {str(p): first for p, first in firsts.items()}
        assert told["rows"] == sum(event["_offset"] < firsts[event["_partition"]] for event in shop.events)
        assert shop.states() == reads
        shop.produce(100)
        shop.wait(run)
    assert shop.check() > 300


def test_a_new_view_begins_where_the_log_does_and_rewinds_nobody(shop: Shop) -> None:
    shop.produce(500)
    with shop.streaming() as run:
        shop.wait(run)
    feed_log(shop)
    firsts = expire(shop, 0.9)
    shop.declare(VIEWS + MORE_VIEWS)
    with shop.streaming() as run:
        shop.wait(run)
        assert run.noted("hydrated")[0]["rows"] == sum(firsts.values())
    assert shop.check() > 300


def test_what_broke_its_contract_is_set_aside_though_the_log_is_ahead(shop: Shop) -> None:
    """The log has no row of it. A store that was flushed was filled up to the log's end, and nobody saw what lay before that."""
    shop.produce(300)
    with shop.streaming() as run:
        shop.wait(run)
    ends = kafka.end_offsets(shop.services.kafka, shop.topic)
    shop.produce_raw(b"\xff", b"\xff\xfe", b"")
    shop.produce(100)
    feed_log(shop)
    expire(shop, 0.5)
    shop.client.flushall()
    with shop.streaming() as run:
        shop.wait(run)
        assert run.noted("hydrated")
    assert shop.check() > 100
    assert set_aside(shop) == {(0, ends[0] + number) for number in range(3)}


def test_records_that_expire_while_the_log_is_read_are_read_from_the_log_too(shop: Shop) -> None:
    shop.produce(300)
    feed_log(shop)
    identity = kafka.topic_identity(shop.services.kafka, shop.topic)
    firsts = expire(shop, 0.5)
    starts = {partition: Watermark(first - 20) for partition, first in firsts.items()}  # what it was a moment ago
    assignment = Assignment(shop.topic, identity, starts, firsts)
    source = KafkaSource(shop.services.kafka, [assignment], Journal("stream", io.StringIO()))
    try:
        with pytest.raises(RestartNeeded, match="records expired before they were read"):
            poll_for(source, 30.0)
    finally:
        source.close()
    with shop.streaming() as run:
        shop.wait(run)
    assert shop.check() > 100


def test_another_number_of_lanes_is_another_layout_that_is_filled_from_the_log(shop: Shop) -> None:
    """The states of the old layout stay as they are, and nobody mixes with them."""
    shop.produce(500)
    with shop.streaming() as run:
        shop.wait(run)
        before = shop.states()
    feed_log(shop)
    expire(shop, 0.5)
    shop.declare(VIEWS.replace("event=paid,", "event=paid, lanes=5,"))
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
        assert len(run.noted("claimed")) == 1
        assert run.noted("claimed")[0]["lanes"] == 5
    assert shop.check() > 300
    after = shop.states()
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("logged", [0, 100], ids=["no log", "a log that ends too early"])
def test_what_the_log_does_not_have_stops_the_start_and_is_named(shop: Shop, logged: int) -> None:
    shop.produce(logged)
    if logged:
        feed_log(shop)
    shop.produce(300)
    with shop.streaming() as run:
        shop.wait(run)
        before = shop.client.keys(f"{{{shop.namespace}:*")
    firsts = expire(shop, 0.9)
    lanes = [name for name in before if name.endswith(b"}lane")]
    for name in lanes:  # a store that fell back: every lane knows its beginning only
        for key in shop.client.hkeys(name):
            if key.startswith(b"wm:"):
                shop.client.hset(name, key, b"10:-1:")
    with shop.streaming() as run:
        error = run.fails()
    assert isinstance(error, IdentityError)
    assert any(f"10 to {first - 1} are missing" in str(error) for first in firsts.values())


def test_a_worker_that_is_killed_while_it_reads_the_log_goes_on(shop: Shop) -> None:
    shop.produce(6_000)
    feed_log(shop)
    expire(shop, 1.0)
    shop.client.flushall()
    with shop.supervised() as group:
        for kill in range(3):
            deadline = time.monotonic() + 60
            while len(group.noted("hydrating")) <= kill and not group.noted("hydrated"):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(0.01 * kill)
            os.kill(group.pids()[0], signal.SIGKILL)
        shop.produce(300)
        shop.wait()
        assert group.stop() == 0
    assert shop.check() > 300


def test_an_idle_topic_whose_records_have_all_expired_is_still_the_same(shop: Shop) -> None:
    """The record before the position is gone, because it was too old."""
    shop.produce(200)
    with shop.streaming() as run, shop.logging():
        shop.wait(run)
        shop.wait_for_log()
        expire(shop, 1.0)
        time.sleep(1.5)  # the running worker looks at it every 0.3 s
    with shop.streaming() as run, shop.logging():
        shop.produce(100)
        shop.wait(run)
        shop.wait_for_log()
    assert shop.check() > 300
    assert event_log(shop.loaded.settings, shop.loaded.project.event("paid")).scan().collect().height == 300
