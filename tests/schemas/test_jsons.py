"""JSON events: strictly typed, and as exact as Python's own parser."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import CodecError
from headrace_schemas.jsons import JsonDecoder, JsonEncoder

EVENT = hr.Event(
    "e",
    fields={
        "s": hr.string(nullable=True),
        "n": hr.int64(nullable=True),
        "f": hr.float64(nullable=True),
        "b": hr.boolean(nullable=True),
        "t": hr.timestamp(nullable=True),
        "at": hr.timestamp(),
    },
    time="at",
    format="json",
)
DECODER = JsonDecoder(EVENT)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])
TIMES = st.builds(
    lambda us, zone: (EPOCH + timedelta(microseconds=us)).astimezone(zone), st.integers(-(2**55), 2**57), ZONES
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "s": TEXT,
    "n": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False, allow_infinity=False),
    "b": st.booleans(),
    "t": st.integers(-(2**62), 2**62) | TIMES,
    "at": st.integers(-(2**62), 2**62) | TIMES,
}


def decode(*values: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    decoded = DECODER.decode(list(values))
    return decoded.frame.to_dicts(), [fault.reason for fault in decoded.faults]


def bits(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value


def micros(value: object) -> object:
    return (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


@given(st.fixed_dictionaries({name: values if name == "at" else st.none() | values for name, values in VALUES.items()}))
def test_a_record_comes_back_bit_for_bit(record: dict[str, Any]) -> None:
    plain = {name: micros(value) for name, value in record.items()}
    (row,), faults = decode(JsonEncoder(EVENT).encode(plain))
    assert faults == []
    assert {name: bits(value) for name, value in row.items()} == {name: bits(value) for name, value in plain.items()}


@given(
    st.fixed_dictionaries({"at": st.integers(-(2**62), 2**62)}, optional={name: VALUES[name] for name in "snfb"}),
    st.dictionaries(
        TEXT.filter(lambda name: name not in EVENT.fields), st.integers() | TEXT | st.lists(TEXT), max_size=3
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_spelling_of_an_object_is_read(
    record: dict[str, Any], unknown: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    """Absent is null, unknown names are passed over, spaces and escapes do not matter."""
    value = json.dumps({**unknown, **record}, indent=indent, ensure_ascii=ascii_only).encode()
    (row,), faults = decode(value)
    assert faults == []
    expected = {name: record.get(name) for name in EVENT.fields}
    assert {name: bits(cell) for name, cell in row.items()} == {name: bits(cell) for name, cell in expected.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"2013-01-01T05:15:00Z"', datetime(2013, 1, 1, 5, 15, tzinfo=UTC)),
        ('"2013-01-01T00:15:00.000001-05:00"', datetime(2013, 1, 1, 5, 15, 0, 1, tzinfo=UTC)),
        ("1356998400000000", datetime(2013, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_iso_8601_or_microseconds(text: str, expected: datetime) -> None:
    (row,), _ = decode(b'{"at": %s}' % text.encode())
    assert row["at"] == micros(expected)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"at": 0, "s": 5}', "JSON event 'e': field 's' must be a string, but it is 5"),
        (b'{"at": 0, "s": "\\ud800"}', "field 's' must be text that UTF-8 can hold"),
        (b'{"at": 0, "n": 1.0}', "field 'n' must be a 64-bit integer, but it is 1.0"),
        (b'{"at": 0, "n": "1"}', "field 'n' must be a 64-bit integer, but it is \"1\""),
        (b'{"at": 0, "n": true}', "field 'n' must be a 64-bit integer, but it is true"),
        (b'{"at": 0, "n": 9223372036854775808}', "field 'n' must be a 64-bit integer, but it is 9223372036854775808"),
        (b'{"at": 0, "f": "1"}', "field 'f' must be a number"),
        (b'{"at": 0, "f": true}', "field 'f' must be a number, but it is true"),
        (b'{"at": 0, "f": 1e999}', "field 'f' must be a number that a 64-bit float holds"),
        (b'{"at": 0, "f": ' + b"9" * 400 + b"}", "field 'f' must be a number that a 64-bit float holds"),
        (b'{"at": 0, "f": NaN}', "JSON event 'e': NaN is no JSON number"),
        (b'{"at": 0, "f": -Infinity}', "-Infinity is no JSON number"),
        (b'{"at": 0, "b": 1}', "field 'b' must be true or false, but it is 1"),
        (b'{"at": 0, "b": "true"}', "field 'b' must be true or false"),
        (b'{"at": "2013-01-01T00:00:00"}', "field 'at' must be an ISO 8601 time with a zone"),
        (b'{"at": "yesterday"}', "field 'at' must be an ISO 8601 time with a zone"),
        (
            b'{"at": 1.5}',
            "field 'at' must be an ISO 8601 time with a zone, or whole microseconds since 1970, but it is 1.5",
        ),
        (b'{"at": 0, "s": "a", "s": "b"}', "field 's' comes twice"),
        (b'{"at": 0, "x": {"y": 1, "y": 1}}', "field 'y' comes twice"),
        (b"[1]", "it must be an object, but it is [1]"),
        (b"null", "it must be an object, but it is null"),
        (b'{"at": 0} x', "Extra data"),
        (b'{"at": 0', "Expecting"),
        (b'{"at": 0,}', "JSON event 'e': "),
        (b"\xff", "'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"at": ' + b"9" * 5_000 + b"}", "JSON event 'e': "),
    ],
)
def test_what_is_not_as_declared_is_refused_with_the_reason(value: bytes, reason: str) -> None:
    good = b'{"at": 1}'
    decoded = DECODER.decode([good, value, good])
    assert decoded.rows.tolist() == [0, 2]
    (fault,) = decoded.faults
    assert fault.row == 1
    assert reason in fault.reason
    assert len(fault.reason) < 200


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_garbage_is_refused_row_by_row(values: list[bytes]) -> None:
    decoded = DECODER.decode(values)
    assert sorted([*decoded.rows.tolist(), *(fault.row for fault in decoded.faults)]) == list(range(len(values)))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"at": None}, "field 'at' must be a time .*, but it is null"),
        ({"at": 0, "f": math.inf}, "field 'f' must be a number that a 64-bit float holds"),
        ({"at": 0, "n": 2**63}, "field 'n' must be a 64-bit integer"),
        ({"at": 0, "s": 5}, "field 's' must be a string, but it is 5"),
    ],
)
def test_a_record_that_does_not_fit_is_not_encoded(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(CodecError, match=f"JSON event 'e': {reason}"):
        JsonEncoder(EVENT).encode(dict.fromkeys(EVENT.fields) | record)
