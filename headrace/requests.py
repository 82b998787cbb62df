"""Requests: rows as a caller sends them, checked against the request event's contract, as records and as columns.

    rows       what came: dicts of JSON values (or Python values)
    records    the same, checked: times in integer microseconds, the clock's where the row has none
    columns    one numpy array per field, in the convention of ``expressions``

Types and checks are resolved once per model. What may not live here: HTTP, and any knowledge of features.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import ContractError
from headrace.events import Event
from headrace.expressions import Columns
from headrace.fields import EXACT_INTEGER, INT64_MAX, Field, FieldType, describe
from headrace.models import RequestField
from headrace.suggestions import did_you_mean

Row: TypeAlias = Mapping[str, object]
Record: TypeAlias = dict[str, Any]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_LONGEST_SHOWN = 60


class _Refused(Exception):  # noqa: N818  (never seen outside: it becomes a ContractError that names field and row)
    pass


def dtype_of(field: Field) -> npt.DTypeLike:
    """The numpy type of a field's column: nulls are NaN, so what may be null is float64, and texts are objects.

    >>> import headrace as hr
    >>> dtype_of(hr.int64()), dtype_of(hr.int64(nullable=True))
    (dtype('int64'), dtype('float64'))
    """
    return _DTYPES[field.type, field.nullable]


_FLOAT, _OBJECT = np.dtype(np.float64), np.dtype(object)
_DTYPES = {
    (field_type, nullable): _OBJECT if field_type is FieldType.STRING else _FLOAT if nullable else dtype
    for nullable in (False, True)
    for field_type, dtype in (
        (FieldType.STRING, _OBJECT),
        (FieldType.INT64, np.dtype(np.int64)),
        (FieldType.FLOAT64, _FLOAT),
        (FieldType.BOOLEAN, np.dtype(np.bool_)),
        (FieldType.TIMESTAMP, np.dtype(np.int64)),
    )
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """One field's checks, resolved."""

    name: str
    field: Field
    check: Callable[[Any], Any]
    required: bool
    dtype: npt.DTypeLike
    null: object


class RequestReader:
    """Reads requests about one event.

    Args:
        event: the request event.
        fields: what a caller must and may send, from ``model.request_fields``; by default every field, required unless it
            is nullable or the event's time. Other fields of the event are checked too, if they come, and have no column.

    >>> import headrace as hr
    >>> paid = hr.Event("paid", fields={"at": hr.timestamp(), "amount": hr.float64(ge=0)}, time="at")
    >>> reader = RequestReader(paid)
    >>> reader.columns(reader.records([{"amount": 12.5}], at_us=1_000_000))
    {'at': array([1000000]), 'amount': array([12.5])}
    """

    def __init__(self, event: Event, fields: Sequence[RequestField] | None = None) -> None:
        self._event = event
        asked = _every_field(event) if fields is None else tuple(fields)
        self._asked = tuple(_reader(event, item) for item in asked)
        names = {item.name for item in asked}
        others = (RequestField(name, replace(field, nullable=True), False) for name, field in event.fields.items())
        known = (*self._asked, *(_reader(event, item) for item in others if item.name not in names))
        self._checks = {reader.name: reader for reader in known}
        self._required = tuple(reader.name for reader in self._asked if reader.required)

    def records(self, rows: Sequence[Row], at_us: int | None = None) -> list[Record]:
        """The checked rows: only fields that came, and the event's time.

        Args:
            rows: one dict for each prediction that is asked for.
            at_us: the time of rows that name none.

        Raises:
            ContractError: names the field, what it must be and what came; and the row, if there are several.
        """
        single = len(rows) == 1
        return [self._record(row, None if single else i, at_us) for i, row in enumerate(rows)]

    def columns(self, records: Sequence[Record], names: Container[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """One array per asked field. A null is NaN or None, and so is an optional field that did not come.

        Args:
            records: the checked rows.
            names: of the asked fields only these; by default all.
        """
        columns = {}
        for reader in self._asked:
            if names is not None and reader.name not in names:
                continue
            name, null = reader.name, reader.null
            values = [null if (value := record.get(name)) is None else value for record in records]
            columns[name] = np.array(values, dtype=reader.dtype)
        return columns

    def _record(self, row: Row, index: int | None, at_us: int | None) -> Record:
        if not isinstance(row, Mapping):
            raise ContractError("(row)", "an object of request fields", _shown(row), index)
        checks = self._checks
        record: Record = {}
        for name, value in row.items():
            reader = checks.get(name)
            if reader is None:
                required = f"a field of event {self._event.name!r}; {did_you_mean(str(name), checks)}"
                raise ContractError(str(name), required, "an unknown field", index)
            if value is None:
                if not reader.field.nullable and name != self._event.time:
                    raise ContractError(name, describe(reader.field), "null", index)
                continue
            try:
                record[name] = reader.check(value)
            except _Refused:
                raise ContractError(name, describe(reader.field), _shown(value), index) from None
        for name in self._required:
            if name not in record:
                raise ContractError(name, describe(checks[name].field), "no value", index)
        if self._event.time not in record:
            if at_us is None:
                raise ContractError(self._event.time, describe(checks[self._event.time].field), "no value", index)
            record[self._event.time] = at_us
        return record


def request_columns(
    event: Event, rows: Sequence[Row], fields: tuple[RequestField, ...] | None = None, *, at_us: int | None = None
) -> Columns:
    """Checked rows as columns; see ``RequestReader``, whose parts this joins."""
    reader = request_reader(event, fields)
    return reader.columns(reader.records(rows, at_us))


@lru_cache(maxsize=256)
def request_reader(event: Event, fields: tuple[RequestField, ...] | None = None) -> RequestReader:
    """The reader of an event and some fields, made once."""
    return RequestReader(event, fields)


def _every_field(event: Event) -> tuple[RequestField, ...]:
    return tuple(
        RequestField(name, field, required=not field.nullable and name != event.time)
        for name, field in event.fields.items()
    )


def _reader(event: Event, item: RequestField) -> _Reader:
    field = item.field
    dtype = dtype_of(field)
    if field.type is FieldType.INT64 and field.nullable and not event.fields[item.name].nullable:
        # An id that may be left out of a request: nothing computes with it, and as float64 it would lose digits.
        dtype = _OBJECT
    null = None if dtype == _OBJECT else math.nan
    return _Reader(item.name, field, _check_of(field, exact=dtype != _FLOAT), item.required, dtype, null)


# --- checks of single values -----------------------------------------------------------------------------------------


def _check_of(field: Field, exact: bool) -> Callable[[Any], Any]:
    base = {
        FieldType.STRING: _text,
        FieldType.INT64: _integer if exact else _small_integer,
        FieldType.FLOAT64: _number,
        FieldType.BOOLEAN: _truth,
        FieldType.TIMESTAMP: _moment,
    }[field.type]
    if field.one_of is not None:
        return _one_of(base, frozenset(field.one_of))
    if field.ge is not None or field.le is not None:
        return _bounded(base, -math.inf if field.ge is None else field.ge, math.inf if field.le is None else field.le)
    return base


def _bounded(base: Callable[[Any], Any], least: float, most: float) -> Callable[[Any], Any]:
    def check(value: object) -> object:
        checked = base(value)
        if not least <= checked <= most:
            raise _Refused
        return checked

    return check


def _one_of(base: Callable[[Any], Any], choices: frozenset[str | int]) -> Callable[[Any], Any]:
    def check(value: object) -> object:
        checked = base(value)
        if checked not in choices:
            raise _Refused
        return checked

    return check


def _text(value: object) -> str:
    # Half of a surrogate pair, which JSON can spell, has no UTF-8 and so no key.
    if not isinstance(value, str) or not (value.isascii() or _has_utf8(value)):
        raise _Refused
    return value


def _has_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(value: object) -> int:
    if type(value) is not int or not -INT64_MAX <= value <= INT64_MAX:
        raise _Refused
    return value


def _small_integer(value: object) -> int:
    if type(value) is not int or not -EXACT_INTEGER < value < EXACT_INTEGER:
        raise _Refused
    return value


def _number(value: object) -> float:
    if type(value) is float:
        number = value
    elif type(value) is int and -INT64_MAX <= value <= INT64_MAX:
        number = float(value)
    else:
        raise _Refused
    if not math.isfinite(number):
        raise _Refused
    return number


def _truth(value: object) -> bool:
    if type(value) is not bool:
        raise _Refused
    return value


def _moment(value: object) -> int:
    if type(value) is int:
        return _integer(value)
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise _Refused from None
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise _Refused
    return (value - _EPOCH) // _MICROSECOND


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
