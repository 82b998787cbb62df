"""JSON events: one object per record, strictly typed.

A text is a JSON string and nothing else, a whole number has neither fraction nor exponent, a boolean is ``true`` or ``false``; a
time is an ISO 8601 string with a zone or whole microseconds. Absent and ``null`` are the same. Names that the event does not
declare are passed over; a declared name that comes twice makes the record undecodable, because readers disagree on which one counts.

Plain objects are read by the compiled reader (``compiled/json.py``); whatever it finds doubtful is read here, by Python's own
parser, which is the definition. What may not live here: contracts beyond the types (``contracts.py``), topics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace.errors import CodecError
from headrace.fields import FieldType
from headrace_schemas.columns import Columnar, Fault, frame_of, join_values
from headrace_schemas.tables import frame_fields

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)
_SHOWN = 60


class _UnfitError(ValueError):
    """A value that is JSON but not what the event declares. A ValueError, as are those of the JSON parser."""


class JsonDecoder:
    """JSON objects to a frame of an event's fields.

    Args:
        event: the event.
    """

    def __init__(self, event: hr.Event) -> None:
        self._schema = frame_fields(event)
        self._types = [field.type for field in event.fields.values()]
        self._names, self._name_offsets = join_values([name.encode() for name in event.fields])
        self._careful = CarefulJsonDecoder(event)

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good objects in their order, their rows, and what is wrong with the others."""
        frame, doubtful = self._plain(values)
        if not doubtful.any():
            return Columnar(frame=frame, rows=np.arange(len(values)), faults=[])
        plain, rest = np.flatnonzero(~doubtful), np.flatnonzero(doubtful)
        careful = self._careful.decode([values[row] for row in rest.tolist()])
        rows = np.concatenate([plain, rest[careful.rows]])
        order = np.argsort(rows)
        return Columnar(
            frame=pl.concat([frame.filter(pl.Series(~doubtful)), careful.frame])[order],
            rows=rows[order],
            faults=[Fault(int(rest[fault.row]), fault.reason) for fault in careful.faults],
        )

    def _plain(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
        """A frame with a row for each object, and which of them mean nothing because their object is doubtful."""
        from headrace_schemas.compiled import json as compiled

        fields, count = len(self._types), len(values)
        body, offsets = join_values(values)
        kinds = np.zeros((fields, count), np.uint8)
        begins, ends = np.zeros((2, fields, count), np.int64)
        doubtful = np.zeros(count, np.uint8)
        compiled.tokenize(body, offsets, self._names, self._name_offsets, kinds, begins, ends, doubtful)
        numbers = np.empty((fields, count), np.int64)
        views: list[npt.NDArray[np.uint8] | None] = [None] * fields
        for i, field_type in enumerate(self._types):
            column = body, kinds[i], begins[i], ends[i]
            if field_type is FieldType.STRING:
                views[i] = view = np.empty((count, 16), np.uint8)
                compiled.read_texts(*column, view, doubtful)
            elif field_type is FieldType.INT64:
                compiled.read_integers(*column, numbers[i], doubtful)
            elif field_type is FieldType.FLOAT64:
                _read_floats(*column, numbers[i].view(np.float64), doubtful)
            elif field_type is FieldType.TIMESTAMP:
                compiled.read_times(*column, numbers[i], doubtful)
            else:
                compiled.read_booleans(kinds[i], numbers[i], doubtful)
        valid = (kinds > compiled.NULL).view(np.uint8)
        dtypes = list(self._schema.values())
        frame = frame_of(list(self._schema), dtypes, list(numbers), list(valid), views, [True] * fields, body)
        return frame, doubtful.view(np.bool_)


def _read_floats(
    body: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.float64],
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """A column of numbers; those with more digits than the compiled reader takes are converted from their text."""
    from headrace_schemas.compiled.json import read_floats

    deferred = np.empty(len(kinds), np.uint8)
    read_floats(body, kinds, begins, ends, numbers, doubtful, deferred)
    rows = np.flatnonzero(deferred)
    if len(rows):
        text = body.tobytes()
        spans = zip(begins[rows].tolist(), ends[rows].tolist(), strict=True)
        numbers[rows] = [float(text[begin:end]) for begin, end in spans]
        doubtful[rows] |= ~np.isfinite(numbers[rows])


class CarefulJsonDecoder:
    """JSON objects to a frame by Python's own parser, one by one: the definition of what an object holds.

    Args:
        event: the event.
    """

    def __init__(self, event: hr.Event) -> None:
        self._what = f"JSON event {event.name!r}"
        self._schema = frame_fields(event)
        self._readers = {name: _READERS[field.type] for name, field in event.fields.items()}
        self._parse = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_Pairs).decode

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good objects in their order, their rows, and what is wrong with the others."""
        columns: dict[str, list[Any]] = {name: [] for name in self._schema}
        rows, faults = [], []
        for row, value in enumerate(values):
            try:
                read = self._read(value)
            except ValueError as error:
                faults.append(Fault(row, f"{self._what}: {error}"))
                continue
            rows.append(row)
            for name, column in columns.items():
                column.append(read.get(name))
        return Columnar(frame=pl.DataFrame(columns, schema=self._schema), rows=np.array(rows, np.int64), faults=faults)

    def _read(self, value: bytes) -> dict[str, Any]:
        try:
            found = self._parse(value.decode())
        except RecursionError:
            raise _UnfitError("it is nested too deeply") from None
        if not isinstance(found, _Pairs):
            raise _UnfitError(f"it must be an object, but it is {_shown(found)}")
        read: dict[str, Any] = {}
        for name, cell in found:
            if name in read:
                raise _UnfitError(f"field {name!r} comes twice")
            if name in self._readers:
                read[name] = None if cell is None else self._readers[name](name, cell)
        return read


class _Pairs(list[tuple[str, Any]]):
    """An object as its names and values: a dict would hide a name that comes twice, a list would pass for an array."""


class JsonEncoder:
    """Records to JSON objects; times become ISO 8601 strings in UTC.

    Args:
        event: the event.
    """

    def __init__(self, event: hr.Event) -> None:
        self._what = f"JSON event {event.name!r}"
        self._fields = dict(event.fields)

    def encode(self, record: Mapping[str, object]) -> bytes:
        """The object of a record.

        Raises:
            CodecError: a value does not fit its field.
        """
        plain: dict[str, object] = {}
        for name, field in self._fields.items():
            value = record[name]
            if value is None:
                if not field.nullable:
                    raise CodecError(self._what, f"field {name!r} must be {field.expected}, but it is null")
                continue
            try:
                read = _READERS[field.type](name, value)
            except _UnfitError as error:
                raise CodecError(self._what, str(error)) from None
            plain[name] = _iso(read) if field.type is FieldType.TIMESTAMP else read
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _iso(time_us: int) -> str | int:
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        return time_us


def _refuse_constant(name: str) -> NoReturn:
    raise _UnfitError(f"{name} is no JSON number")


def _shown(value: object) -> str:
    text = json.dumps(dict(value) if isinstance(value, _Pairs) else value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _must(name: str, expected: str, value: object) -> _UnfitError:
    return _UnfitError(f"field {name!r} must be {expected}, but it is {_shown(value)}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _must(name, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _must(name, "text that UTF-8 can hold", ascii(value)) from None
    return value


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise _must(name, "a 64-bit integer", value)
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _must(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _must(name, "a number that a 64-bit float holds", value)
    return number


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _must(name, "true or false", value)
    return value


def _time(name: str, value: object) -> int:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return (moment - _EPOCH) // _MICROSECOND
    elif isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    raise _must(name, "an ISO 8601 time with a zone, or whole microseconds since 1970", value)


_READERS: Mapping[FieldType, Callable[[str, Any], Any]] = {
    FieldType.STRING: _text,
    FieldType.INT64: _integer,
    FieldType.FLOAT64: _number,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIMESTAMP: _time,
}
