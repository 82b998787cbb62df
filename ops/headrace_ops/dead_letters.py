"""The dead letters of a project: reading them, and sending them back, each once.

    one transaction:   the event ──▶ its topic, its partition       a note of it ──▶ <namespace>.replays

Both or neither: a replay that is killed anywhere has sent a letter and noted it, or done nothing. Two replays at once fence each
other. What may not live here: printing, the shape of a letter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from confluent_kafka import KafkaException, Message, Producer

from headrace.errors import IdentityError, NotFound, ServiceUnavailable, StoreError
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec
from headrace_schemas.dead_letters import DeadLetter, dead_letter_topic, decode_dead_letter, unique_dead_letters
from headrace_schemas.loading import LoadedProject
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import FOR_EVER, TopicReader, ensure_topics, topic_identity
from headrace_schemas.stores.schema_registry import registry_of

_AT_ONCE = 100  # letters of one transaction
_REQUEST_S = 30.0


def replay_topic(namespace: str) -> str:
    """The topic that notes which dead letters were sent back.

    >>> replay_topic("flights")
    'flights.replays'
    """
    return f"{namespace}.replays"


@dataclass(frozen=True, slots=True)
class Box:
    """What was set aside.

    Args:
        letters: each once, in the order of setting aside.
        replayed_us: when a letter was sent back, by its id.
    """

    letters: Sequence[DeadLetter]
    replayed_us: Mapping[str, int]

    @property
    def open(self) -> list[DeadLetter]:
        """Those that were not sent back."""
        return [letter for letter in self.letters if letter.id not in self.replayed_us]

    def find(self, place: str) -> DeadLetter:
        """The letter of an event.

        Args:
            place: ``topic/partition/offset``, as it is listed; where a topic was made anew, its newest letter of that place.

        Raises:
            NotFound: there is none.
        """
        found = [letter for letter in self.letters if place_of(letter) == place]
        if not found:
            raise NotFound("dead letter", place, [place_of(letter) for letter in self.letters])
        return found[-1]


def place_of(letter: DeadLetter) -> str:
    """Where the event lies, for people."""
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


def read_box(settings: Settings) -> Box:
    """Everything that was set aside until now.

    Raises:
        ServiceUnavailable: Kafka is away.
    """
    letters: list[DeadLetter] = []
    replayed: dict[str, int] = {}
    try:
        with TopicReader(settings.kafka, dead_letter_topic(settings.namespace)) as reader:
            letters = [letter_of(message) for message in reader.read_to_end()]
        with TopicReader(settings.kafka, replay_topic(settings.namespace)) as reader:
            replayed = dict(replay_of(message) for message in reader.read_to_end())
    except NotFound:
        pass  # nothing was ever set aside, or nothing sent back
    return Box(sorted(unique_dead_letters(letters), key=lambda letter: letter.at_us), replayed)


def letter_of(message: Message) -> DeadLetter:
    """The dead letter of a record.

    Raises:
        CodecError: it is none.
    """
    headers = message.headers()
    # confluent_kafka's types allow a mapping here, which its consumer never gives.
    return decode_dead_letter(message.key(), message.value(), list(headers) if isinstance(headers, list) else [])


def replay_of(message: Message) -> tuple[str, int]:
    """Which letter was sent back, and when, of a record of `replay_topic`."""
    return (message.key() or b"").decode(), int(json.loads(message.value() or b"{}").get("at_us", 0))


def still_broken(loaded: LoadedProject, letter: DeadLetter) -> str | None:
    """Why an event would be set aside again if it came now; None if it would not."""
    event = next((event for event in loaded.project.events if event.topic == letter.topic), None)
    if event is None:
        return f"no event of the project has topic {letter.topic!r} any more"
    now_us = time.time_ns() // 1000
    raw = RawBatch(
        letter.topic, np.array([letter.partition], np.int32), np.array([letter.offset], np.int64), np.array([now_us]),
        np.zeros(1, np.uint8), now_us, [letter.key], [letter.value],
    )  # fmt: skip
    rejects = EventCodec(event, loaded.project.views, registry_of(loaded.settings)).decode(raw).rejects
    return rejects[0].reason if rejects else None


def mended(letter: DeadLetter, value: bytes) -> DeadLetter:
    """The letter with another value."""
    return replace(letter, value=value)


def replay(
    settings: Settings, letters: Iterable[DeadLetter], tell: Callable[[str, int, int], None] = lambda *_: None
) -> int:
    """Send letters back to where they came from, as records that arrive now; returns how many.

    Args:
        settings: the project's.
        letters: with the values that are to be sent.
        tell: told what is done, how much of it, and how much there is.

    Raises:
        IdentityError: a topic is not the one that a letter came from.
        StoreError: another replay took over, or the broker refused.
        ServiceUnavailable: Kafka is away.
    """
    waiting = list(letters)
    _check_topics(settings.kafka, waiting)
    ensure_topics(settings.kafka, {replay_topic(settings.namespace): 1}, config=FOR_EVER)
    sender = Producer(
        {
            "bootstrap.servers": settings.kafka,
            "transactional.id": replay_topic(settings.namespace),  # a second replay fences the first
            "log_level": 0,
        }
    )
    try:
        sender.init_transactions(_REQUEST_S)  # ends what a killed replay left open
        for first in range(0, len(waiting), _AT_ONCE):
            _send(sender, settings, waiting[first : first + _AT_ONCE])
            tell("dead letters", min(first + _AT_ONCE, len(waiting)), len(waiting))
    except KafkaException as error:
        reason = error.args[0].str() if error.args else str(error)
        if error.args and error.args[0].retriable():
            raise ServiceUnavailable("Kafka", settings.kafka, reason) from error
        raise StoreError(
            f"Kafka at {settings.kafka}: a transaction was refused ({reason}); nothing of it was sent; see that no other replay "
            f"runs, and that the client may write to the topics in transactions"
        ) from error
    return len(waiting)


def _send(sender: Producer, settings: Settings, letters: Sequence[DeadLetter]) -> None:
    sender.begin_transaction()
    try:
        for letter in letters:
            sender.produce(letter.topic, letter.value, letter.key, letter.partition)
            note = {"at_us": time.time_ns() // 1000, "event": place_of(letter), "code": letter.code}
            sender.produce(replay_topic(settings.namespace), json.dumps(note).encode(), letter.id.encode())
        sender.commit_transaction(_REQUEST_S)
    except BaseException:
        sender.abort_transaction(_REQUEST_S)
        raise


def _check_topics(bootstrap: str, letters: Iterable[DeadLetter]) -> None:
    for topic, topic_id in sorted({(letter.topic, letter.topic_id) for letter in letters}):
        now = topic_identity(bootstrap, topic).topic_id
        if now != topic_id:
            raise IdentityError(
                topic, f"topic id {topic_id}, from which these events came", f"{now}: it was made anew",
                "send them again from where they were made; `headrace dead-letters show` prints them",
            )  # fmt: skip
