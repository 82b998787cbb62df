"""JSON events: strictly typed, and as exact as Python's own parser."""

from __future__ import annotations

import json
import math
import random
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import CodecError
from headrace_schemas.jsons import CarefulJsonDecoder, JsonDecoder, JsonEncoder

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
        (b'{"at": 0, "at": 0}', "field 'at' comes twice"),
        (b'{"at": 0, "s": {"x": 1}}', "field 's' must be a string, but it is {\"x\": 1}"),
        (b'{"at": 0, "s": [[1, 2]]}', "field 's' must be a string, but it is [[1, 2]]"),
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


def both(values: list[bytes]) -> None:
    """The compiled reader with its careful fallback gives what the careful one gives for everything."""
    fast, careful = DECODER.decode(values), CarefulJsonDecoder(EVENT).decode(values)
    assert fast.rows.tolist() == careful.rows.tolist()
    assert fast.faults == careful.faults
    assert fast.frame.schema == careful.frame.schema
    assert [tuple(map(bits, row)) for row in fast.frame.rows()] == [
        tuple(map(bits, row)) for row in careful.frame.rows()
    ]


def spelled(record: dict[str, Any], rng: random.Random) -> bytes:
    """A record in one of the many spellings of JSON."""
    text = json.dumps(record, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 2]))
    return text.encode()


def some_number(rng: random.Random) -> float:
    return rng.choice(
        [
            rng.random,
            lambda: round(rng.uniform(-1e4, 1e4), rng.randrange(9)),
            lambda: rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308),
            lambda: struct.unpack("<d", rng.randbytes(8))[0],
            lambda: float(rng.randrange(-(10**6), 10**6)),
            lambda: -0.0,
        ]
    )()


def some_record(rng: random.Random) -> dict[str, Any]:
    number = some_number(rng)
    moment = EPOCH + timedelta(microseconds=rng.randrange(-(2**55), 2**57))
    record: dict[str, Any] = {
        "s": "".join(rng.choice('abé"\\\n\t😀') for _ in range(rng.randrange(20))),
        "n": rng.choice([rng.randrange(-(2**63), 2**63), rng.randrange(-99, 99)]),
        "f": number if math.isfinite(number) else rng.randrange(-(10**25), 10**25),
        "b": rng.random() < 0.5,
        "t": rng.choice([rng.randrange(2**60), moment.isoformat(), moment.isoformat(timespec="milliseconds")]),
        "at": rng.choice([rng.randrange(-99, 99), moment.isoformat().replace("+00:00", "Z")]),
        "unknown": rng.choice([None, 1.5e3, "x", True, [1], {"s": 1}]),
    }
    names = [name for name in record if rng.random() < 0.8]
    rng.shuffle(names)
    return {name: None if rng.random() < 0.1 else record[name] for name in names}


def test_the_compiled_reader_equals_the_careful_one_on_records() -> None:
    rng = random.Random(5)
    for _ in range(300):
        both([spelled(some_record(rng), rng) for _ in range(20)])


def test_the_compiled_reader_equals_the_careful_one_on_damaged_records() -> None:
    """One byte changed, lost or added at a place of its own in every record."""
    rng = random.Random(6)
    for _ in range(500):
        values = []
        for _ in range(20):
            value = bytearray(spelled(some_record(rng), rng))
            place, new = rng.randrange(len(value)), rng.choice(b'{}[]",:.-+eE0123456789 tfnZT\\\n\xc3\xff')
            value[place : place + rng.randrange(2)] = bytes([new] * rng.randrange(2))
            values.append(bytes(value))
        both(values)


NUMBERS = [
    "0", "-0", "-0.0", "0.0", "0e5", "-0e5", "1", "01", "-01", "1.", ".5", "+1", "1e", "1e+", "1e5", "1E-5", "1e+22", "1e23", "1e-22",
    "1e-23", "9007199254740992", "9007199254740993", "9007199254740993.0", "999999999999999999", "1000000000000000000",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "0.1", "0.30000000000000004", "123456789012345678",
    "1234567890123456789.5", "1.7976931348623157e308", "1.7976931348623159e308", "5e-324", "2e-324", "1e400", "1e-400", "1e99999999999",
    "0.000000000000000000000000000001", "100000000000000000000000000000", "1" + "0" * 399, "1" + "0" * 400, "0." + "0" * 398 + "1",
    "1.50000000000000000000000000", "4.35", "2.675", "1e1.5", "1-5", "--1", "-", "1e5e5", "0x10", "1_000", "Infinity", "true",
]  # fmt: skip


@pytest.mark.parametrize("field", ["f", "n", "t", "unknown"])
def test_numbers_at_the_edges_are_read_alike(field: str) -> None:
    both([f'{{"at": 0, "{field}": {number}}}'.encode() for number in NUMBERS])


MOMENTS = [
    "2013-01-01T00:00:00Z", "2013-01-01T00:00:00z", "2013-01-01 00:00:00Z", "2013-01-01T00:00Z", "2013-01-01T24:00:00Z",
    "2012-02-29T12:00:00Z", "2013-02-29T12:00:00Z", "1900-02-29T12:00:00Z", "2000-02-29T12:00:00Z", "2013-13-01T00:00:00Z",
    "2013-00-01T00:00:00Z", "2013-04-31T00:00:00Z", "2013-01-00T00:00:00Z", "2013-01-01T00:60:00Z", "2013-01-01T00:00:60Z",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z",
    "2013-01-01T00:00:00.1Z", "2013-01-01T00:00:00.123Z", "2013-01-01T00:00:00.123456Z", "2013-01-01T00:00:00.1234567Z",
    "2013-01-01T00:00:00.Z", "2013-01-01T00:00:00+05:30", "2013-01-01T00:00:00-05:00", "2013-01-01T00:00:00+24:00",
    "2013-01-01T00:00:00+23:59", "2013-01-01T00:00:00+05:60", "2013-01-01T00:00:00+0530", "2013-01-01T00:00:00+05:30:15",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2013-01-01T00:00:00", "2013-01-01", "", "2013-1-1T00:00:00Z",
    "+013-01-01T00:00:00Z", "2013-01-01T00:00:00ZZ", "2013-W01-1T00:00:00Z",
]  # fmt: skip


def test_times_at_the_edges_are_read_alike() -> None:
    both([f'{{"at": "{moment}"}}'.encode() for moment in MOMENTS])


@settings(max_examples=300)
@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_every_day_of_the_calendar_is_read_alike(time_us: int) -> None:
    moment = EPOCH + timedelta(microseconds=time_us)
    (row,), faults = decode(json.dumps({"at": moment.isoformat()}).encode())
    assert faults == []
    assert row["at"] == time_us


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b"{}", b" { } ", b"{,}", b'{"at"}', b'{"at":}', b'{"at":0', b'{"at":0}}', b'{"at":0}\n', b'\xef\xbb\xbf{"at":0}',
        b'{"at":0 "s":"x"}', b'{"at":0,,"s":"x"}', b'{"at":0,"s":"x",}', b'{at:0}', b"{'at':0}", b'{"at":nul}', b'{"at":nulll}',
        b'{"at":0,"b":tru}', b'{"at":0,"b":falsy}', b'{"at":0,"b":TRUE}', b'{"at":0,"s":"a\nb"}', b'{"at":0,"s":"\x7f"}',
        b'{"at":0,"s":"\xed\xa0\x80"}', b'{"at":0,"\xff":1}', b'{"\\u0061t":0}', b'{"at":0,"x":"\\u0061"}', b'{"at":0,"x":1,"x":2}',
        b'{"at":0,"x":{"at":1}}', b'{"at":[0]}', b'{"at":0,"s":"a","s":null}', b'{"at":0,"s":null,"s":null}', b'{"at":\x0b0}',
    ],
)  # fmt: skip
def test_objects_at_the_edges_are_read_alike(value: bytes) -> None:
    both([b'{"at":1}', value, b'{"at":2,"s":"text"}'])


def test_plain_objects_are_all_read_by_the_compiled_reader() -> None:
    """Otherwise the equality above would say nothing."""
    rng = random.Random(7)
    encoder = JsonEncoder(EVENT)
    plain = [
        {"s": f"é {n}", "n": n, "f": some_number(rng), "b": n % 2 == 0, "t": n * 10**9, "at": n * 10**12}
        for n in range(500)
    ]
    values = [encoder.encode(record) for record in plain if math.isfinite(record["f"])]
    _, doubtful = DECODER._plain(values)
    assert not doubtful.any()
