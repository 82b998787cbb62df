"""Events declared from a JSON Schema: fields of its plain properties, every record validated against the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace import json_schema
from headrace.errors import CodecError, DefinitionError
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec, schema_of

START_US = 1_700_000_000_000_000
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "card": {"type": "string", "pattern": "^[0-9]{4}$", "description": "last four digits"},
        "at": {"type": "string", "format": "date-time"},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
        "count": {"type": "integer", "minimum": 1},
        "channel": {"enum": ["web", "shop"], "type": "string"},
        "mail": {"type": ["string", "null"], "format": "email"},
        "items": {"type": "array", "items": {"type": "object", "required": ["sku"]}, "maxItems": 2},
        "anything": True,
    },
    "required": ["card", "at", "amount", "count", "channel"],
    "if": {"properties": {"channel": {"const": "shop"}}},
    "then": {"required": ["mail"]},
}


def event(schema: Any = SCHEMA, **options: Any) -> hr.Event:
    return hr.Event.from_json_schema("paid", schema, time="at", future_tolerance=None, **options)


def good(**changes: Any) -> dict[str, Any]:
    row = {
        "card": "1234",
        "at": "2026-01-01T00:00:00Z",
        "amount": 9.5,
        "count": 1,
        "channel": "web",
        "items": [{"sku": 1}],
    }
    return row | changes


def judged(*rows: dict[str, Any]) -> tuple[list[int], list[tuple[int, str, str]]]:
    values = [json.dumps(row).encode() for row in rows]
    n = len(values)
    raw = RawBatch(
        "paid", np.zeros(n, np.int32), np.arange(n), np.full(n, START_US), np.zeros(n, np.uint8), START_US, [None] * n, list(values)
    )  # fmt: skip
    found = EventCodec(event()).decode(raw)
    return found.frame["_offset"].to_list(), [(r.row, r.code, r.reason) for r in found.rejects]


def test_plain_properties_become_fields() -> None:
    fields = event().fields
    assert {name: field.type.value for name, field in fields.items()} == {
        "card": "string", "at": "timestamp", "amount": "float64", "count": "int64", "channel": "string", "mail": "string",
    }  # fmt: skip
    assert (fields["amount"].le, fields["count"].ge, fields["channel"].one_of) == (1000, 1, ("web", "shop"))
    assert [name for name, field in fields.items() if field.nullable] == ["mail"]
    assert fields["card"].description == "last four digits"


def test_every_rule_of_the_schema_counts() -> None:
    rows = [
        good(), good(card="12a4"), good(amount=0), good(items=[{"sku": 1}, {}]), good(items=[1, 2, 3]), good(channel="shop"),
        good(channel="shop", mail="a@b.at"), good(mail="nobody"), good(count=1.5), good(extra={"x": 1}), good(anything=[1]),
    ]  # fmt: skip
    kept, rejects = judged(*rows)
    assert kept == [0, 6, 9, 10]
    codes = {row: code for row, code, _ in rejects}
    assert codes == dict.fromkeys((1, 2, 3, 4, 5, 7), "json-schema") | {8: "undecodable"}
    reasons = {row: reason for row, _, reason in rejects}
    assert "card" in reasons[1]
    assert "items/1" in reasons[3]


def test_a_file_beside_the_definitions(tmp_path: Path) -> None:
    (tmp_path / "paid.json").write_text(json.dumps(SCHEMA))
    source = "import headrace as hr\npaid = hr.Event.from_json_schema('paid', 'paid.json', time='at')\n"
    scope: dict[str, Any] = {}
    exec(compile(source, str(tmp_path / "features.py"), "exec"), scope)
    assert scope["paid"].json_schema == SCHEMA


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        ({"type": "array"}, {}), ("nowhere.json", {}), ({"properties": {"at": {"type": "object"}}}, {}),
        (SCHEMA, {"fields": {"nobody": hr.string()}}),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_an_event(schema: Any, options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        event(schema, **options)


def test_a_schema_that_is_none_is_said_when_it_is_used() -> None:
    broken = {"properties": {"at": SCHEMA["properties"]["at"]}, "required": ["at"], "maxProperties": "many"}
    with pytest.raises(CodecError, match="JSON Schema cannot be used"):
        EventCodec(event(broken))


def test_a_schema_in_another_place_is_never_fetched() -> None:
    remote = {
        "properties": {"at": SCHEMA["properties"]["at"], "x": {"$ref": "http://127.0.0.1:9/x.json"}},
        "required": ["at"],
    }
    with pytest.raises(CodecError, match="JSON Schema cannot be used"):
        EventCodec(event(remote))


def test_fields_and_schemas_say_the_same_to_each_other() -> None:
    fields = {
        "a": hr.string(one_of=["x", "y"], nullable=True), "b": hr.int64(ge=1, le=9), "c": hr.float64(nullable=True),
        "d": hr.boolean(), "at": hr.timestamp(),
    }  # fmt: skip
    schema = json_schema.object_schema("paid", fields)
    again = json_schema.fields_of(schema, {})
    assert {n: f.canonical() for n, f in again.items()} == {n: f.canonical() for n, f in fields.items()}
    declared = hr.Event("paid", fields, time="at", format="json")
    assert json.loads(schema_of(declared).text) == schema
