"""Notices that this machine's clock was set. Nothing depends on it; whoever reads times of receipt wants to know.

What may not live here: deciding anything by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_STEP_S = 1.0


class Clock:
    """The wall clock, held against one that only goes forward.

    Args:
        wall: seconds since 1970.
        steady: seconds of a clock that nobody sets.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._between = wall() - steady()
        self.steps = 0

    def look(self) -> float | None:
        """By how many seconds it was set since the last look; None if it was not."""
        between = self._wall() - self._steady()
        step, self._between = between - self._between, between
        if abs(step) < _STEP_S:
            return None
        self.steps += 1
        return step
