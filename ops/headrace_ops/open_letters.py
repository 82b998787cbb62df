"""How many dead letters are open: set aside, and not sent back. Counted at every look, so it ends in time and says if it is not all.

What may not live here: what a letter says, and sending it back (`headrace_ops.dead_letters`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import Message

from headrace.errors import CodecError, NotFound
from headrace_ops.dead_letters import letter_of, replay_of, replay_topic
from headrace_schemas.dead_letters import dead_letter_topic
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import TopicReader

UNREADABLE = (
    "unreadable"  # the code of a record that is no dead letter; `headrace dead-letters list` says what it lacks
)


@dataclass(frozen=True, slots=True)
class OpenLetters:
    """How many dead letters are open, each event once.

    >>> str(OpenLetters(3, {"range": 2, "poison": 1}, complete=True))
    '3 open: 2 range, 1 poison'
    >>> str(OpenLetters(1, {"range": 1}, complete=False)), str(OpenLetters(0, {}, complete=True))
    ('at least 1 open: 1 range', 'none open')

    Args:
        open: how many.
        by_code: how many of each kind of reason, the most frequent first.
        complete: whether all were read; if not, there are at least so many.
    """

    open: int
    by_code: Mapping[str, int]
    complete: bool

    def __str__(self) -> str:
        if not self.open:
            return "none open" if self.complete else "too many to count in time"
        codes = ", ".join(f"{count:,} {code}" for code, count in self.by_code.items())
        return f"{'' if self.complete else 'at least '}{self.open:,} open: {codes}"


def count_open(settings: Settings, *, patience_s: float) -> OpenLetters:
    """Count the open dead letters of a project.

    Args:
        settings: the project's.
        patience_s: how long each of two topics is read, and how long a silent broker is waited for.

    Raises:
        ServiceUnavailable: Kafka does not answer in time.
    """
    codes: dict[str, str] = {}
    letters = _Read(settings, dead_letter_topic(settings.namespace), patience_s)
    for message in letters:
        try:
            letter = letter_of(message)
            codes.setdefault(letter.id, letter.code)
        except CodecError:
            codes[f"{message.partition()}/{message.offset()}"] = UNREADABLE
    notes = _Read(settings, replay_topic(settings.namespace), patience_s)
    if codes:
        for note in notes:
            codes.pop(replay_of(note)[0], None)
    if not notes.complete:
        return OpenLetters(0, {}, complete=False)  # any of them may have been sent back
    by_code = dict(Counter(codes.values()).most_common())
    return OpenLetters(len(codes), by_code, complete=letters.complete)


class _Read:
    """The records of a topic that may not be there, for so long.

    Attributes:
        complete: whether that was all.
    """

    def __init__(self, settings: Settings, topic: str, patience_s: float) -> None:
        self._settings, self._topic, self._patience_s = settings, topic, patience_s
        self.complete = True

    def __iter__(self) -> Iterator[Message]:
        with (
            suppress(NotFound),
            TopicReader(self._settings.kafka, self._topic, patience_s=self._patience_s) as reader,
        ):
            deadline = time.monotonic() + self._patience_s
            for message in reader.read_to_end():
                yield message
                if time.monotonic() > deadline:
                    self.complete = False
                    return
