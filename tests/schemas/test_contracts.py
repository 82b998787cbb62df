"""The contract of an event: vectorised, and equal to the slow row-by-row reading of the same rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace_schemas.batches import Reject
from headrace_schemas.contracts import Contract
from headrace_schemas.tables import frame_fields

ARRIVAL_US = 1_700_000_000_000_000
EVENT = hr.Event(
    "paid",
    fields={
        "id": hr.string(),
        "card": hr.string(nullable=True),
        "shop": hr.int64(nullable=True),
        "at": hr.timestamp(),
        "settled": hr.timestamp(nullable=True),
        "amount": hr.float64(ge=0, quantum="0.01"),
        "tip": hr.float64(nullable=True, le=100.0),
        "n": hr.int64(),
        "units": hr.int64(),
        "kind": hr.string(one_of=["chip", "web"]),
        "level": hr.int64(one_of=[1, 2, 3]),
    },
    time="at",
    id="id",
    future_tolerance="5m",
)
SPENDING = hr.FeatureView(
    "spending",
    entity=hr.Entity("card_at_shop", keys={"card": hr.string(), "shop": hr.int64()}),
    event=EVENT,
    features={
        "total": hr.sum("amount").over("1h"),
        "units": hr.mean("units").over("1h"),
        "spread": hr.var("tip").over("1h"),
        "largest": hr.max("amount").over("1h"),
    },
)
GOOD: dict[str, Any] = {
    "id": "a",
    "card": "c",
    "shop": 7,
    "at": ARRIVAL_US,
    "settled": None,
    "amount": 1.5,
    "tip": None,
    "n": 2**63 - 1,
    "units": -5,
    "kind": "chip",
    "level": 3,
}
LARGE = 1100  # rows that are not looked at as a whole
CONTRACT = Contract(EVENT, [SPENDING])


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=frame_fields(EVENT))


def check(contract: Contract, *rows: dict[str, Any]) -> tuple[list[bool], list[Reject]]:
    height = len(rows)
    keeps, rejects = contract.check(frame(*rows), np.arange(height) * 10, np.full(height, ARRIVAL_US))
    return keeps.tolist(), rejects


def test_good_rows_pass() -> None:
    assert check(CONTRACT, GOOD, GOOD) == ([True, True], [])


def test_no_row_is_no_break() -> None:
    assert check(CONTRACT) == ([], [])


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"amount": None}, "null", "field 'amount': required a finite number of at least 0, got null"),
        ({"amount": math.nan}, "not-finite", "field 'amount': required a finite number of at least 0, got NaN"),
        ({"amount": -math.inf}, "not-finite", "field 'amount': required a finite number of at least 0, got -inf"),
        ({"amount": -0.01}, "range", "field 'amount': required a finite number of at least 0, got -0.01"),
        ({"tip": 100.5}, "range", "field 'tip': required a finite number of at most 100.0, or null, got 100.5"),
        ({"tip": math.inf}, "not-finite", "field 'tip': required a finite number of at most 100.0, or null, got inf"),
        ({"kind": "Web"}, "choice", "field 'kind': required one of 'chip', 'web', got Web"),
        ({"level": 4}, "choice", "field 'level': required one of 1, 2, 3, got 4"),
        (
            {"units": 2**53},
            "range",
            "field 'units': required a number smaller than 9007199254740992 in magnitude, because it is aggregated exactly (view 'spending'), got 9007199254740992",
        ),
        (
            {"shop": -(2**63)},
            "range",
            (
                "field 'shop': required an integer from -9007199254740991 to 9007199254740991, because it may be null and has "
                "to fit a float, got -9223372036854775808"
            ),
        ),
        (
            {"amount": 5e16},
            "range",
            "field 'amount': required a number smaller than 4.611686018427388e+16 in magnitude, because it is aggregated exactly (view 'spending'), got 5e+16",
        ),
        (
            {"tip": -1.5e8},
            "range",
            "field 'tip': required a number smaller than 140737488.355328 in magnitude, because it is aggregated exactly (view 'spending'), got -150000000.0",
        ),
        (
            {"settled": 2**53},
            "range",
            (
                "field 'settled': required microseconds since 1970, between the years 1685 and 2255, because it may be null, "
                "got 9007199254740992"
            ),
        ),
        (
            {"at": -(2**60)},
            "range",
            "field 'at': required microseconds since 1970, between the years 1 and 9999, got -1152921504606846976",
        ),
        ({"card": None}, "key", "field 'card': required an entity key of view 'spending' that is not null, got null"),
        ({"shop": None}, "key", "field 'shop': required an entity key of view 'spending' that is not null, got null"),
        (
            {"card": "x" * 1013},
            "key",
            "field 'card': required an entity key of view 'spending' of at most 1024 bytes, got 1025 bytes",
        ),
        (
            {"id": "é" * 513},
            "key",
            "field 'id': required the id of event 'paid' of at most 1024 bytes, got 1026 bytes",
        ),
        (
            {"at": ARRIVAL_US + 301_000_000},
            "future",
            "field 'at': required a time at most 300 s after the record's arrival, got 301.0 s after it",
        ),
    ],
)
def test_a_broken_rule_is_told_with_field_requirement_and_value(change: dict[str, Any], code: str, reason: str) -> None:
    keeps, rejects = check(CONTRACT, GOOD, GOOD | change, GOOD)
    assert keeps == [True, False, True]
    assert rejects == [Reject(row=10, reason=reason, code=code)]


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0.0},
        {"amount": -0.0},
        {"amount": 4.6e16},
        {"tip": 100.0},
        {"tip": -1.4e8},
        {"units": 2**53 - 1},
        {"n": -(2**63)},
        {"card": "x" * 1012},
        {"card": ""},
        {"id": "x" * 1024},
        {"at": ARRIVAL_US + 300_000_999},
        {"at": -62_135_596_800_000_000},
    ],
)
def test_the_edge_of_a_rule_is_kept(change: dict[str, Any]) -> None:
    assert check(CONTRACT, GOOD | change) == ([True], [])


def test_without_a_view_its_rules_do_not_hold() -> None:
    free = Contract(EVENT)
    assert check(free, GOOD | {"card": None, "shop": None, "units": 2**60, "amount": 1e300}) == ([True], [])


def test_another_events_view_adds_nothing() -> None:
    other = hr.Event("other", fields=dict(EVENT.fields), time="at")
    assert check(Contract(other, [SPENDING]), GOOD | {"card": None}) == ([True], [])


def test_switching_the_tolerance_off_lets_the_future_in() -> None:
    timeless = hr.Event("paid", fields=dict(EVENT.fields), time="at", future_tolerance=None)
    assert check(Contract(timeless), GOOD | {"at": ARRIVAL_US * 2}) == ([True], [])


def test_the_first_broken_rule_is_the_one_that_is_told() -> None:
    _, rejects = check(CONTRACT, GOOD | {"kind": "x", "amount": math.nan, "card": None})
    assert [reject.code for reject in rejects] == ["not-finite"]


def test_a_long_value_is_cut_in_the_reason() -> None:
    _, (reject,) = check(CONTRACT, GOOD | {"kind": "x" * 10_000})
    assert len(reject.reason) < 200


def keeps_contract(row: dict[str, Any]) -> bool:
    """The same rules, in plain Python, value by value."""

    def whole(value: int | None) -> bool:
        return value is None or abs(value) < 2**53

    def size(text: str) -> int:
        return len(text.encode())

    return (
        row["card"] is not None
        and row["shop"] is not None
        and size(row["card"]) + 2 + 2 + 8 <= 1024
        and size(row["id"]) <= 1024
        and whole(row["shop"])
        and whole(row["units"])
        and whole(row["settled"])
        and math.isfinite(row["amount"])
        and 0 <= row["amount"] < 2**62 / 100
        and (row["tip"] is None or (math.isfinite(row["tip"]) and -(2**47) / 10**6 < row["tip"] <= 100))
        and row["kind"] in ("chip", "web")
        and row["level"] in (1, 2, 3)
        and -62_135_596_800_000_000 <= row["at"] <= ARRIVAL_US + 300_000_999
    )


WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.sampled_from([2**53, 2**53 - 1, -(2**53), 1 - 2**53])
NUMBER = st.floats() | st.floats(0, 100)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["a", "é" * 512, "é" * 513]),
    "card": st.none() | st.sampled_from(["c", "x" * 1012, "x" * 1013]),
    "shop": st.none() | WHOLE,
    "at": st.integers(ARRIVAL_US, ARRIVAL_US + 301_000_000) | WHOLE,
    "settled": st.none() | WHOLE,
    "amount": NUMBER,
    "tip": st.none() | NUMBER,
    "n": WHOLE,
    "units": WHOLE,
    "kind": st.sampled_from(["chip", "web", "x"]),
    "level": st.integers(0, 4),
}
ROWS = st.fixed_dictionaries(FIELDS)
NEARLY_GOOD = st.fixed_dictionaries({}, optional=FIELDS).map(lambda change: {**GOOD, **dict(list(change.items())[:2])})


@settings(max_examples=300)
@given(st.lists(ROWS | NEARLY_GOOD, max_size=6))
def test_the_vectorised_contract_equals_the_plain_one(rows: list[dict[str, Any]]) -> None:
    keeps, rejects = check(CONTRACT, *rows)
    assert keeps == [keeps_contract(row) for row in rows]
    assert [reject.row for reject in rejects] == [10 * i for i, kept in enumerate(keeps) if not kept]


@settings(max_examples=100)
@given(st.lists(NEARLY_GOOD, max_size=3))
def test_a_large_batch_is_judged_row_by_row_as_a_small_one_is_as_a_whole(rows: list[dict[str, Any]]) -> None:
    keeps, rejects = check(CONTRACT, *rows)
    large_keeps, large_rejects = check(CONTRACT, *rows, *[GOOD] * LARGE)
    assert large_keeps == keeps + [True] * LARGE
    assert large_rejects == rejects
