"""Sum: the exact total."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class Sum(Algebra):
    """The total in whole quanta, in 128 bits, divided once; 0.0 without a value.

    The sum of floats depends on their order; the sum of integers does not.

    >>> stream = [Observation(t, 0, t, 0.1, 10) for t in range(10)]
    >>> [Sum.naive(stream[:n], Reading(at_us=60, scale=100, params={})) for n in (0, 1, 3, 10)]
    [0.0, 0.1, 0.3, 1.0]
    """

    name = "sum"
    takes_field = True
    accumulators = (Accumulator.SUM,)
    finalizer = Finalizer.SUM

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        return float(sum(o.units for o in observations)) / float(reading.scale)
