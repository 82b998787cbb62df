"""Max: the largest value."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class Max(Algebra):
    """The largest value, unrounded; null without a value.

    >>> stream = [Observation(t, 0, t, v, round(v * 100)) for t, v in enumerate((3.0, -1.5, 7.25))]
    >>> [Max.naive(stream[:n], Reading(at_us=60, scale=100, params={})) for n in range(4)]
    [None, 3.0, 3.0, 7.25]
    """

    name = "max"
    takes_field = True
    accumulators = (Accumulator.COUNT, Accumulator.MAX)
    finalizer = Finalizer.VALUE

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        return max((o.value for o in observations), default=None)
