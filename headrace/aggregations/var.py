"""Var: the variance, from exact integers."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class Var(Algebra):
    """The variance; null with `ddof` values or fewer.

    With x in whole quanta, n values, m the whole number nearest to their mean, d = Σx - n·m and M = Σ(x - m)²:

        variance = (n·M - d²) / (n·(n - ddof)·scale²)

    M, d and m are exact integers, and |d| <= n/2 keeps d² at most half of n·M: nothing cancels, and while numerator and
    denominator stay below 2**53 the result is the exact variance, rounded once. (Welford's recurrence depends on the order
    of events; Σx² - (Σx)²/n in floats loses every digit for a large mean.)

    >>> stream = [Observation(t, 0, t, v, round(v * 100)) for t, v in enumerate((2.0, 4.0, 4.0, 6.0))]
    >>> [Var.naive(stream[:n], Reading(at_us=60, scale=100, params={"ddof": 1})) for n in range(5)]
    [None, None, 2.0, 1.3333333333333333, 2.6666666666666665]
    >>> [Var.naive(stream[:n], Reading(at_us=60, scale=100, params={"ddof": 0})) for n in range(5)]
    [None, 0.0, 1.0, 0.8888888888888888, 2.0]
    """

    name = "var"
    takes_field = True
    accumulators = (Accumulator.COUNT, Accumulator.SUM, Accumulator.SUM_SQUARES)
    finalizer = Finalizer.VAR

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        n = len(observations)
        if n <= reading.params["ddof"]:
            return None
        total = sum(o.units for o in observations)
        m = (2 * total + n) // (2 * n)
        d = float(total - n * m)
        moment = float(sum((o.units - m) ** 2 for o in observations))
        scale = float(reading.scale)
        count, freedom = float(n), float(n - reading.params["ddof"])
        return (count * moment - d * d) / (count * freedom * (scale * scale))
