from __future__ import annotations

import pickle
from datetime import timedelta

import pytest

import headrace as hr
from tests.headrace.declared import airport, departures


def test_schema_is_generated_with_nulls_and_microseconds() -> None:
    event = hr.Event(
        "paid",
        fields={
            "card": hr.string(description="a token"),
            "at": hr.timestamp(),
            "amount": hr.float64(nullable=True),
            "items": hr.int64(),
            "online": hr.boolean(nullable=True),
        },
        time="at",
        description="a payment",
    )
    assert event.avro_schema == {
        "type": "record",
        "name": "paid",
        "doc": "a payment",
        "fields": [
            {"name": "card", "type": "string", "doc": "a token"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "amount", "type": ["null", "double"], "default": None},
            {"name": "items", "type": "long"},
            {"name": "online", "type": ["null", "boolean"], "default": None},
        ],
    }


def test_topic_defaults_to_the_name_and_tolerance_to_five_minutes() -> None:
    event = hr.Event("paid", fields={"at": hr.timestamp()}, time="at")
    assert (event.topic, event.future_tolerance_us) == ("paid", 300_000_000)


@pytest.mark.parametrize(("given", "expected"), [(None, None), ("2s", 2_000_000), (timedelta(hours=1), 3_600_000_000)])
def test_tolerance_is_a_duration_or_off(given: str | timedelta | None, expected: int | None) -> None:
    event = hr.Event("paid", fields={"at": hr.timestamp()}, time="at", future_tolerance=given)
    assert event.future_tolerance_us == expected


SCHEMA = {
    "type": "record",
    "name": "Paid",
    "namespace": "shop",
    "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "card", "type": {"type": "string"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["buy", "refund"]}},
        {"name": "amount", "type": ["null", "float"], "default": None, "doc": "in euro"},
        {"name": "items", "type": "int"},
        {"name": "note", "type": ["string", "null"]},
    ],
}


def test_avsc_is_kept_as_it_is_and_read_as_fields() -> None:
    event = hr.Event.from_avsc("paid", SCHEMA, time="at", id="card")
    assert event.avro_schema == SCHEMA
    assert dict(event.fields) == {
        "at": hr.timestamp(),
        "card": hr.string(),
        "kind": hr.string(one_of=["buy", "refund"]),
        "amount": hr.float64(nullable=True, description="in euro"),
        "items": hr.int64(),
        "note": hr.string(nullable=True),
    }


def test_avsc_is_refined_by_declared_bounds() -> None:
    event = hr.Event.from_avsc("paid", SCHEMA, time="at", fields={"items": hr.int64(ge=1)})
    assert event.fields["items"].ge == 1
    assert event.avro_schema == SCHEMA


def test_generated_schema_read_back_gives_the_same_fields() -> None:
    event = departures()
    again = hr.Event.from_avsc("departures", event.avro_schema, time="departed_at", fields={"distance": hr.int64(ge=0)})
    assert dict(again.fields) == dict(event.fields)


def test_definition_cannot_change() -> None:
    event = departures()
    with pytest.raises(AttributeError):
        event.topic = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.fields["x"] = hr.string()  # type: ignore[index]


def test_equal_meaning_is_equal_wherever_it_is_declared() -> None:
    assert departures() == departures(description="of planes")
    assert hash(departures()) == hash(departures())
    assert departures() != departures(topic="other")
    assert departures() != airport()
    assert airport() != hr.Entity("airport", keys={"airport": hr.int64()})


def test_definition_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(departures())) == departures()


def test_unknown_field_is_not_found_with_a_suggestion() -> None:
    with pytest.raises(
        hr.NotFound, match=r"there is no field of event 'departures' named 'orign'; did you mean 'origin'\?"
    ):
        departures()["orign"]


def test_reference_names_its_field() -> None:
    ref = departures()["distance"]
    assert (ref.event.name, ref.name, ref.field) == ("departures", "distance", hr.int64(ge=0))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (hr.string(), "a string"),
        (hr.string(one_of=["a", "b"], nullable=True), "one of 'a', 'b', or null"),
        (hr.int64(le=3), "an integer of at most 3"),
        (hr.float64(ge=0, le=1), "a finite number of at least 0 and at most 1"),
        (hr.boolean(), "true or false"),
        (hr.timestamp(), "a time (ISO 8601 with a zone, or microseconds since 1970)"),
    ],
)
def test_field_says_what_it_expects(field: hr.Field, expected: str) -> None:
    assert field.expected == expected


def test_quantum_is_one_decimal_whatever_its_spelling() -> None:
    assert hr.float64(quantum="0.010") == hr.float64(quantum="1e-2")
    assert hr.float64().quantum == "0.000001"
    assert hr.int64().quantum == "1"
    assert hr.string().quantum is None
