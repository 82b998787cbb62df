"""Requests against the contract: what is refused names the field, what it must be and what came."""

from __future__ import annotations

import datetime
import time
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.assembly import request_columns
from headrace.requests import RequestReader, dtype_of, request_reader
from tests.headrace.declared import departures, model

NOW = 1_380_000_000_000_000
EVENT = hr.Event(
    "paid",
    fields={
        "id": hr.int64(),
        "at": hr.timestamp(),
        "card": hr.string(),
        "kind": hr.string(one_of=["buy", "refund"], nullable=True),
        "amount": hr.float64(ge=0, le=1000),
        "items": hr.int64(nullable=True, ge=1),
        "online": hr.boolean(nullable=True),
        "limit": hr.float64(nullable=True),
        "opened": hr.timestamp(nullable=True),
    },
    time="at",
    id="id",
)
GOOD: dict[str, Any] = {"id": 7, "card": "c1", "amount": 12.5}


def columns(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in request_columns(EVENT, rows, at_us=NOW).items()}


def test_row_becomes_columns_of_the_declared_types() -> None:
    row = {**GOOD, "at": NOW - 5, "kind": "buy", "items": 2, "online": True, "limit": 3, "opened": NOW}
    found = request_columns(EVENT, [row])
    assert {name: column.dtype for name, column in found.items()} == {
        name: dtype_of(field) for name, field in EVENT.fields.items()
    }
    assert {name: column.tolist() for name, column in found.items()} == {name: [value] for name, value in row.items()}


def test_absent_and_null_are_the_same_null() -> None:
    nulls = dict.fromkeys(["kind", "items", "online", "limit", "opened"])
    absent, null = columns(GOOD), columns({**GOOD, **nulls})
    assert repr(absent) == repr(null)
    assert absent["kind"] == [None]
    assert np.isnan(absent["items"][0])


def test_row_without_a_time_happens_now() -> None:
    assert columns(GOOD, {**GOOD, "at": None}, {**GOOD, "at": 5})["at"] == [NOW, NOW, 5]


@pytest.mark.parametrize(
    "moment",
    [
        "2013-09-24T05:20:00+00:00",
        "2013-09-24T05:20:00Z",
        "2013-09-24T01:20:00-04:00",
        datetime.datetime(2013, 9, 24, 5, 20, tzinfo=datetime.UTC),
        NOW,
    ],
)
def test_moment_is_understood_in_each_of_its_spellings(moment: object) -> None:
    assert columns({**GOOD, "at": moment})["at"] == [NOW]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"card": None}, "field 'card': required a string, got null"),
    ({"card": 3}, "field 'card': required a string, got 3"),
    ({"card": "\ud800"}, "field 'card': required a string, got '\\ud800'"),
    ({"kind": "steal"}, "field 'kind': required one of 'buy', 'refund', or null, got 'steal'"),
    ({"amount": "12"}, "field 'amount': required a finite number of at least 0 and at most 1000, got '12'"),
    ({"amount": True}, "field 'amount': required a finite number of at least 0 and at most 1000, got True"),
    ({"amount": float("nan")}, "field 'amount': required a finite number of at least 0 and at most 1000, got nan"),
    ({"limit": float("inf")}, "field 'limit': required a finite number, or null, got inf"),
    ({"limit": 10**400}, f"field 'limit': required a finite number, or null, got {'1' + '0' * 59}…"),
    ({"amount": -0.5}, "field 'amount': required a finite number of at least 0 and at most 1000, got -0.5"),
    ({"items": 0}, "field 'items': required an integer of at least 1, or null, got 0"),
    ({"items": 1.0}, "field 'items': required an integer of at least 1, or null, got 1.0"),
    ({"items": 2**53}, "field 'items': required an integer of at least 1, or null, got 9007199254740992"),
    ({"id": 2**63}, "field 'id': required an integer, got 9223372036854775808"),
    ({"online": 1}, "field 'online': required true or false, or null, got 1"),
    (
        {"at": "yesterday"},
        "field 'at': required a time (ISO 8601 with a zone, or microseconds since 1970), got 'yesterday'",
    ),
    (
        {"at": "2013-09-24T05:20:00"},
        "field 'at': required a time (ISO 8601 with a zone, or microseconds since 1970), got '2013-09-24T05:20:00'",
    ),
    ({"at": 1.5}, "field 'at': required a time (ISO 8601 with a zone, or microseconds since 1970), got 1.5"),
    (
        {"amuont": 3.0},
        (
            "field 'amuont': required a field of event 'paid'; did you mean 'amount'? known: id, at, card, kind, amount, items, "
            "online, limit, opened, got an unknown field"
        ),
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[str(change)[:40] for change, _ in REFUSED])
def test_what_breaks_the_contract_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(hr.ContractError) as caught:
        columns({**GOOD, **change})
    assert str(caught.value) == message


def test_text_of_any_language_is_accepted() -> None:
    assert columns({**GOOD, "card": "Zürich 東京"})["card"] == ["Zürich 東京"]


def test_missing_field_is_named() -> None:
    with pytest.raises(hr.ContractError) as caught:
        columns({"id": 1, "amount": 2.0})
    assert str(caught.value) == "field 'card': required a string, got no value"


def test_one_of_several_rows_is_named_by_its_number() -> None:
    with pytest.raises(hr.ContractError) as caught:
        columns(GOOD, {**GOOD, "amount": -1.0})
    assert (caught.value.row, caught.value.field, caught.value.got) == (1, "amount", "-1.0")
    assert str(caught.value).startswith("row 1, field 'amount': ")


def test_row_that_is_no_object_is_refused() -> None:
    with pytest.raises(hr.ContractError, match=r"field '\(row\)': required an object of request fields, got 3"):
        request_columns(EVENT, [3], at_us=NOW)  # type: ignore[list-item]


def test_no_time_and_no_clock_is_refused() -> None:
    with pytest.raises(hr.ContractError, match="field 'at': required a time .*, got no value"):
        request_columns(EVENT, [GOOD])


def test_no_rows_are_columns_without_rows() -> None:
    assert {len(column) for column in request_columns(EVENT, [], at_us=NOW).values()} == {0}


def test_model_asks_for_its_own_fields_and_checks_the_others_of_its_event() -> None:
    fields = model().request_fields
    row = {"origin": "JFK", "distance": 100, "charter": True}
    found = request_columns(departures(), [row], fields, at_us=NOW)
    assert list(found) == [item.name for item in fields]
    with pytest.raises(hr.ContractError, match="field 'charter': required true or false, or null, got 'no'"):
        request_columns(departures(), [{**row, "charter": "no"}], fields, at_us=NOW)


def test_records_keep_what_came_checked_and_the_time() -> None:
    reader = request_reader(EVENT)
    assert reader.records([{**GOOD, "kind": None, "opened": "1970-01-01T00:00:01Z"}], NOW) == [
        {**GOOD, "opened": 1_000_000, "at": NOW}
    ]


def test_optional_integer_id_keeps_all_its_digits() -> None:
    event = hr.Event("paid", fields={"id": hr.int64(), "at": hr.timestamp(), "x": hr.float64()}, time="at", id="id")
    optional = hr.RequestField("id", hr.int64(nullable=True), required=False)
    reader = RequestReader(event, [optional])
    assert reader.columns(reader.records([{"id": 2**62 + 1}, {}], NOW))["id"].tolist() == [2**62 + 1, None]


def test_one_row_is_read_in_microseconds() -> None:
    reader = request_reader(EVENT)
    best = min(_timed(lambda: reader.columns(reader.records([GOOD], NOW))) for _ in range(200))
    assert best < 200e-6


def _timed(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
