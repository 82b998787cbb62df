"""How long the worker waits for what. What may not live here: waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the worker waits.

    Args:
        answer_s: for an answer of Redis, before the connection counts as lost.
        pause_s: before the first repetition; doubled up to `longest_pause_s`.
        longest_pause_s: between repetitions.
        outage_s: for a lost service to come back, before the worker gives up.
        claim_s: for a lane's silent owner to count as dead.
        waiting: called before each pause, so that a worker that waits does not look like one that stands still.
    """

    answer_s: float = 5.0
    pause_s: float = 0.05
    longest_pause_s: float = 1.0
    outage_s: float = 60.0
    claim_s: float = 8.0
    waiting: Callable[[], None] = lambda: None

    def pauses(self) -> Iterator[float]:
        """The pause before each repetition, without end.

        >>> from itertools import islice
        >>> list(islice(Patience(pause_s=0.25).pauses(), 4))
        [0.25, 0.5, 1.0, 1.0]
        """
        pause_s = self.pause_s
        while True:
            self.waiting()
            yield pause_s
            pause_s = min(2 * pause_s, self.longest_pause_s)
