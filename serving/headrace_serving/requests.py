"""Rows of a request: checked against the declared fields, and turned into columns.

The schema is compiled once per model or view. Checking goes field by field, so its cost per row is that of a few C loops,
and the happy path makes no message; when anything is amiss, a second pass looks at every value and says of each what was
required and what came. Types are strict: ``"3"`` and ``3.0`` are no integers, ``1`` is not true, and a number that JSON can
write but a float cannot hold (``1e999``) is refused.

The columns follow the core's convention (``headrace.assembly``). What may not live here: HTTP, keys, models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from headrace.errors import ContractError
from headrace.fields import INT64_MAX, Field, FieldType
from headrace.suggestions import did_you_mean
from headrace_serving.bodies import json_kind
from headrace_serving.problems import InvalidRequest

Values = list[object]
Column = npt.NDArray[np.generic]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The times that a calendar can name; the answer writes them as dates.
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_SHOWN_CHARACTERS = 60

_ALLOWED: dict[FieldType, frozenset[type]] = {
    FieldType.STRING: frozenset({str}),
    FieldType.INT64: frozenset({int}),
    FieldType.FLOAT64: frozenset({float, int}),
    FieldType.BOOLEAN: frozenset({bool}),
    FieldType.TIMESTAMP: frozenset({str, int}),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Validated rows.

    Attributes:
        columns: one array per field, by the core's convention.
        values: the same as Python values, times in integer microseconds: what the prediction log keeps.
        at_us: the time of each row: its time field, or the service's clock.
        count: the number of rows.
    """

    columns: Mapping[str, Column]
    values: Mapping[str, Values]
    at_us: npt.NDArray[np.int64]
    count: int


class RequestSchema:
    """What one kind of row must hold.

    Args:
        fields: the fields that a row may hold.
        required: those that it must hold; the others, when missing, are null (or, for ``time``, the clock).
        time: the field that says as of when features are read, if the rows have one.
    """

    __slots__ = ("_names", "_readers", "fields", "required", "time")

    def __init__(self, fields: Mapping[str, Field], required: frozenset[str], time: str | None) -> None:
        self.fields = dict(fields)
        self.required = required
        self.time = time
        self._names = frozenset(fields)
        self._readers = [
            _FieldReader(name, field, name not in required, is_time=name == time) for name, field in fields.items()
        ]

    def validate(self, rows: Sequence[object], now_us: int, *, single: bool = False) -> Rows:
        """Check rows and make columns of them.

        Args:
            rows: parsed JSON values.
            now_us: the time of rows that do not send their own.
            single: the caller sent one row by itself; messages then do not number it.

        Raises:
            InvalidRequest: names each row and field that is amiss, what was required and what came.
        """
        known = self._names
        for row in rows:
            if type(row) is not dict or not row.keys() <= known:
                raise self._explain(rows, single)
        columns: dict[str, Column] = {}
        values: dict[str, Values] = {}
        for reader in self._readers:
            name = reader.name
            found = reader.read([row.get(name) for row in rows], now_us)  # type: ignore[attr-defined]
            if found is None:
                raise self._explain(rows, single)
            values[name] = found
            columns[name] = reader.column(found)
        if self.time is None:
            at = np.full(len(rows), now_us, dtype=np.int64)
        else:
            at = np.asarray(columns[self.time], dtype=np.int64)
        return Rows(columns, values, at, len(rows))

    def _explain(self, rows: Sequence[object], single: bool) -> InvalidRequest:
        problems: list[ContractError] = []
        for index, row in enumerate(rows):
            number = None if single else index
            if not isinstance(row, dict):
                problems.append(ContractError("rows", "an object of fields", json_kind(row), number))
                continue
            problems += [self._unknown(name, number) for name in row if name not in self._names]
            found = (reader.problem(row, number) for reader in self._readers)
            problems += [problem for problem in found if problem is not None]
        return InvalidRequest(problems, len(problems))

    def _unknown(self, name: str, row: int | None) -> ContractError:
        return ContractError(name, "a declared field", f"an unknown one; {did_you_mean(name, self.fields)}", row)


class _FieldReader:
    """Checks and converts all values of one field; its checks are chosen once, from the declaration."""

    __slots__ = ("_allowed", "_converts", "_dtype", "_field", "_good", "_missing", "_nulls", "_time", "name")

    def __init__(self, name: str, field: Field, optional: bool, *, is_time: bool) -> None:
        self.name = name
        self._field = field
        self._missing = optional
        self._time = is_time
        self._nulls = field.nullable or (optional and not is_time)
        nothing = {type(None)} if self._nulls or is_time else set()
        self._allowed = _ALLOWED[field.type] | nothing
        self._good = _test(field)
        self._converts = field.type in {FieldType.FLOAT64, FieldType.TIMESTAMP}
        self._dtype = _dtype(field, self._nulls)

    def read(self, values: Values, now_us: int) -> Values | None:
        """The values, converted; None if any of them is not as declared."""
        if not self._allowed.issuperset(map(type, values)):
            return None
        if self._time:
            values = [now_us if value is None else value for value in values]
        if self._converts:
            try:
                values = [None if value is None else self._convert(value) for value in values]
            except ValueError:
                return None
        good = self._good
        if good is not None:
            for value in values:
                if value is not None and not good(value):
                    return None
        return values

    def column(self, values: Values) -> Column:
        """The column of good values; null is NaN in numbers and None among strings."""
        return np.array(values, dtype=self._dtype)

    def problem(self, row: Mapping[str, object], number: int | None) -> ContractError | None:
        """What is wrong with this field of a row, if anything is."""
        value = row.get(self.name)
        if value is None and (self._time or self._nulls):
            return None
        expected = self._field.expected
        if self.name not in row:
            return ContractError(self.name, expected, "nothing: the field is missing", number)
        if self.read([value], 0) is None:
            return ContractError(self.name, expected, shown(value), number)
        return None

    def _convert(self, value: object) -> object:
        if self._field.type is FieldType.FLOAT64:
            return float(value)  # type: ignore[arg-type]
        return microseconds(value) if isinstance(value, str) else value


def microseconds(text: str) -> int:
    """A time as text, in microseconds since 1970.

    Raises:
        ValueError: it is not ISO 8601, or has no zone.

    >>> microseconds("2013-12-30T12:00:00.000001Z")
    1388404800000001
    >>> microseconds("2013-12-30T07:00:00-05:00")
    1388404800000000
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return (moment - _EPOCH) // _MICROSECOND


def shown(value: object) -> str:
    """A value as a message shows it: short, and by JSON's name where its content does not matter.

    >>> shown("x" * 100), shown(True), shown([1, 2]), shown(1e999)
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…", 'true', 'an array', 'inf')
    """
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list() | dict():
            return json_kind(value)
        case _:
            text = repr(value)
            return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _dtype(field: Field, nulls: bool) -> type[np.generic]:
    match field.type:
        case FieldType.STRING:
            return np.object_
        case FieldType.FLOAT64:
            return np.float64
        case FieldType.BOOLEAN:
            return np.float64 if nulls else np.bool_
        case _:
            return np.float64 if nulls else np.int64


def _test(field: Field) -> Callable[[object], bool] | None:
    """The check of one value beyond its type; None where there is nothing to check."""
    ge, le = field.ge, field.le
    choices = None if field.one_of is None else frozenset(field.one_of)
    match field.type:
        case FieldType.FLOAT64:
            low = -math.inf if ge is None else ge
            high = math.inf if le is None else le
            return lambda value: math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]
        case FieldType.INT64 if choices is not None:
            return lambda value: value in choices
        case FieldType.INT64:
            least = -INT64_MAX - 1 if ge is None else math.ceil(ge)
            most = INT64_MAX if le is None else math.floor(le)
            return lambda value: least <= value <= most  # type: ignore[operator]
        case FieldType.TIMESTAMP:
            return lambda value: _FIRST_US <= value <= _LAST_US  # type: ignore[operator]
        case FieldType.STRING if choices is not None:
            return lambda value: value in choices
        case _:
            return None
