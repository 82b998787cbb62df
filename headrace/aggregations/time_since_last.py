"""Time since last: how long ago the latest event was."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading


class TimeSinceLast(Algebra):
    """Seconds from the latest event to the moment of reading; null without an event.

    Negative where the state already holds an event later than the moment that it is read at.

    >>> stream = [Observation(t, 0, t, 0.0, 0) for t in (1_000_000, 3_500_000, 2_000_000)]
    >>> [TimeSinceLast.naive(stream[:n], Reading(at_us=6_000_000, scale=1, params={})) for n in range(4)]
    [None, 5.0, 2.5, 2.5]
    """

    name = "time_since_last"
    takes_field = False
    accumulators = (Accumulator.COUNT, Accumulator.LATEST)
    finalizer = Finalizer.SINCE

    @staticmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        if not observations:
            return None
        return float(reading.at_us - max(o.time_us for o in observations)) / 1e6
