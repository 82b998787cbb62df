"""The forgotten-list on its topic: reading all of it, and writing a deletion down. What may not live here: carrying it out."""

from __future__ import annotations

import contextlib

from confluent_kafka import KafkaException

from headrace.errors import NotFound, ServiceUnavailable
from headrace_schemas.forgotten import Forgotten, forgotten_topic
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import FOR_EVER, TopicReader, end_offsets, ensure_topics, producer

_WRITE_S = 30.0


def read_forgotten(settings: Settings) -> tuple[Forgotten, ...]:
    """All deletions, in their order.

    Raises:
        ServiceUnavailable: Kafka is away.
        CodecError: a record is no deletion.
    """
    found: list[Forgotten] = []
    with contextlib.suppress(NotFound), TopicReader(settings.kafka, forgotten_topic(settings.namespace)) as reader:
        found = [Forgotten.decode(message.value() or b"", message.offset() or 0) for message in reader.read_to_end()]
    return tuple(found)


def length_of_list(settings: Settings) -> int:
    """How long the list is.

    Raises:
        ServiceUnavailable: Kafka is away.
    """
    with contextlib.suppress(NotFound):
        return sum(end_offsets(settings.kafka, forgotten_topic(settings.namespace)).values())
    return 0


def remember_forgotten(settings: Settings, entry: Forgotten) -> int:
    """Write a deletion down, for all readers and for ever; its place in the list.

    Raises:
        ServiceUnavailable: Kafka did not take it.
    """
    topic = forgotten_topic(settings.namespace)
    ensure_topics(settings.kafka, {topic: 1}, config=FOR_EVER)
    places: list[int] = []

    def delivered(error: object, message: object) -> None:
        if error is None:
            places.append(message.offset())  # type: ignore[attr-defined]

    sender = producer(settings.kafka)
    try:
        sender.produce(topic, entry.encode(), f"{entry.entity}/{entry.key_hash:016x}".encode(), on_delivery=delivered)
        left = sender.flush(_WRITE_S)
    except KafkaException as error:
        raise ServiceUnavailable("Kafka", settings.kafka, str(error)) from error
    if left or not places:
        raise ServiceUnavailable("Kafka", settings.kafka, "the deletion was not acknowledged in time")
    return places[0]
