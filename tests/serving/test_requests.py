"""Rows are checked against the declared fields and become columns; whatever is amiss is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.fields as f
from headrace_serving.problems import InvalidRequest
from headrace_serving.requests import RequestSchema, microseconds

NOW = 1_388_404_800_000_000

FIELDS = {
    "origin": f.string(one_of=["EWR", "JFK", "LGA"]),
    "carrier": f.string(),
    "distance": f.int64(ge=0, le=5000),
    "delay": f.float64(nullable=True, ge=-100.0),
    "international": f.boolean(),
    "seats": f.int64(nullable=True),
    "departed_at": f.timestamp(),
}
SCHEMA = RequestSchema(FIELDS, frozenset(FIELDS) - {"departed_at", "delay", "seats"}, "departed_at")
GOOD: dict[str, Any] = {
    "origin": "JFK",
    "carrier": "AA",
    "distance": 300,
    "delay": 1.5,
    "international": False,
    "seats": 180,
    "departed_at": "2013-12-30T12:00:00Z",
}


def refusal(row: object, *, single: bool = True, schema: RequestSchema = SCHEMA) -> str:
    with pytest.raises(InvalidRequest) as caught:
        schema.validate([row], NOW, single=single)
    return str(caught.value)


def test_columns_follow_the_core_convention() -> None:
    second = {**GOOD, "delay": None, "seats": None, "departed_at": NOW + 1}
    rows = SCHEMA.validate([GOOD, second], NOW)
    assert rows.columns["origin"].dtype == object
    assert rows.columns["distance"].dtype == np.int64
    assert rows.columns["international"].dtype == np.bool_
    assert rows.columns["delay"].dtype == np.float64
    assert rows.columns["delay"][0] == 1.5
    assert math.isnan(rows.columns["delay"][1])
    assert rows.columns["seats"].dtype == np.float64
    assert math.isnan(rows.columns["seats"][1])
    assert rows.at_us.tolist() == [NOW, NOW + 1]
    assert rows.values["departed_at"] == [NOW, NOW + 1]


def test_a_row_without_its_time_gets_the_clock() -> None:
    row = {name: value for name, value in GOOD.items() if name != "departed_at"}
    rows = SCHEMA.validate([row, GOOD | {"departed_at": None}], NOW + 7)
    assert rows.at_us.tolist() == [NOW + 7, NOW + 7]
    assert rows.columns["departed_at"].tolist() == [NOW + 7, NOW + 7]


def test_rows_of_events_without_a_time_field_are_read_at_the_clock() -> None:
    schema = RequestSchema({"airport": f.string()}, frozenset({"airport"}), None)
    assert schema.validate([{"airport": "JFK"}], NOW).at_us.tolist() == [NOW]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": "BOS"}, "field 'origin': required one of 'EWR', 'JFK', 'LGA', got 'BOS'"),
        ({"origin": 3}, "field 'origin': required one of 'EWR', 'JFK', 'LGA', got 3"),
        ({"origin": None}, "field 'origin': required one of 'EWR', 'JFK', 'LGA', got null"),
        ({"carrier": 1.5}, "field 'carrier': required a string, got 1.5"),
        ({"carrier": ["AA"]}, "field 'carrier': required a string, got an array"),
        ({"carrier": {}}, "field 'carrier': required a string, got an object"),
        ({"distance": "300"}, "field 'distance': required an integer of at least 0 and at most 5000, got '300'"),
        ({"distance": 300.0}, "field 'distance': required an integer of at least 0 and at most 5000, got 300.0"),
        ({"distance": True}, "field 'distance': required an integer of at least 0 and at most 5000, got true"),
        ({"distance": -1}, "field 'distance': required an integer of at least 0 and at most 5000, got -1"),
        ({"distance": 5001}, "field 'distance': required an integer of at least 0 and at most 5000, got 5001"),
        ({"delay": math.inf}, "field 'delay': required a finite number of at least -100.0, or null, got inf"),
        ({"delay": math.nan}, "field 'delay': required a finite number of at least -100.0, or null, got nan"),
        ({"delay": -101}, "field 'delay': required a finite number of at least -100.0, or null, got -101"),
        ({"delay": False}, "field 'delay': required a finite number of at least -100.0, or null, got false"),
        ({"international": 0}, "field 'international': required true or false, got 0"),
        ({"seats": 2**63}, "field 'seats': required an integer, or null, got 9223372036854775808"),
        (
            {"departed_at": "2013-12-30T12:00:00"},
            (
                "field 'departed_at': required a time (ISO 8601 with a zone, or microseconds since 1970), "
                "got '2013-12-30T12:00:00'"
            ),
        ),
        (
            {"departed_at": "yesterday"},
            "field 'departed_at': required a time (ISO 8601 with a zone, or microseconds since 1970), got 'yesterday'",
        ),
        (
            {"departed_at": 2**62},
            (
                "field 'departed_at': required a time (ISO 8601 with a zone, or microseconds since 1970), "
                "got 4611686018427387904"
            ),
        ),
        (
            {"orgin": "JFK"},
            (
                "field 'orgin': required a declared field, got an unknown one; did you mean 'origin'? known: origin, "
                "carrier, distance, delay, international, seats, departed_at"
            ),
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_required(change: dict[str, Any], message: str) -> None:
    assert refusal({**GOOD, **change}) == message


def test_a_missing_field_is_named_with_what_was_required() -> None:
    row = {name: value for name, value in GOOD.items() if name != "distance"}
    assert refusal(row) == (
        "field 'distance': required an integer of at least 0 and at most 5000, got nothing: the field is missing"
    )


def test_a_row_that_is_no_object_is_named() -> None:
    assert refusal(5, single=False) == "row 0, field 'rows': required an object of fields, got a number"


def test_every_problem_of_a_batch_is_told_at_once_and_the_list_is_bounded() -> None:
    bad = {**GOOD, "distance": -1, "carrier": None}
    with pytest.raises(InvalidRequest) as caught:
        SCHEMA.validate([GOOD, bad, bad, *[bad] * 20], NOW)
    error = caught.value
    assert str(error) == "row 1, field 'carrier': required a string, got null (and 43 more)"
    assert [(each.row, each.field) for each in error.problems[:3]] == [(1, "carrier"), (1, "distance"), (2, "carrier")]
    assert len(error.problems) == InvalidRequest.SHOWN
    assert error.total == 44


def test_long_values_are_cut_in_messages() -> None:
    assert len(refusal({**GOOD, "origin": "x" * 10_000})) < 200


@given(st.datetimes(timezones=st.timezones()))
def test_times_as_text_are_exact_to_the_microsecond(moment: Any) -> None:
    text = moment.isoformat()
    rows = SCHEMA.validate([{**GOOD, "departed_at": text}], NOW)
    assert rows.at_us[0] == microseconds(text)


json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.sampled_from(["", "JFK", "2013-12-30T12:00:00Z", "é"]),
    st.lists(st.none(), max_size=1),
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), json_values), st.booleans())
def test_a_row_is_either_converted_whole_or_refused_with_a_reason(change: dict[str, Any], single: bool) -> None:
    blamed: set[str] = set()
    rows = None
    try:
        rows = SCHEMA.validate([{**GOOD, **change}], NOW, single=single)
    except InvalidRequest as error:
        blamed = {each.field for each in error.problems}
    assert blamed <= change.keys()
    assert (rows is None) == bool(blamed)
    assert rows is None or all(rows.columns[name].shape == (1,) for name in FIELDS)
    assert rows is None or "other" not in change
