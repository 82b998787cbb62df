"""First: the value of the earliest event."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class First(Algebra):
    """The value of the earliest event by (event time, partition, offset); null without a value.

    >>> stream = [Observation(20, 0, 1, 5.0, 5), Observation(10, 1, 7, 6.0, 6), Observation(10, 0, 9, 7.0, 7)]
    >>> [First.naive(stream[:n], Reading(at_us=60, scale=1, params={})) for n in range(4)]
    [None, 5.0, 6.0, 7.0]
    """

    name = "first"
    takes_field = True
    accumulators = (Accumulator.COUNT, Accumulator.FIRST)
    finalizer = Finalizer.VALUE

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        return min(observations, key=lambda o: o.order).value if observations else None
