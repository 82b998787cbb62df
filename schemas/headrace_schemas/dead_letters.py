"""Dead letters: events that broke their contract, kept as they came, with the reason, so that they can be mended and replayed.

A dead letter is one Kafka record: key and value are those of the original, byte for byte, and everything else travels in
headers. Its id ``topic id/partition/offset`` names the original for ever: a worker that dies between writing dead letters and
committing writes them again, and a reader keeps one of each id. What may not live here: sending and reading them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from headrace.errors import CodecError

_PREFIX = "headrace."
_TEXTS = ("topic", "topic_id", "reason", "code")
_NUMBERS = ("partition", "offset", "timestamp_us", "at_us")


def dead_letter_topic(namespace: str) -> str:
    """The topic that holds the dead letters of a namespace.

    >>> dead_letter_topic("flights")
    'flights.dead-letters'
    """
    return f"{namespace}.dead-letters"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that was set aside.

    Args:
        topic: the topic it came from.
        partition: its partition there.
        offset: its offset there.
        topic_id: the broker's id of that topic.
        key: the original key, or None.
        value: the original value, or None.
        timestamp_us: the original Kafka timestamp, or -1 where it had none.
        reason: what was required and what came, for people.
        code: the kind of reason, for programs and counters: ``undecodable``, ``null``, ``range``, ``future`` …
        at_us: when it was set aside.
    """

    topic: str
    partition: int
    offset: int
    topic_id: str
    key: bytes | None
    value: bytes | None
    timestamp_us: int
    reason: str
    code: str
    at_us: int

    @property
    def id(self) -> str:
        """Names the original record for ever.

        >>> DeadLetter("t", 3, 41, "Zx9", None, b"", 0, "", "", 0).id
        'Zx9/3/41'
        """
        return f"{self.topic_id}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetterMessage:
    """A dead letter as a Kafka record: what a producer is given."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def encode_dead_letter(letter: DeadLetter) -> DeadLetterMessage:
    """The Kafka record of a dead letter."""
    headers = [(_PREFIX + "id", letter.id.encode())]
    headers += [(_PREFIX + name, str(getattr(letter, name)).encode()) for name in (*_TEXTS, *_NUMBERS)]
    return DeadLetterMessage(key=letter.key, value=letter.value, headers=headers)


def decode_dead_letter(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | str | None]] | None
) -> DeadLetter:
    """The dead letter of a Kafka record.

    Raises:
        CodecError: a header is missing or not what it should be.
    """
    found = {name.removeprefix(_PREFIX): value for name, value in headers or () if name.startswith(_PREFIX)}
    texts = {name: _text(found, name) for name in _TEXTS}
    numbers = {name: _number(found, name) for name in _NUMBERS}
    return DeadLetter(
        topic=texts["topic"],
        partition=numbers["partition"],
        offset=numbers["offset"],
        topic_id=texts["topic_id"],
        key=key,
        value=value,
        timestamp_us=numbers["timestamp_us"],
        reason=texts["reason"],
        code=texts["code"],
        at_us=numbers["at_us"],
    )


def unique_dead_letters(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """Each id once, the first of each: a worker that restarts may write a dead letter again."""
    seen: set[str] = set()
    for letter in letters:
        if letter.id not in seen:
            seen.add(letter.id)
            yield letter


def _text(headers: dict[str, bytes | str | None], name: str) -> str:
    value = headers.get(name)
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise CodecError(
            "dead letter", f"header '{_PREFIX}{name}' must be a text, but it is {value!r}; read a topic of dead letters"
        )
    return text


def _number(headers: dict[str, bytes | str | None], name: str) -> int:
    text = _text(headers, name)
    try:
        return int(text)
    except ValueError:
        raise CodecError(
            "dead letter",
            f"header '{_PREFIX}{name}' must be a number, but it is {text!r}; read a topic of dead letters",
        ) from None
