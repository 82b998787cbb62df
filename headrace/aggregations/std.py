"""Std: the square root of the variance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading
from headrace.aggregations.var import Var


class Std(Algebra):
    """The standard deviation; null with `ddof` values or fewer. See `Var`.

    >>> stream = [Observation(t, 0, t, v, round(v * 100)) for t, v in enumerate((2.0, 4.0, 4.0, 6.0))]
    >>> [Std.naive(stream[:n], Reading(at_us=60, scale=100, params={"ddof": 0})) for n in range(5)]
    [None, 0.0, 1.0, 0.9428090415820634, 1.4142135623730951]
    """

    name = "std"
    takes_field = True
    accumulators = (Accumulator.COUNT, Accumulator.SUM, Accumulator.SUM_SQUARES)
    finalizer = Finalizer.STD

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        variance = Var.naive(observations, reading)
        return None if variance is None else math.sqrt(variance)
