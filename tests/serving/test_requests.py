"""Rows are checked by the core's reader; here: every bad row is told, times stay in the calendar, clocks are the caller's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import ContractError
from headrace_serving.problems import InvalidRequest
from headrace_serving.requests import LAST_US, RequestSchema

NOW = 1_388_404_800_000_000

departures = hr.Event(
    "departures",
    time="departed_at",
    id="flight_id",
    fields={
        "flight_id": hr.string(),
        "departed_at": hr.timestamp(),
        "origin": hr.string(one_of=("EWR", "JFK")),
        "carrier": hr.string(),
        "distance": hr.int64(ge=0, le=5000),
        "delay": hr.float64(nullable=True, ge=-100.0),
        "international": hr.boolean(),
        "gate": hr.string(),
    },
)
arrivals = hr.Event(
    "arrivals",
    time="arrived_at",
    fields={"flight_id": hr.string(), "arrived_at": hr.timestamp(), "delay": hr.float64()},
)
origins = hr.FeatureView(
    "origins",
    entity=hr.Entity("airport", keys={"airport": hr.string()}),
    event=departures,
    keys={"airport": "origin"},
    features={"n": hr.count().over("1h")},
)
late = hr.Label(
    "late",
    event=arrivals,
    join={"flight_id": "flight_id"},
    value=hr.col("delay") > 30,
    horizon="24h",
    missing="drop",
)
model = hr.Model(
    "delay",
    request=departures,
    features=[origins, *(departures[name] for name in ("carrier", "distance", "delay", "international"))],
    label=late,
    estimator=lambda: None,
    task="binary",
)
SCHEMA = RequestSchema(model)
GOOD: dict[str, Any] = {
    "origin": "JFK",
    "carrier": "AA",
    "distance": 300,
    "delay": 1.5,
    "international": False,
    "departed_at": "2013-12-30T12:00:00Z",
}


def refusal(row: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        SCHEMA.read([row], NOW)
    return str(caught.value)


def test_rows_become_columns_by_the_core_convention() -> None:
    rows = SCHEMA.read([GOOD, {**GOOD, "delay": None, "departed_at": NOW + 1}], NOW)
    assert rows.count == 2
    assert rows.columns["carrier"].dtype == object
    assert rows.columns["distance"].dtype == np.int64
    assert rows.columns["international"].dtype == np.bool_
    assert rows.columns["delay"][0] == 1.5
    assert math.isnan(rows.columns["delay"][1])
    assert rows.at_us.tolist() == [NOW, NOW + 1]


def test_a_row_without_its_time_gets_the_clock_it_was_passed() -> None:
    row = {name: value for name, value in GOOD.items() if name != "departed_at"}
    assert SCHEMA.read([row, {**row, "departed_at": None}], NOW + 7).at_us.tolist() == [NOW + 7, NOW + 7]


def test_the_rest_of_the_event_may_come_along_and_an_id_is_kept_for_the_log() -> None:
    rows = SCHEMA.read([{**GOOD, "gate": "B22", "flight_id": "AA1"}], NOW)
    assert rows.records[0]["flight_id"] == "AA1"
    assert "gate" not in rows.columns


@pytest.mark.parametrize(
    ("change", "field", "required", "got"),
    [
        ({"origin": "BOS"}, "origin", "one of 'EWR', 'JFK'", "'BOS'"),
        ({"origin": None}, "origin", "one of 'EWR', 'JFK'", "null"),
        ({"carrier": 1.5}, "carrier", "a string", "1.5"),
        ({"carrier": ["AA"]}, "carrier", "a string", "['AA']"),
        ({"distance": "300"}, "distance", "an integer of at least 0 and at most 5000", "'300'"),
        ({"distance": 300.0}, "distance", "an integer of at least 0 and at most 5000", "300.0"),
        ({"distance": True}, "distance", "an integer of at least 0 and at most 5000", "True"),
        ({"distance": -1}, "distance", "an integer of at least 0 and at most 5000", "-1"),
        ({"delay": math.inf}, "delay", "a finite number of at least -100.0, or null", "inf"),
        ({"delay": math.nan}, "delay", "a finite number of at least -100.0, or null", "nan"),
        ({"international": 0}, "international", "true or false", "0"),
        (
            {"departed_at": "2013-12-30T12:00:00"},
            "departed_at",
            "a time (ISO 8601 with a zone, or microseconds since 1970)",
            "'2013-12-30T12:00:00'",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_required(
    change: dict[str, Any], field: str, required: str, got: str
) -> None:
    assert refusal({**GOOD, **change}) == f"field {field!r}: required {required}, got {got}"


def test_a_missing_field_is_named() -> None:
    row = {name: value for name, value in GOOD.items() if name != "distance"}
    assert refusal(row) == "field 'distance': required an integer of at least 0 and at most 5000, got no value"


def test_an_unknown_field_is_named_with_a_suggestion() -> None:
    assert "field 'orgin': required a field of event 'departures'; did you mean 'origin'?" in refusal(
        {**GOOD, "orgin": "JFK"}
    )


def test_a_time_outside_the_calendar_is_refused() -> None:
    SCHEMA.read([{**GOOD, "departed_at": LAST_US}], NOW)
    with pytest.raises(ContractError, match="'departed_at': required a time of the years 1 to 9999, got 4611686018427"):
        SCHEMA.read([{**GOOD, "departed_at": 2**62}], NOW)


def test_every_bad_row_of_a_batch_is_told_and_the_list_is_bounded() -> None:
    bad = {**GOOD, "distance": -1}
    with pytest.raises(InvalidRequest) as caught:
        SCHEMA.read([GOOD, bad, 5, *[bad] * 20], NOW)
    error = caught.value
    assert str(error) == (
        "row 1, field 'distance': required an integer of at least 0 and at most 5000, got -1 (and 21 more)"
    )
    assert [(each.row, each.field) for each in error.problems[:3]] == [(1, "distance"), (2, "(row)"), (3, "distance")]
    assert len(error.problems) == InvalidRequest.SHOWN
    assert error.total == 22


def test_long_values_are_cut_in_messages() -> None:
    assert len(refusal({**GOOD, "origin": "x" * 10_000})) < 200
