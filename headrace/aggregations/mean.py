"""Mean: the exact total over the number of values."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class Mean(Algebra):
    """The total in whole quanta, divided once by (number of values x quanta per one); null without a value.

    One division, so three payments of 0.10 have a mean of exactly 0.1.

    >>> stream = [Observation(t, 0, t, v, round(v * 100)) for t, v in enumerate((0.1, 0.1, 0.1, 2.0))]
    >>> [Mean.naive(stream[:n], Reading(at_us=60, scale=100, params={})) for n in range(5)]
    [None, 0.1, 0.1, 0.1, 0.575]
    """

    name = "mean"
    takes_field = True
    accumulators = (Accumulator.COUNT, Accumulator.SUM)
    finalizer = Finalizer.MEAN

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        if not observations:
            return None
        return float(sum(o.units for o in observations)) / float(len(observations) * reading.scale)
