"""Filters and label values: SQL's nulls, one evaluator, compared with a slow one row by row."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.expressions import Expression

COLUMNS: dict[str, Any] = {
    "delay": np.array([20.0, 3.0, np.nan, -5.0]),
    "limit": np.array([10, 10, 10, 10], dtype=np.int64),
    "origin": np.array(["JFK", "LGA", "JFK", None], dtype=object),
    "charter": np.array([True, False, False, True]),
    "maybe": np.array([1.0, 0.0, np.nan, np.nan]),
}
KEPT = [
    (hr.col("delay") > 15, [True, False, False, False]),
    (hr.col("delay") != 3, [True, False, False, True]),
    (~(hr.col("delay") > 15), [False, True, False, True]),
    (hr.col("delay").is_null(), [False, False, True, False]),
    (hr.col("delay").is_not_null(), [True, True, False, True]),
    (hr.col("origin") == "JFK", [True, False, True, False]),
    (hr.col("origin") != "JFK", [False, True, False, False]),
    (hr.col("origin").is_in(["JFK", "EWR"]), [True, False, True, False]),
    (~hr.col("origin").is_in(["JFK", "EWR"]), [False, True, False, False]),
    (hr.col("limit").is_in([10, 11]), [True, True, True, True]),
    (hr.col("charter"), [True, False, False, True]),
    (~hr.col("charter"), [False, True, True, False]),
    (hr.col("charter") == True, [True, False, False, True]),  # noqa: E712
    (hr.col("maybe"), [True, False, False, False]),
    (~hr.col("maybe"), [False, True, False, False]),
    ((hr.col("delay") > 15) & hr.col("charter"), [True, False, False, False]),
    ((hr.col("delay") > 15) | hr.col("charter"), [True, False, False, True]),
    # Unknown and false is false, so its negation is true.
    (~((hr.col("delay") > 15) & hr.col("charter")), [False, True, True, True]),
    # Unknown or true is true.
    ((hr.col("maybe") == 1) | hr.col("charter"), [True, False, False, True]),
    (hr.col("delay") - hr.col("limit") > 5, [True, False, False, False]),
    (1 / (hr.col("delay") - 3) > -100, [True, False, False, True]),
    ((1 / (hr.col("delay") - 3)).is_null(), [False, True, True, False]),
    (-hr.col("delay") == 5, [False, False, False, True]),
    (15 < hr.col("delay"), [True, False, False, False]),  # noqa: SIM300
]


@pytest.mark.parametrize(("expression", "kept"), KEPT, ids=[str(expression) for expression, _ in KEPT])
def test_filter_keeps_what_is_true_and_neither_false_nor_null(expression: Expression, kept: list[bool]) -> None:
    assert expression.evaluate(COLUMNS).tolist() == kept


def test_values_of_a_condition_tell_false_from_null() -> None:
    np.testing.assert_array_equal((hr.col("delay") > 15).values(COLUMNS), [1.0, 0.0, np.nan, 0.0])


def test_values_of_a_field_are_its_numbers() -> None:
    np.testing.assert_array_equal(hr.col("delay").values(COLUMNS), COLUMNS["delay"])
    np.testing.assert_array_equal((hr.col("limit") * 2).values(COLUMNS), [20.0] * 4)


def test_evaluating_changes_no_column() -> None:
    before = {name: column.copy() for name, column in COLUMNS.items()}
    for expression, _ in KEPT:
        expression.values(COLUMNS)
    for name, column in COLUMNS.items():
        np.testing.assert_array_equal(column, before[name])


def test_integers_beyond_float64_are_compared_exactly() -> None:
    columns = {"n": np.array([2**53, 2**53 + 1], dtype=np.int64)}
    assert (hr.col("n") == 2**53 + 1).evaluate(columns).tolist() == [False, True]


def test_moment_is_compared_in_microseconds() -> None:
    columns = {"at": np.array([0, 1_357_000_000_000_000], dtype=np.int64)}
    moment = datetime.datetime(2013, 1, 1, 0, 26, 40, tzinfo=datetime.UTC)
    assert (hr.col("at") >= moment).evaluate(columns).tolist() == [False, True]
    assert (hr.col("at") > moment).evaluate(columns).tolist() == [False, False]


def test_fields_are_all_that_the_value_depends_on() -> None:
    expression = (hr.col("a") + hr.col("b") > 3) | ~hr.col("c").is_null() & hr.col("d").is_in([1])
    assert expression.fields() == {"a", "b", "c", "d"}


def test_canonical_form_ignores_spelling_and_keeps_meaning() -> None:
    same = [
        (hr.col("a") > 15, hr.col("a") > 15.0),
        (hr.col("a").is_in([2, 1, 1]), hr.col("a").is_in([1, 2])),
        (hr.col("a") < 3, 3 > hr.col("a")),  # noqa: SIM300
    ]
    other = [
        (hr.col("a") > 15, hr.col("a") >= 15),
        (hr.col("a") == True, hr.col("a") == 1),  # noqa: E712
        (hr.col("a") == "1", hr.col("a") == 1),
        (hr.col("a") - hr.col("b") > 0, hr.col("b") - hr.col("a") > 0),
    ]
    for left, right in same:
        assert repr(left.canonical()) == repr(right.canonical())
    for left, right in other:
        assert repr(left.canonical()) != repr(right.canonical())


# --- the evaluator against one row at a time, with Python's None ------------------------------------------------------

Value = float | bool | None
Naive = Callable[[dict[str, Value]], Value]
_leaf = st.sampled_from(["x", "y", "flag"])


def _kleene(op: str, a: Value, b: Value) -> Value:
    known = op != "and"
    if a is known or b is known:
        return known
    return None if a is None or b is None else not known


def _null_safe(function: Callable[[Any, Any], Value]) -> Callable[[Value, Value], Value]:
    return lambda a, b: None if a is None or b is None else function(a, b)


def _number(draw: st.DrawFn) -> tuple[Expression, Naive]:
    name = draw(st.sampled_from(["x", "y"]))
    constant = draw(st.integers(-2, 2))
    op = draw(st.sampled_from(["+", "*", "/", "none"]))
    if op == "none":
        return hr.col(name), lambda row: row[name]
    if op == "+":
        return hr.col(name) + constant, lambda row: _null_safe(lambda a, b: a + b)(row[name], float(constant))
    if op == "*":
        return hr.col(name) * constant, lambda row: _null_safe(lambda a, b: a * b)(row[name], float(constant))
    return hr.col(
        name
    ) / constant, lambda row: None if constant == 0 else _null_safe(lambda a, b: a / b)(row[name], float(constant))


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> tuple[Expression, Naive]:
    kind = draw(st.sampled_from(["compare", "flag", "null"] + (["and", "or", "not"] * 2 if depth else [])))
    if kind == "flag":
        return hr.col("flag"), lambda row: row["flag"]
    if kind == "null":
        number, naive = _number(draw)
        return number.is_null(), lambda row: naive(row) is None
    if kind == "compare":
        (left, a), (right, b) = _number(draw), _number(draw)
        return left < right, lambda row: _null_safe(lambda x, y: x < y)(a(row), b(row))
    first, naive = draw(conditions(depth=depth - 1))
    if kind == "not":
        return ~first, lambda row: None if (value := naive(row)) is None else not value
    second, other = draw(conditions(depth=depth - 1))
    combined = first & second if kind == "and" else first | second
    return combined, lambda row: _kleene(kind, naive(row), other(row))


@given(
    conditions(),
    st.lists(
        st.fixed_dictionaries(
            {
                "x": st.sampled_from([None, -1.0, 0.0, 1.0, 2.5]),
                "y": st.sampled_from([None, 0.0, 1.0]),
                "flag": st.sampled_from([None, True, False]),
            }
        ),
        max_size=8,
    ),
)
def test_columns_give_what_each_row_gives_by_kleenes_tables(
    condition: tuple[Expression, Naive], rows: list[dict[str, Value]]
) -> None:
    expression, naive = condition
    columns = {
        name: np.array([np.nan if row[name] is None else float(row[name]) for row in rows])  # type: ignore[arg-type]
        for name in ("x", "y", "flag")
    }
    expected = [np.nan if (value := naive(row)) is None else float(value) for row in rows]
    np.testing.assert_array_equal(expression.values(columns), np.array(expected, dtype=np.float64))
    assert expression.evaluate(columns).tolist() == [value == 1.0 for value in expected]
