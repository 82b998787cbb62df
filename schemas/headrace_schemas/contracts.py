"""The contract of an event, checked on whole columns: what a decoded row must satisfy to enter state, log and training.

Each expectation is one expression that marks the rows that break it; all are evaluated in one pass, and reasons are written
only where there is a break. An expression costs more than a few rows are worth, so small batches are first looked at as a
whole (`_Sight`): where no row can break a rule, nothing is evaluated. The verdict depends on the record and its recorded arrival alone, so that every reader of a topic,
now or in a replay, sets the same records aside. What may not live here: decoding, dead letters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace.errors import ContractError
from headrace.fields import EXACT_INTEGER, Field, FieldType
from headrace.layout import merge_bounds
from headrace_schemas.batches import Reject

# Kafka's timestamps have milliseconds: an event of the same moment may be up to this much later.
KAFKA_RESOLUTION_US = 999
MAX_KEY_BYTES = 1024

_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999: what log tables hold
_ARRIVAL = "__arrival"
_SHOWN = 80
_FEW = 1024  # rows of a small batch
_HUGE = sys.float_info.max
_LONGEST_CHARACTER = 4  # bytes in UTF-8


@dataclass(frozen=True, slots=True)
class Expectation:
    """One rule of a contract.

    Args:
        field: the field it is about.
        code: the kind of rule, for counters.
        required: what is required, for people.
        broken: marks the rows that break it; null counts as kept.
        kept: whether a batch as a whole shows that no row breaks it; a batch that does not is looked at row by row.
        got: what such a row holds, where the value itself does not say it.
    """

    field: str
    code: str
    required: str
    broken: pl.Expr
    kept: Callable[[_Sight], bool]
    got: pl.Expr | None = None


class _Sight:
    """A small batch as a whole: what its columns hold, each looked at once.

    Args:
        frame: decoded rows.
        arrival_us: the recorded arrival of each.
    """

    def __init__(self, frame: pl.DataFrame, arrival_us: npt.NDArray[np.int64]) -> None:
        self._frame, self._arrival_us = frame, arrival_us
        self._bounds: dict[str, tuple[float, float]] = {}
        self._texts: dict[str, list[str | None]] = {}

    def has_null(self, name: str) -> bool:
        """Whether a column holds a null."""
        return self._frame.get_column(name).null_count() > 0

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest number of a column, NaN where one is among them; nulls aside."""
        if name not in self._bounds:
            self._bounds[name] = _bounds(self._frame.get_column(name))
        return self._bounds[name]

    def texts(self, name: str) -> list[str | None]:
        """The texts of a column."""
        if name not in self._texts:
            self._texts[name] = self._frame.get_column(name).to_list()
        return self._texts[name]

    def latest_after_arrival(self, name: str) -> float:
        """How much later than its arrival, in µs, a time of a column is at most."""
        times = self._frame.get_column(name)
        return math.nan if times.null_count() else float((times.to_numpy() - self._arrival_us).max())


def _bounds(column: pl.Series) -> tuple[float, float]:
    nulls = column.null_count()
    if nulls == len(column):
        return math.inf, -math.inf
    if column.dtype == pl.Boolean:
        column = column.cast(pl.Float64)
    values = column.to_numpy()  # with nulls: floats, NaN for each
    if not nulls:
        return values.min(), values.max()
    if np.count_nonzero(np.isnan(values)) > nulls:
        return math.nan, math.nan
    return np.fmin.reduce(values), np.fmax.reduce(values)


class Contract:
    """What rows of an event must satisfy.

    Args:
        event: the event.
        views: the feature views that read it: their entity keys may not be null, and whole numbers that they aggregate must be
            exact in a float.
    """

    def __init__(self, event: hr.Event, views: Iterable[hr.FeatureView] = ()) -> None:
        own = [view for view in views if view.event.name == event.name]
        self.expectations = tuple(_expectations(event, own))
        self._broken = [rule.broken.fill_null(value=False).alias(str(i)) for i, rule in enumerate(self.expectations)]

    def check(
        self, frame: pl.DataFrame, rows: npt.NDArray[np.int64], arrival_us: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], list[Reject]]:
        """Which rows keep the contract, and the others with the first rule that each breaks.

        Args:
            frame: decoded rows.
            rows: the raw row of each.
            arrival_us: the recorded arrival of each.
        """
        if not self._broken or frame.height == 0:
            return np.ones(frame.height, np.bool_), []
        if frame.height <= _FEW:
            sight = _Sight(frame, arrival_us)
            if all(rule.kept(sight) for rule in self.expectations):
                return np.ones(frame.height, np.bool_), []
        judged = frame.with_columns(pl.Series(_ARRIVAL, arrival_us))
        broken = judged.select(self._broken)
        hit = broken.select(pl.any_horizontal(pl.all())).to_series()
        if not hit.any():
            return np.ones(frame.height, np.bool_), []
        keeps = ~hit.to_numpy()
        which = broken.filter(hit).to_numpy().argmax(axis=1)
        return keeps, list(self._rejects(judged.filter(hit), rows[~keeps], which))

    def _rejects(
        self, judged: pl.DataFrame, rows: npt.NDArray[np.int64], which: npt.NDArray[np.intp]
    ) -> Iterator[Reject]:
        got = {index: judged.select(_shown(self.expectations[index])).to_series() for index in set(which.tolist())}
        for place, (row, index) in enumerate(zip(rows.tolist(), which.tolist(), strict=True)):
            rule = self.expectations[index]
            error = ContractError(rule.field, rule.required, str(got[index][place])[:_SHOWN])
            yield Reject(row=row, reason=str(error), code=rule.code)


def _shown(rule: Expectation) -> pl.Expr:
    value = pl.col(rule.field) if rule.got is None else rule.got
    return value.cast(pl.String).fill_null("null")


def _expectations(event: hr.Event, views: list[hr.FeatureView]) -> Iterator[Expectation]:
    for name, field in event.fields.items():
        if not field.nullable:
            yield _not_null(name, "null", field.expected)
        yield from _of_type(name, field)
        yield from _declared(name, field)
    yield from _aggregated(views)
    keys = {view.key_fields: f"an entity key of view {view.name!r}" for view in reversed(views)}
    if event.id is not None:
        keys = {(event.id,): f"the id of event {event.name!r}", **keys}
    for names, what in keys.items():
        yield from _key_expectations(what, names, event)
    if event.future_tolerance_us is not None:
        yield _not_in_the_future(event.time, event.future_tolerance_us)


def _not_null(name: str, code: str, required: str) -> Expectation:
    return Expectation(name, code, required, pl.col(name).is_null(), lambda sight: not sight.has_null(name))


def _within(name: str, least: float, greatest: float) -> Callable[[_Sight], bool]:
    def kept(sight: _Sight) -> bool:
        low, high = sight.bounds(name)
        return bool(low >= least and high <= greatest)

    return kept


def _of_type(name: str, field: Field) -> Iterator[Expectation]:
    column = pl.col(name)
    if field.type is FieldType.FLOAT64:
        yield Expectation(name, "not-finite", field.expected, ~column.is_finite(), _within(name, -_HUGE, _HUGE))
    if field.type is FieldType.INT64 and field.nullable:
        largest = EXACT_INTEGER - 1
        required = f"an integer from -{largest} to {largest}, because it may be null and has to fit a float"
        yield Expectation(
            name, "range", required, ~column.is_between(-largest, largest), _within(name, -largest, largest)
        )
    if field.type is FieldType.TIMESTAMP:
        first, last = (1 - EXACT_INTEGER, EXACT_INTEGER - 1) if field.nullable else (_FIRST_US, _LAST_US)
        years = "1685 and 2255, because it may be null" if field.nullable else "1 and 9999"
        required = f"microseconds since 1970, between the years {years}"
        yield Expectation(name, "range", required, ~column.is_between(first, last), _within(name, first, last))


def _declared(name: str, field: Field) -> Iterator[Expectation]:
    column = pl.col(name)
    if field.one_of is not None:
        choices = frozenset(field.one_of)
        yield Expectation(
            name, "choice", field.expected, ~column.is_in(list(field.one_of)),
            lambda sight: choices.issuperset(text for text in sight.texts(name) if text is not None),
        )  # fmt: skip
    if field.ge is not None:
        yield Expectation(name, "range", field.expected, column < field.ge, _within(name, field.ge, math.inf))
    if field.le is not None:
        yield Expectation(name, "range", field.expected, column > field.le, _within(name, -math.inf, field.le))


def _aggregated(views: list[hr.FeatureView]) -> Iterator[Expectation]:
    """Values that are aggregated have to fit the exact accumulators: overflow is a broken contract, never a wrong sum."""
    for name, bound in merge_bounds(views).items():
        if bound < math.inf:
            names = ", ".join(repr(view.name) for view in views if name in view.aggregated_fields)
            required = (
                f"a number smaller than {bound:.16g} in magnitude, because it is aggregated exactly (view {names})"
            )
            below = math.nextafter(bound, 0.0)
            too_large = pl.col(name).cast(pl.Float64).abs() >= bound
            yield Expectation(name, "range", required, too_large, _within(name, -below, below))


def _key_expectations(what: str, fields: Sequence[str], event: hr.Event) -> Iterator[Expectation]:
    for name in fields:
        yield _not_null(name, "key", f"{what} that is not null")
    texts = [name for name in fields if event.fields[name].type is FieldType.STRING]
    if texts:
        # As the key codec counts: two bytes of length per part where there are several, eight for an integer.
        fixed = (2 * len(fields) if len(fields) > 1 else 0) + 8 * (len(fields) - len(texts))
        size = pl.sum_horizontal(pl.col(name).str.len_bytes() for name in texts) + fixed
        required = f"{what} of at most {MAX_KEY_BYTES} bytes"
        room = (MAX_KEY_BYTES - fixed) // len(texts) // _LONGEST_CHARACTER
        yield Expectation(
            texts[0], "key", required, size > MAX_KEY_BYTES,
            lambda sight: all(len(text or "") <= room for name in texts for text in sight.texts(name)),
            got=pl.format("{} bytes", size),
        )  # fmt: skip


def _not_in_the_future(time: str, tolerance_us: int) -> Expectation:
    ahead = pl.col(time) - pl.col(_ARRIVAL)
    return Expectation(
        field=time,
        code="future",
        required=f"a time at most {tolerance_us / 1e6:g} s after the record's arrival",
        broken=ahead > tolerance_us + KAFKA_RESOLUTION_US,
        kept=lambda sight: sight.latest_after_arrival(time) <= tolerance_us + KAFKA_RESOLUTION_US,
        got=pl.format("{} s after it", ahead / 1e6),
    )
