"""Topics that producers write in transactions, and topics that are compacted. Only Apache Kafka has both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from headrace.errors import ConfigError
from headrace_ops.doctor import Verdict, examine
from headrace_schemas.codecs import EventCodec
from headrace_schemas.stores import kafka
from headrace_schemas.stores.log import event_log
from tests.services import Services
from tests.streams.shop import START_US, Shop


@pytest.fixture
def shop(services: Services, prefix: str, tmp_path: Path) -> Shop:
    if services.name != "real":
        pytest.skip("the embedded broker knows no transactions and no topic settings")
    return Shop(services, prefix, tmp_path, partitions=2, seed=51)


class Teller:
    """A producer of transactions.

    Args:
        shop: where its payments go.
        name: of the transactions.
    """

    def __init__(self, shop: Shop, name: str) -> None:
        self._shop = shop
        self._codec = EventCodec(shop.loaded.project.event("paid"), shop.loaded.project.views)
        self._producer = Producer(
            {"bootstrap.servers": shop.services.kafka, "transactional.id": f"{shop.prefix}{name}", "linger.ms": 1}
        )
        self._producer.init_transactions(20)
        self._waiting: list[dict[str, object]] = []

    def begin(self, count: int) -> None:
        """Send payments in a transaction that stays open."""
        self._producer.begin_transaction()
        for number in range(count):
            event: dict[str, object] = {
                "id": f"t{id(self)}-{len(self._shop.events)}-{number}", "card": f"card {number % 7}", "shop": number % 4,
                "town": "Linz", "amount": float(number), "at": START_US + number * 1_000_000,
            }  # fmt: skip
            self._send(event)
        assert self._producer.flush(20) == 0

    def _send(self, event: dict[str, object]) -> None:
        def delivered(error: object, message: object) -> None:
            assert error is None, error
            event["_partition"], event["_offset"] = message.partition(), message.offset()  # type: ignore[attr-defined]

        self._waiting.append(event)
        value = self._codec.encode(event)
        self._producer.produce(self._shop.topic, value=value, partition=len(self._waiting) % 2, on_delivery=delivered)

    def commit(self) -> None:
        self._producer.commit_transaction(20)
        self._shop.events += self._waiting
        self._waiting = []

    def abort(self) -> None:
        self._producer.abort_transaction(20)
        self._waiting = []


def test_only_what_is_committed_counts_and_marks_and_aborted_records_leave_no_gap(shop: Shop) -> None:
    first, second = Teller(shop, "first"), Teller(shop, "second")
    with shop.streaming() as run, shop.logging():
        for round_ in range(4):
            first.begin(20)
            second.begin(15)
            (first.abort if round_ % 2 else first.commit)()
            second.commit()
            shop.produce(10)
        first.begin(10)
        first.abort()  # the topic ends with records that nobody may read, and marks
        shop.wait(run)
        shop.wait_for_log()
    assert shop.check() > 150
    _check_log(shop)
    with shop.streaming() as run, shop.logging():  # what stands before the position is a mark; that is no other topic
        second.begin(5)
        second.commit()
        shop.wait(run)
        shop.wait_for_log()
    assert shop.check() > 150
    _check_log(shop)


def test_an_open_transaction_is_the_end_for_now(shop: Shop) -> None:
    shop.produce(50)
    before = kafka.end_offsets(shop.services.kafka, shop.topic)
    teller = Teller(shop, "slow")
    with shop.streaming() as run, shop.logging():
        teller.begin(20)
        shop.produce(30)  # behind the open ones: nobody may read them yet
        assert kafka.end_offsets(shop.services.kafka, shop.topic) == before
        shop.wait(run)
        shop.wait_for_log()
        behind, shop.events = shop.events[50:], shop.events[:50]
        assert shop.check() > 100
        shop.events += behind
        teller.commit()
        _wait_for_end(shop, sum(before.values()) + 50)
        shop.wait(run)
        shop.wait_for_log()
    assert shop.check() > 100
    _check_log(shop)


def _wait_for_end(shop: Shop, least: int) -> None:
    deadline = time.monotonic() + 30
    while sum(kafka.end_offsets(shop.services.kafka, shop.topic).values()) < least:
        assert time.monotonic() < deadline


def _check_log(shop: Shop) -> None:
    rows = event_log(shop.loaded.settings, shop.loaded.project.event("paid")).scan().collect()
    expected = sorted((event["_partition"], event["_offset"]) for event in shop.events)
    assert sorted(zip(rows["_partition"], rows["_offset"], strict=True)) == expected


@contextmanager
def compacted(shop: Shop, policy: str) -> Iterator[None]:
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, shop.topic,
        incremental_configs=[ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)],
    )  # fmt: skip
    admin = AdminClient({"bootstrap.servers": shop.services.kafka})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)
    yield


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_topic_is_refused_with_the_reason(shop: Shop, policy: str) -> None:
    shop.produce(5)
    with compacted(shop, policy):
        with shop.streaming() as run:
            error = run.fails()
        with pytest.raises(ConfigError, match="compaction removes all but the newest record"), shop.logging():
            time.sleep(3)
    assert isinstance(error, ConfigError)
    assert policy in str(error)
    assert "set cleanup.policy=delete" in str(error)
    ill = [
        finding for finding in examine(str(shop.root)) if finding.verdict is Verdict.ILL and finding.what == "topics"
    ]
    assert len(ill) == 1
    assert policy in ill[0].found
