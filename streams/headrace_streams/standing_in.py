"""One process in place of a group of several: it takes one record at a time, and ends when that was enough.

    so many records went well, or so much time has passed     what ended the group was among the first
    nothing came for a while                                  there is no more

In a group of several, one record at a time would make each process wait for all the others. What may not live here: taking one
record at a time (`headrace_streams.poison`), starting the whole group again (`headrace_streams.supervisor`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace_streams.flow import Poller
from headrace_streams.poison import Handling

_MOST_S = 30.0  # the whole group is faster; what was not found until then stands the group still again
_QUIET_S = 5.0


class StandIn:
    """A careful source that stops the process when it was careful for long enough.

    Args:
        source: one record at a time.
        handling: counts them.
        stop: set when it is enough; what was read is committed, the lanes are given back.
        clock: monotonic seconds.

    Attributes:
        reason: why it is enough; empty until then.
    """

    def __init__(
        self, source: Poller, handling: Handling, stop: threading.Event, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source, self._handling, self._stop, self._clock = source, handling, stop, clock
        self._began_at = self._heard_at = clock()
        self.pause_ms = source.pause_ms
        self.reason = ""

    def poll(self) -> Sequence[Any]:
        """What the source has."""
        items, now = self._source.poll(), self._clock()
        if items:
            self._heard_at = now
        if self._handling.over:
            self.reason = "so many records went well one by one"
        elif now - self._began_at > _MOST_S:
            self.reason = f"{_MOST_S:g} s went well"
        elif now - self._heard_at > _QUIET_S:
            self.reason = f"nothing came for {_QUIET_S:g} s"
        if self.reason:
            self._stop.set()
        return items

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()
