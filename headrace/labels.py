"""Labels: the outcome of a request event, which arrives later as another event.

What may not live here: the join itself (``headrace_training``), which follows what is declared here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from headrace.durations import parse_us
from headrace.errors import DefinitionError, Location, caller
from headrace.events import Event
from headrace.expressions import Columns, Expression
from headrace.fields import FieldType
from headrace.fingerprints import digest
from headrace.frozen import Definition, FrozenMap
from headrace.suggestions import did_you_mean


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Label(Definition):
    """The outcome that a model learns to predict.

    Args:
        name: unique within the project.
        event: the outcome event.
        join: request field → outcome field; a request and its outcome agree in all of them.
        value: what is learnt, of the outcome's fields: a condition (1.0 or 0.0) or a number. A null value counts as missing.
        horizon: how long after the request its outcome may come. A request whose horizon has not closed is left out.
        missing: what no outcome within the horizon means: ``"drop"`` leaves the request out, a number is its label.
        description: for people.

    Raises:
        DefinitionError: an unknown field, or a value that is neither a condition nor a number.

    >>> import headrace as hr
    >>> landed = hr.Event("landed", fields={"id": hr.string(), "at": hr.timestamp(), "delay": hr.float64()}, time="at")
    >>> late = hr.Label("late", landed, join={"flight": "id"}, value=hr.col("delay") > 30, horizon="24h", missing="drop")
    >>> late.horizon_us
    86400000000
    """

    kind: ClassVar[str] = "label"

    name: str
    event: Event
    join: Mapping[str, str]
    value: Expression
    horizon_us: int
    missing: Literal["drop"] | float
    description: str
    location: Location

    def __init__(
        self,
        name: str,
        event: Event,
        *,
        join: Mapping[str, str],
        value: Expression,
        horizon: str | timedelta,
        missing: Literal["drop"] | float,
        description: str = "",
    ) -> None:
        self._set(name=name, event=event, join=FrozenMap(join), value=value, description=description)
        self._set(location=caller())
        self._check_name()
        if not isinstance(event, Event):
            raise self.broken("event is an hr.Event", f"{event!r} was given", "pass the event that brings the outcome")
        self._check_join()
        try:
            self._set(horizon_us=parse_us(horizon))
            self._check_value()
        except DefinitionError as error:
            raise error.located(self.subject, self.location) from None
        if self.horizon_us == 0:
            raise self.broken("a horizon is longer than nothing", f"{horizon!r} was given", "write horizon='24h'")
        self._set(missing=self._checked_missing(missing))

    @property
    def fingerprint(self) -> str:
        """Sixteen hex characters over the meaning."""
        return digest(self.canonical())

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of the outcome event that the label needs: time, join and value, in the event's order."""
        needed = {self.event.time, *self.join.values(), *self.value.fields()}
        return tuple(name for name in self.event.fields if name in needed)

    def values(self, columns: Columns) -> npt.NDArray[np.float64]:
        """The label of each outcome; NaN where it is null."""
        return self.value.values(columns)

    def canonical(self) -> dict[str, object]:
        """Everything but the description."""
        return {
            "name": self.name,
            "event": [self.event.name, self.event.topic, self.event.time],
            "join": dict(self.join),
            "value": self.value.canonical(),
            "horizon_us": self.horizon_us,
            "missing": self.missing,
        }

    def _check_join(self) -> None:
        if not self.join:
            raise self.broken("join names at least one field", "it is empty", 'write join={"flight_id": "flight_id"}')
        for field in self.join.values():
            if field not in self.event.fields:
                raise self.broken(
                    f"join names fields of event {self.event.name!r} on its right side",
                    f"it has no field {field!r}",
                    did_you_mean(field, self.event.fields),
                )

    def _check_value(self) -> None:
        if not isinstance(self.value, Expression):
            raise DefinitionError(
                required="value is an expression over the outcome's fields",
                got=f"{self.value!r} was given",
                remedy='write value=hr.col("delay") > 30',
            )
        found = self.value.type_in(self.event)
        if not found.numeric and found is not FieldType.BOOLEAN:
            raise DefinitionError(
                required="a label is a condition or a number",
                got=f"{self.value} is of type {found.value}",
                remedy="compare it, as in hr.col('status') == 'refunded'",
            )

    def _checked_missing(self, missing: object) -> Literal["drop"] | float:
        if missing == "drop":
            return "drop"
        if isinstance(missing, bool) or not isinstance(missing, int | float) or not math.isfinite(missing):
            raise self.broken(
                "missing says what no outcome means: 'drop', or a number",
                f"missing={missing!r} was given",
                "write missing='drop' to leave such requests out, or missing=0.0 to count them as negative",
            )
        return float(missing)
