"""How a worker shows its supervisor that it goes on: a byte through a pipe whenever its source and its sink have both moved.

It comes from the work itself, never from a thread beside it: a frozen process, a dead lock, an endless loop or an engine that stands
still because a peer is frozen all fall silent. Who waits for a service that is away says so by beating while it waits. What may not
live here: what the supervisor makes of silence.
"""

from __future__ import annotations

import contextlib
import os
import time

EVERY_S = 0.5


class Pulse:
    """The worker's end of the pipe.

    Args:
        descriptor: of the pipe; without one nobody listens.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._source = False
        self._beat_at = float("-inf")
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    def source_moved(self) -> None:
        """The source was asked for what it has."""
        self._source = True

    def sink_moved(self) -> None:
        """Items, or a tick, came to their end."""
        if self._source:
            self.beat()

    def beat(self) -> None:
        """Say it now; also while waiting for a service that is away."""
        now = time.monotonic()
        if self._descriptor is None or now - self._beat_at < EVERY_S:
            return
        self._beat_at, self._source = now, False
        with contextlib.suppress(
            OSError
        ):  # a full pipe says enough, and a supervisor that is gone ends us by other means
            os.write(self._descriptor, b".")


class Listener:
    """The supervisor's end of the pipe.

    Attributes:
        writing: the worker's end; closed here once the worker has it.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._heard_at = time.monotonic()
        self.begun = False

    def handed_over(self) -> None:
        """The worker has its end."""
        os.close(self.writing)

    def silent_s(self) -> float:
        """How long nothing has been heard."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 4096):
                self.begun, self._heard_at = True, time.monotonic()
        return time.monotonic() - self._heard_at

    def excuse(self) -> None:
        """Count from now on: it was we who did not listen."""
        self._heard_at = time.monotonic()

    def close(self) -> None:
        """Listen no more."""
        os.close(self._reading)
