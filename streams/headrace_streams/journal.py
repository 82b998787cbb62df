"""The worker's diary: one JSON line on stderr per change of state, for people and for log collectors.

    {"at": "2026-01-05T08:00:00.000Z", "role": "stream", "event": "caught-up", "lag": 0}

What may not live here: metrics, anything that is written per batch.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

_one_line_at_a_time = threading.Lock()  # journals of one process share standard error


class Journal:
    """Writes lines, each in one piece whichever thread speaks.

    Args:
        role: which program speaks.
        out: where to; standard error by default, as it is at the time of writing.
        clock: seconds since the epoch.
    """

    def __init__(self, role: str, out: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._role, self._out, self._clock = role, out, clock

    def note(self, event: str, **facts: object) -> None:
        """Write one line.

        Args:
            event: what happened, in a word or two with dashes.
            facts: what goes with it; anything that is not JSON is written as text.
        """
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"at": at, "role": self._role, "event": event, **facts}, default=str)
        out = self._out or sys.stderr
        with _one_line_at_a_time:
            out.write(line + "\n")  # `print` writes the end of the line by itself: another process could come between
            out.flush()
