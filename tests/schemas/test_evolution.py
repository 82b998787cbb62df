"""Records of older and newer schemas, read as an event: against fastavro's own resolution, and rule by rule."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import CodecError, ConfigError, DefinitionError, NotFound, ServiceUnavailable
from headrace_schemas.avro import physical
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec, schema_of
from headrace_schemas.evolution import EvolvedDecoder, unreadable
from headrace_schemas.framing import WriterSchema, framed, schema_ids, subject_of
from headrace_schemas.resolution import resolve, wanted_by, wanted_by_schema
from headrace_schemas.stores.log import LogTable
from headrace_schemas.tables import event_schema

AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
START_US = 1_700_000_000_000_000


class Known:
    """Schemas by id, from a dict."""

    def __init__(self, *records: Mapping[str, Any]) -> None:
        self.schemas = [WriterSchema("AVRO", json.dumps(record)) for record in records]
        self.away = False

    def schema(self, schema_id: int) -> WriterSchema:
        if self.away:
            raise ServiceUnavailable("schema registry", "nowhere", "away")
        if schema_id >= len(self.schemas):
            raise NotFound("schema", str(schema_id), ())
        return self.schemas[schema_id]

    def register(self, subject: str, schema: WriterSchema) -> int:
        if schema not in self.schemas:
            self.schemas.append(schema)
        return self.schemas.index(schema)


def record(*fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "paid", "fields": [*fields, AT]}


def paid(framing: Any = "confluent", **fields: hr.Field) -> hr.Event:
    return hr.Event("paid", {**fields, "at": hr.timestamp()}, time="at", framing=framing, future_tolerance=None)


def datum(schema: Mapping[str, Any], values: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(physical(schema)), {"at": START_US, **values})
    return out.getvalue()


def decoded(event: hr.Event, schema: Mapping[str, Any], *rows: Mapping[str, Any]) -> pl.DataFrame:
    found = EvolvedDecoder(event, WriterSchema("AVRO", json.dumps(schema))).decode([datum(schema, row) for row in rows])
    assert found.faults == []
    return found.frame


def batch(*values: bytes) -> RawBatch:
    n = len(values)
    return RawBatch(
        "paid", np.zeros(n, np.int32), np.arange(n), np.full(n, START_US), np.zeros(n, np.uint8), START_US, [None] * n, list(values)
    )  # fmt: skip


# --- the rules ---------------------------------------------------------------------------------------------------------


def test_names_aliases_defaults_and_fields_that_nobody_wants() -> None:
    event = paid(
        card=hr.string(aliases=["pan", "card_number"]), country=hr.string(default="AT"), note=hr.string(nullable=True)
    )
    schema = record({"name": "unwanted", "type": "string"}, {"name": "card_number", "type": "string"})
    assert decoded(event, schema, {"unwanted": "x", "card_number": "c1"}).to_dicts() == [
        {"card": "c1", "country": "AT", "note": None, "at": START_US}
    ]


def test_a_name_goes_before_an_alias() -> None:
    event = paid(card=hr.string(aliases=["pan"]))
    schema = record({"name": "pan", "type": "string"}, {"name": "card", "type": "string"})
    assert decoded(event, schema, {"pan": "old", "card": "new"})["card"].to_list() == ["new"]


def test_two_fields_that_changed_their_names_with_each_other() -> None:
    event = paid(a=hr.string(aliases=["b"]), c=hr.string(aliases=["a"]))
    schema = record({"name": "b", "type": "string"}, {"name": "a", "type": "string"})
    # `a` is there under its own name, so it is what `a` was; `c` is found under `a` as well.
    assert decoded(event, schema, {"a": "1", "b": "2"}).select("a", "c").rows() == [("1", "1")]


@pytest.mark.parametrize(
    ("avro_type", "field", "value", "read"),
    [
        ("int", hr.int64(), 7, 7),
        ("int", hr.float64(), 7, 7.0),
        ("long", hr.float64(), 2**40, float(2**40)),
        ("float", hr.float64(), 0.5, 0.5),
        ("bytes", hr.string(), "grün".encode(), "grün"),
        (["null", "bytes"], hr.string(nullable=True), None, None),
        ({"type": "enum", "name": "e", "symbols": ["x", "y"]}, hr.string(), "y", "y"),
        (["null", "long"], hr.int64(nullable=True), 3, 3),
        ("long", hr.int64(nullable=True), 3, 3),
        (["null", "int", "long"], hr.int64(nullable=True), 2**40, 2**40),
        (["int", "string"], hr.float64(), 3, 3.0),
        ({"type": "string", "avro.java.string": "String"}, hr.string(), "x", "x"),
    ],
)
def test_promotions(avro_type: Any, field: hr.Field, value: Any, read: Any) -> None:
    rows = decoded(paid(v=field), record({"name": "v", "type": avro_type}), {"v": value})
    assert rows["v"].to_list() == [read]


@pytest.mark.parametrize(
    ("avro_type", "field"),
    [
        ("double", hr.int64()), ("string", hr.int64()), ("long", hr.string()), ("long", hr.boolean()), ("boolean", hr.int64()),
        ({"type": "array", "items": "long"}, hr.int64()), (["null", "string"], hr.float64(nullable=True)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, hr.string()),
        ({"type": "int", "logicalType": "date"}, hr.timestamp()),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, hr.timestamp()),
        ("null", hr.int64(nullable=True)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(avro_type: Any, field: hr.Field) -> None:
    schema = WriterSchema("AVRO", json.dumps(record({"name": "v", "type": avro_type})))
    assert len(unreadable(paid(v=field), schema)) == 1
    with pytest.raises(CodecError, match=r"cannot be read: field 'v'"):
        EvolvedDecoder(paid(v=field), schema)


def test_a_field_without_default_has_to_be_there() -> None:
    schema = WriterSchema("AVRO", json.dumps(record()))
    assert unreadable(paid(v=hr.int64(aliases=["w"])), schema) == [
        "field 'v' is not in it (nor as w) and has no default"
    ]
    assert unreadable(paid(v=hr.int64(default=1)), schema) == []


@pytest.mark.parametrize(
    ("unit", "written", "read"),
    [
        ("timestamp-millis", 1_700_000_000_123, 1_700_000_000_123_000),
        ("timestamp-nanos", 1_700_000_000_123_456_789, 1_700_000_000_123_456),
        ("timestamp-nanos", -1, -1),
        (None, START_US, START_US),
    ],
)
def test_times_of_other_units_are_converted(unit: str | None, written: int, read: int) -> None:
    annotation = {"logicalType": unit} if unit else {}
    schema = record({"name": "sent", "type": {"type": "long", **annotation}})
    assert decoded(paid(sent=hr.timestamp()), schema, {"sent": written})["sent"].to_list() == [read]


def test_a_time_beyond_microseconds_is_set_aside_not_wrapped() -> None:
    event = paid(sent=hr.timestamp())
    schema = record({"name": "sent", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    wraps = 2**63 // 1000 + 1_700_000_000_000 + 2**54 // 1000 * 1000
    found = EventCodec(event, schemas=Known(schema)).decode(batch(framed(0, datum(schema, {"sent": wraps}))))
    assert [reject.code for reject in found.rejects] == ["range"]


def test_an_enum_s_own_default_takes_the_place_of_new_symbols() -> None:
    enum = {"type": "enum", "name": "e", "symbols": ["x", "other"], "default": "other"}
    event = hr.Event.from_avsc("paid", record({"name": "v", "type": enum}), time="at", framing="confluent")
    newer = {"type": "enum", "name": "e", "symbols": ["x", "y", "other"]}
    assert decoded(event, record({"name": "v", "type": newer}), {"v": "y"}, {"v": "x"})["v"].to_list() == ["other", "x"]


def test_records_of_nested_types_are_read_one_by_one() -> None:
    nested = {"type": "record", "name": "shop", "namespace": "a", "fields": [{"name": "id", "type": "long"}]}
    schema = record(
        {"name": "shop", "type": nested}, {"name": "other", "type": ["null", "a.shop"]}, {"name": "v", "type": "long"},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
    )  # fmt: skip
    rows = [{"shop": {"id": n}, "other": None, "v": n, "tags": {"k": "w"}} for n in range(3)]
    assert decoded(paid(v=hr.int64()), schema, *rows)["v"].to_list() == [0, 1, 2]
    whole = datum(schema, rows[0])
    found = EvolvedDecoder(paid(v=hr.int64()), WriterSchema("AVRO", json.dumps(schema))).decode(
        [whole[:-1], whole, whole + b"x", b""]
    )
    assert found.rows.tolist() == [1]
    assert sorted(fault.row for fault in found.faults) == [0, 2, 3]


def test_schemas_that_name_others() -> None:
    shop = json.dumps({"type": "record", "name": "shop", "fields": [{"name": "id", "type": "long"}]})
    schema = record({"name": "shop", "type": "shop"}, {"name": "v", "type": "long"})
    out = io.BytesIO()
    named: dict[str, Any] = {}
    fastavro.parse_schema(json.loads(shop), named_schemas=named)
    parsed = fastavro.parse_schema(physical(schema), named_schemas=named)
    fastavro.schemaless_writer(out, parsed, {"shop": {"id": 1}, "v": 5, "at": START_US})
    decoder = EvolvedDecoder(paid(v=hr.int64()), WriterSchema("AVRO", json.dumps(schema), (shop,)))
    assert decoder.decode([out.getvalue()]).frame["v"].to_list() == [5]


FIELDS: dict[str, tuple[Any, hr.Field, st.SearchStrategy[Any]]] = {
    "int": ("int", hr.int64(), st.integers(-(2**31), 2**31 - 1)),
    "int as double": ("int", hr.float64(), st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", hr.int64(), st.integers(-(2**63), 2**63 - 1)),
    "long as double": ("long", hr.float64(), st.integers(-(2**63), 2**63 - 1)),
    "float": ("float", hr.float64(), st.floats(width=32, allow_nan=False)),
    "text": ("string", hr.string(), st.text(max_size=20)),
    "truth": ("boolean", hr.boolean(), st.booleans()),
    "maybe": (["null", "long"], hr.int64(nullable=True), st.none() | st.integers(-(2**53), 2**53)),
}  # fmt: skip


@settings(max_examples=200)
@given(st.data())
def test_what_fastavro_s_own_resolution_reads(data: st.DataObject) -> None:
    """Any subset of fields in any order, some under an alias, some missing with a default, among fields nobody wants."""
    kinds = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=6))
    written, fields, values = [], {}, {}
    for number, kind in enumerate(kinds):
        avro_type, field, drawn = FIELDS[kind]
        name, role = f"f{number}", data.draw(st.sampled_from(["same", "alias", "missing", "unwanted"]))
        if role == "missing":
            fields[name] = hr.int64(default=data.draw(st.integers(-9, 9)))
            continue
        old = f"old{number}" if role == "alias" else name
        written.append({"name": old, "type": avro_type})
        values[old] = data.draw(drawn)
        if role == "alias":
            fields[name] = hr.fields.Field(field.type, field.nullable, field.quantum, aliases=(old,))
        elif role == "same":
            fields[name] = field
    schema = record(*data.draw(st.permutations(written)))
    event = paid(**fields)
    value = datum(schema, values)
    reference = fastavro.schemaless_reader(
        io.BytesIO(value), fastavro.parse_schema(physical(schema)), fastavro.parse_schema(physical(event.avro_schema))
    )
    assert decoded(event, schema, values).to_dicts() == [reference]


# --- framing -----------------------------------------------------------------------------------------------------------


def test_a_batch_of_several_schemas_keeps_its_order() -> None:
    old, new = (
        record({"name": "v", "type": "int"}),
        record({"name": "v", "type": "long"}, {"name": "w", "type": "string"}),
    )
    event = paid(v=hr.int64())
    values = [
        framed(n % 2, datum((old, new)[n % 2], {"v": n, "w": "x"} if n % 2 else {"v": n})) for n in range(50)
    ]  # fmt: skip
    found = EventCodec(event, schemas=Known(old, new)).decode(batch(*values))
    assert found.frame["v"].to_list() == list(range(50)) == found.frame["_offset"].to_list()


def test_unknown_schemas_and_records_without_header_are_set_aside_alone() -> None:
    schema = record({"name": "v", "type": "long"})
    good = framed(0, datum(schema, {"v": 1}))
    other = WriterSchema("JSON", "{}")
    known = Known(schema, record({"name": "x", "type": "long"}))
    known.schemas.append(other)
    found = EventCodec(paid(v=hr.int64()), schemas=known).decode(
        batch(good, framed(99, b"x"), b"\x01no header", good, b"\x00\x00", framed(1, datum(record({"name": "x", "type": "long"}), {"x": 1})), framed(2, b"{}"), good[:-1])
    )  # fmt: skip
    assert found.frame["_offset"].to_list() == [0, 3]
    assert [(r.row, r.code) for r in found.rejects] == [
        (1, "schema"), (2, "schema"), (4, "schema"), (5, "schema"), (6, "schema"), (7, "undecodable"),
    ]  # fmt: skip
    assert "no schema '99'" in found.rejects[0].reason
    assert "has no default" in found.rejects[3].reason


def test_a_registry_that_is_away_sets_nothing_aside() -> None:
    known = Known(record({"name": "v", "type": "long"}))
    known.away = True
    with pytest.raises(ServiceUnavailable):
        EventCodec(paid(v=hr.int64()), schemas=known).decode(batch(framed(0, b"x")))


def test_what_is_encoded_is_decoded() -> None:
    for form in ("avro", "json"):
        event = hr.Event(
            "paid", {"v": hr.int64(), "at": hr.timestamp()}, time="at", format=form, framing="confluent", future_tolerance=None
        )  # fmt: skip
        codec = EventCodec(event, schemas=Known())
        values = [codec.encode({"v": n, "at": START_US}) for n in range(3)]
        assert schema_ids(values).tolist() == [0, 0, 0]
        assert codec.decode(batch(*values)).frame["v"].to_list() == [0, 1, 2]


def test_framing_needs_a_registry_and_says_so() -> None:
    with pytest.raises(ConfigError, match="HEADRACE_SCHEMA_REGISTRY"):
        EventCodec(paid(v=hr.int64()))
    with pytest.raises(DefinitionError, match="'none' or 'confluent'"):
        paid(framing="confluant", v=hr.int64())
    assert subject_of("paid") == "paid-value"


def test_the_registered_schema_resolves_to_the_event_itself() -> None:
    event = paid(card=hr.string(aliases=["pan"]), v=hr.float64(default=1.5), n=hr.int64(nullable=True))
    assert unreadable(event, schema_of(event)) == []
    assert resolve(event.avro_schema, wanted_by_schema(event.avro_schema)).problems == ()


def test_readers_of_the_version_before() -> None:
    old = record({"name": "v", "type": "int"}, {"name": "gone", "type": "string"})
    problems = resolve(paid(v=hr.int64()).avro_schema, wanted_by_schema(old)).problems
    assert problems == (
        "field 'v' is long, which cannot be read as a int",
        "field 'gone' is not in it and has no default",
    )
    assert [wanted.name for wanted in wanted_by(paid(v=hr.int64()))] == ["v", "at"]


# --- defaults and aliases elsewhere --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declare",
    [
        lambda: hr.int64(default=1.5), lambda: hr.int64(default=True), lambda: hr.string(default=7), lambda: hr.string(default=None),
        lambda: hr.int64(ge=0, default=-1), lambda: hr.string(one_of=["a"], default="b"), lambda: hr.float64(default=float("nan")),
        lambda: hr.boolean(default=1), lambda: hr.string(nullable=True, default="x"), lambda: hr.string(aliases=[""]),
    ],
)  # fmt: skip
def test_a_default_is_a_value_that_the_field_may_have(declare: Any) -> None:
    with pytest.raises(DefinitionError):
        declare()


def test_fingerprints_do_not_know_of_aliases_and_defaults() -> None:
    assert hr.int64(default=1, aliases=["x"]).canonical() == hr.int64().canonical()


def test_the_log_reads_older_files_as_the_stream_reads_older_records(tmp_path: Any) -> None:
    """A row that was logged before a field was added or renamed is what its record would be decoded to today."""
    old = hr.Event("paid", {"pan": hr.string(), "at": hr.timestamp()}, time="at")
    new = hr.Event(
        "paid", {"card": hr.string(aliases=["pan"]), "country": hr.string(default="AT"), "note": hr.string(nullable=True), "at": hr.timestamp()},
        time="at",
    )  # fmt: skip
    newest = hr.Event("paid", {"card": hr.string(aliases=["pan"]), "at": hr.timestamp()}, time="at")
    for number, (event, row) in enumerate(
        [(old, {"pan": "c0"}), (new, {"card": "c1", "country": "DE", "note": "n"}), (newest, {"card": "c2"})]
    ):
        table = LogTable.open(tmp_path / "paid", event_schema(event), "topic")
        meta = {"_partition": 0, "_offset": number, "_timestamp_us": 0, "_timestamp_type": 0, "_received_us": 0,
                "_event_time_us": 0, "_id_hash": 0}  # fmt: skip
        frame = pl.DataFrame([{**row, "at": START_US, **meta}], schema=table.schema.frame_schema)
        assert table.append(frame, {0: (number, number + 1)}) == 1
    table = LogTable.open(tmp_path / "paid", event_schema(new), "topic")
    wanted = [("c0", "AT", None), ("c1", "DE", "n"), ("c2", "AT", None)]
    assert table.read(0, 0, 3).select("card", "country", "note").rows() == wanted
    table.compact(keep_hours=0)
    assert LogTable.open(tmp_path / "paid", event_schema(new)).scan().sort("_offset").collect().select(
        "card", "country", "note"
    ).rows() == wanted  # fmt: skip
