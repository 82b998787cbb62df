"""Count: how many events."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class Count(Algebra):
    """How many events; 0 without any.

    >>> stream = [Observation(t, 0, t, 0.0, 0) for t in (10, 20, 30)]
    >>> [Count.naive(stream[:n], Reading(at_us=60, scale=1, params={})) for n in range(4)]
    [0.0, 1.0, 2.0, 3.0]
    """

    name = "count"
    takes_field = False
    accumulators = (Accumulator.COUNT,)
    finalizer = Finalizer.COUNT

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        return float(len(observations))
