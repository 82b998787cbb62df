"""Dead letters: the original record, byte for byte, and why it was set aside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import CodecError
from headrace_schemas.dead_letters import (
    DeadLetter,
    decode_dead_letter,
    encode_dead_letter,
    unique_dead_letters,
)

LETTERS = st.builds(
    DeadLetter,
    topic=st.text(max_size=20),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    topic_id=st.text(max_size=22),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    timestamp_us=st.integers(-1, 2**60),
    reason=st.text(max_size=100),
    code=st.text(max_size=10),
    at_us=st.integers(0, 2**60),
)
LETTER = DeadLetter("t", 3, 41, "Zx9", b"k", b"\xff", 5, "field 'x': required a number, got inf", "not-finite", 7)


@given(LETTERS)
def test_a_dead_letter_comes_back_as_it_was(letter: DeadLetter) -> None:
    message = encode_dead_letter(letter)
    assert (message.key, message.value) == (letter.key, letter.value)
    assert decode_dead_letter(message.key, message.value, message.headers) == letter


def test_the_id_travels_for_readers_in_other_languages() -> None:
    assert ("headrace.id", b"Zx9/3/41") in encode_dead_letter(LETTER).headers


def test_a_letter_that_was_written_twice_is_read_once() -> None:
    again = DeadLetter("t", 3, 41, "Zx9", b"k", b"\xff", 5, "the same", "null", 9)
    other = DeadLetter("t", 3, 42, "Zx9", b"k", b"\xff", 5, "another", "null", 9)
    assert list(unique_dead_letters([LETTER, again, other])) == [LETTER, other]


@pytest.mark.parametrize(
    "name", ["topic", "topic_id", "reason", "code", "partition", "offset", "timestamp_us", "at_us"]
)
def test_a_record_without_a_header_is_no_dead_letter(name: str) -> None:
    message = encode_dead_letter(LETTER)
    headers = [header for header in message.headers if header[0] != f"headrace.{name}"]
    with pytest.raises(CodecError, match=rf"header 'headrace\.{name}' must be"):
        decode_dead_letter(message.key, message.value, headers)


def test_a_header_that_is_no_number_is_refused() -> None:
    message = encode_dead_letter(LETTER)
    headers = [(name, b"x" if name == "headrace.offset" else value) for name, value in message.headers]
    with pytest.raises(CodecError, match="header 'headrace.offset' must be a number, but it is 'x'"):
        decode_dead_letter(message.key, message.value, headers)


def test_a_header_that_is_no_text_is_refused() -> None:
    message = encode_dead_letter(LETTER)
    headers = [(name, b"\xff" if name == "headrace.reason" else value) for name, value in message.headers]
    with pytest.raises(CodecError, match=r"header 'headrace\.reason' must be a text"):
        decode_dead_letter(message.key, message.value, headers)
    with pytest.raises(CodecError, match=r"header 'headrace\.topic' must be a text, but it is None"):
        decode_dead_letter(None, None, None)
