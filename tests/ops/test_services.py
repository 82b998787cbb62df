"""The services that the tests run on are what they are taken for."""

from __future__ import annotations

import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.services import Services


def test_an_event_that_was_produced_is_consumed(services: Services, prefix: str) -> None:
    topic = f"{prefix}events"
    admin = AdminClient({"bootstrap.servers": services.kafka})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": services.kafka})
    producer.produce(topic, b"value", b"key", partition=1)
    assert producer.flush(20) == 0

    consumer = Consumer({"bootstrap.servers": services.kafka, "group.id": prefix, "fetch.queue.backoff.ms": 5})
    consumer.assign([TopicPartition(topic, 1, 0)])
    message = consumer.poll(20)
    consumer.close()

    assert message is not None
    assert (message.key(), message.value(), message.offset()) == (b"key", b"value", 0)


def test_the_store_is_empty_and_never_evicts(services: Services) -> None:
    with redis.Redis.from_url(services.redis) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        client.set("left by", "the test before")


def test_keys_of_the_test_before_are_gone(services: Services) -> None:
    with redis.Redis.from_url(services.redis) as client:
        assert client.dbsize() == 0
        client.set("left by", "the test before")


def test_prefixes_differ_between_tests_and_runs(prefix: str) -> None:
    assert prefix.startswith("prefixes_differ_between_tests_and_runs.")
    assert len(prefix) == len("prefixes_differ_between_tests_and_runs.") + 7
