"""Rows of a request, checked and turned into columns by the core's reader, the same that an auditor uses on the logged rows.

What is added here: every bad row of a batch is told, not only the first; and times are kept to those that a calendar can
name, because the answer writes them as dates. What may not live here: HTTP, keys, features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace.assembly import assembled_fields
from headrace.errors import ContractError
from headrace.expressions import Columns
from headrace.requests import Record, Row, request_reader
from headrace_serving.problems import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked rows.

    Attributes:
        records: what the prediction log keeps: the fields that came, times in integer microseconds.
        columns: one array per field that is computed with, by the core's convention; keys are taken from the records.
        at_us: the time of each row: its time field, or the service's clock.
    """

    records: list[Record]
    columns: Columns
    at_us: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.records)


class RequestSchema:
    """What a row of a model's requests must hold.

    Args:
        model: the model.

    Attributes:
        fields: the fields that the model uses; a nullable one may be missing.
        others: the request event's other fields; they may come along, so that a whole event can be sent as it is.
        time: the field that says as of when features are read; without it the clock is taken.
    """

    __slots__ = ("_needed", "_reader", "fields", "others", "time")

    def __init__(self, model: hr.Model) -> None:
        self._reader = request_reader(model.request, model.request_fields)
        self._needed = _columns_needed(model)
        self.fields: Mapping[str, hr.Field] = {each.name: each.field for each in model.request_fields}
        self.others = {name: field for name, field in model.request.fields.items() if name not in self.fields}
        self.time = model.request.time

    def read(self, rows: Sequence[object], now_us: int) -> Rows:
        """Check rows and make columns of them.

        Args:
            rows: parsed JSON values.
            now_us: the time of rows that do not send their own.

        Raises:
            InvalidRequest: names each bad row, a field of it, what was required and what came.
        """
        try:
            records = self._reader.records(cast("Sequence[Row]", rows), now_us)
        except ContractError as error:
            raise self._explained(rows, now_us, error) from None
        columns = self._reader.columns(records, self._needed)
        at_us = columns[self.time]
        for row, at in enumerate(at_us.tolist()):
            if not FIRST_US <= at <= LAST_US:
                required = "a time of the years 1 to 9999"
                raise ContractError(self.time, required, str(at), row if len(rows) > 1 else None)
        return Rows(records, columns, at_us)

    def _explained(self, rows: Sequence[object], now_us: int, first: ContractError) -> InvalidRequest:
        if len(rows) == 1:
            return InvalidRequest([first], 1)
        problems: list[ContractError] = []
        for number, row in enumerate(rows):
            try:
                self._reader.records([cast("Row", row)], now_us)
            except ContractError as error:
                problems.append(ContractError(error.field, error.required, error.got, number))
        return InvalidRequest(problems, len(problems))


def _columns_needed(model: hr.Model) -> frozenset[str]:
    folded = [lookup.view for lookup, folds in zip(model.lookups, model.folded, strict=True) if folds]
    needed = assembled_fields(model).union(*(view.columns for view in folded))
    return needed | {str(model.request.id)} if folded else needed


def shown(value: object) -> str:
    """A value as a message shows it: short.

    >>> shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"
    """
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
