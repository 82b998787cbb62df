"""The columnar Avro reader against fastavro: equal on what is valid, and never a silent change of a neighbour on what is not."""

from __future__ import annotations

import io
import math
import random
import struct
from collections.abc import Mapping
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import CodecError
from headrace_schemas.avro import AvroDecoder, AvroEncoder

COLORS = ["red", "green", "a_symbol_that_is_longer_than_twelve"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FLOAT = st.floats(width=32)
TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "string": ("string", TEXT),
    "string_object": ({"type": "string"}, TEXT),
    "long": ("long", st.integers(-(2**63), 2**63 - 1)),
    "small": ("long", st.integers(-70, 70)),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "double": ("double", st.floats()),
    "float": ("float", FLOAT),
    "boolean": ("boolean", st.booleans()),
    "micros": ({"type": "long", "logicalType": "timestamp-micros"}, st.integers(-(2**62), 2**62)),
    "enum": ({"type": "enum", "name": "Color", "symbols": COLORS}, st.sampled_from(COLORS)),
}


def encoded(schema: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
    """The datum as fastavro writes it, times as whole numbers."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(schema)), record)
    return out.getvalue()


def plain(field_type: Any) -> Any:
    if isinstance(field_type, list):
        return [plain(branch) for branch in field_type]
    return "long" if isinstance(field_type, dict) and "logicalType" in field_type else field_type


def record_schema(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        "type": "record",
        "name": "R",
        "fields": [{"name": name, "type": field_type} for name, field_type in fields],
    }


def bits(value: Any) -> Any:
    """Floats by their bits, so that NaN equals itself and -0.0 differs from 0.0."""
    return struct.pack("<d", value) if isinstance(value, float) else value


def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(map(bits, row)) for row in frame.rows()]


@st.composite
def schemas_and_records(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    fields, values = [], {}
    for number in range(draw(st.integers(1, 6))):
        field_type, strategy = TYPES[draw(st.sampled_from(sorted(TYPES)))]
        if isinstance(field_type, dict) and "symbols" in field_type:
            field_type = {**field_type, "name": f"Color{number}"}
        nullable = draw(st.sampled_from(["no", "first", "last"]))
        if nullable != "no":
            field_type = ["null", field_type] if nullable == "first" else [field_type, "null"]
            strategy = st.none() | strategy
        fields.append((f"f{number}", field_type))
        values[f"f{number}"] = strategy
    return record_schema(fields), draw(st.lists(st.fixed_dictionaries(values), max_size=12))


@given(schemas_and_records())
def test_every_type_decodes_as_by_fastavro(given: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, records = given
    physical = record_schema([(field["name"], plain(field["type"])) for field in schema["fields"]])
    parsed = fastavro.parse_schema(physical)
    datums = [encoded(physical, record) for record in records]
    read = [fastavro.schemaless_reader(io.BytesIO(datum), parsed, None) for datum in datums]
    decoded = AvroDecoder(schema).decode(datums)
    assert decoded.faults == []
    assert decoded.rows.tolist() == list(range(len(records)))
    assert rows(decoded.frame) == [tuple(map(bits, record.values())) for record in read]


@given(schemas_and_records())
def test_the_encoder_writes_what_fastavro_writes(given: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, records = given
    physical = record_schema([(field["name"], plain(field["type"])) for field in schema["fields"]])
    encoder = AvroEncoder(schema)
    assert [encoder.encode(record) for record in records] == [encoded(physical, record) for record in records]


def reference(schema: Any, datum: bytes) -> dict[str, Any] | None:
    """The record of a datum by fastavro, held to the whole datum; None where it is malformed."""
    stream = io.BytesIO(datum)
    try:
        record = fastavro.schemaless_reader(stream, schema, None)
    except Exception:  # noqa: BLE001  (fastavro raises whatever the bytes lead it to)
        return None
    return record if stream.tell() == len(datum) else None


FLIGHT = record_schema(
    [
        ("id", "string"),
        ("n", "long"),
        ("delay", ["null", "double"]),
        ("ok", "boolean"),
        ("color", {"type": "enum", "name": "Color", "symbols": COLORS}),
        ("note", ["string", "null"]),
    ]
)


def flight(rng: random.Random) -> dict[str, Any]:
    return {
        "id": "é" * rng.randrange(12),
        "n": rng.randrange(-(2**63), 2**63) if rng.random() < 0.5 else rng.randrange(-99, 99),
        "delay": None if rng.random() < 0.3 else rng.random(),
        "ok": rng.random() < 0.5,
        "color": rng.choice(COLORS),
        "note": None if rng.random() < 0.3 else "a note of more than twelve bytes"[: rng.randrange(33)],
    }


def corrupted(rng: random.Random, datum: bytes) -> bytes:
    data = bytearray(datum)
    kind = rng.randrange(5)
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        data += rng.randbytes(rng.randrange(1, 9))
    elif kind == 2:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 3:
        del data[rng.randrange(len(data))]
    else:
        data = bytearray(rng.randbytes(rng.randrange(1, 40)))
    return bytes(data)


def test_a_corrupt_datum_never_touches_its_neighbours() -> None:
    """2,000 batches of 20 with one corrupt datum: the others decode as if it were not there."""
    rng = random.Random(3)
    decoder = AvroDecoder(FLIGHT)
    parsed = fastavro.parse_schema(FLIGHT)
    rejected = 0
    for _ in range(2_000):
        datums = [encoded(FLIGHT, flight(rng)) for _ in range(20)]
        whole = rows(decoder.decode(datums).frame)
        victim = rng.randrange(20)
        damaged = corrupted(rng, datums[victim])
        decoded = decoder.decode([*datums[:victim], damaged, *datums[victim + 1 :]])
        found = dict(zip(decoded.rows.tolist(), rows(decoded.frame), strict=True))
        alone = decoder.decode([damaged])
        assert {row: values for row, values in found.items() if row != victim} == {
            row: values for row, values in enumerate(whole) if row != victim
        }
        # In company it is judged as it is alone, and never accepted where fastavro refuses it.
        assert (victim in found) == (alone.frame.height == 1)
        assert [fault.row for fault in decoded.faults] == ([] if victim in found else [victim])
        if reference(parsed, damaged) is None:
            assert victim not in found
        rejected += victim not in found
    assert rejected > 1_000


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_is_judged_like_fastavro_or_more_strictly(datums: list[bytes]) -> None:
    parsed = fastavro.parse_schema(FLIGHT)
    decoded = AvroDecoder(FLIGHT).decode(datums)
    assert sorted([*decoded.rows.tolist(), *(fault.row for fault in decoded.faults)]) == list(range(len(datums)))
    for row, values in zip(decoded.rows.tolist(), rows(decoded.frame), strict=True):
        read = reference(parsed, datums[row])
        assert read is not None
        assert values == tuple(map(bits, read.values()))


@settings(max_examples=500)
@given(st.binary(max_size=12))
def test_text_is_utf8_exactly_where_python_says_so(data: bytes) -> None:
    schema = record_schema([("text", "string")])
    decoded = AvroDecoder(schema).decode([encoded(record_schema([("text", "bytes")]), {"text": data})])
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert len(decoded.faults) == 1
    else:
        assert decoded.frame["text"].to_list() == [text]


def zigzag(number: int) -> bytes:
    return encoded(record_schema([("n", "long")]), {"n": number})


@pytest.mark.parametrize(
    ("field_type", "datum", "reason"),
    [
        ("long", b"", "Avro record 'R', field 'x' at byte 0 of 0: the datum ends inside it"),
        ("long", b"\x80", "field 'x' at byte 0 of 1: the datum ends inside it"),
        ("long", b"\xff" * 9 + b"\x02", "its variable-length number has more than 64 bits"),
        ("long", b"\x80" * 10 + b"\x00", "its variable-length number has more than 64 bits"),
        ("long", b"\x00\x00\x00", "Avro record 'R': 2 bytes are left behind the last field"),
        ("double", b"\x00" * 7, "the datum ends inside it"),
        ("float", b"\x00" * 3, "the datum ends inside it"),
        ("boolean", b"", "the datum ends inside it"),
        ("boolean", b"\x02", "a boolean is the byte 0 or 1"),
        (["null", "long"], zigzag(2) + b"\x00", "its union has no such branch"),
        (["null", "long"], zigzag(-1) + b"\x00", "its union has no such branch"),
        ("string", zigzag(-1), "its length is negative"),
        ("string", zigzag(2**62) + b"abc", "the datum ends inside it"),
        ("string", zigzag(2) + b"\xc0\x80", "its text is not UTF-8"),
        ("string", zigzag(3) + b"\xed\xa0\x80", "its text is not UTF-8"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, zigzag(1), "the enum has no such symbol"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, zigzag(-1), "the enum has no such symbol"),
    ],
)
def test_a_malformed_datum_is_told_with_field_and_place(field_type: Any, datum: bytes, reason: str) -> None:
    (fault,) = AvroDecoder(record_schema([("x", field_type)])).decode([datum]).faults
    assert reason in fault.reason


def test_texts_stay_as_they_are_when_the_batch_is_gone() -> None:
    """Columns point into the batch's bytes without a copy; the frame keeps those alive."""
    schema = record_schema([("text", "string")])
    texts = [f"a text that is longer than twelve bytes, number {n}" for n in range(1_000)]
    frame = AvroDecoder(schema).decode([encoded(schema, {"text": text}) for text in texts]).frame
    del schema
    kept = frame.filter(pl.int_range(pl.len()) % 7 == 0)
    del frame
    assert [bytearray(64) for _ in range(10_000)]
    assert kept["text"].to_list() == texts[::7]


@pytest.mark.parametrize(
    "field_type", ["bytes", {"type": "array", "items": "long"}, ["null", "string", "long"], ["null"]]
)
def test_a_type_that_no_column_holds_is_refused(field_type: Any) -> None:
    with pytest.raises(CodecError, match="Avro record 'R': field 'x' must be a string, enum, long"):
        AvroDecoder(record_schema([("x", field_type)]))


@pytest.mark.parametrize("record", [{"x": "text"}, {"x": None}, {"x": 2**63}, {}])
def test_a_record_that_does_not_fit_is_not_encoded(record: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="Avro record 'R': the record does not fit the schema"):
        AvroEncoder(record_schema([("x", "long")])).encode(record)


def test_a_float_keeps_its_value_in_a_wider_column() -> None:
    schema = record_schema([("x", "float")])
    values = [0.1, -0.0, 1e-45, 3.4e38, math.inf]
    singles = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]
    frame = AvroDecoder(schema).decode([encoded(schema, {"x": value}) for value in values]).frame
    assert rows(frame) == [(bits(value),) for value in singles]
