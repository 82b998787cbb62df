"""Ends a child when its parent is gone, however the parent ended.

The parent keeps the writing end of a pipe that is the child's standard input. When the parent exits, is killed or closes it, the
child reads the end of file and stops as if it were asked to. What may not live here: signals' meaning.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

_GRACE_S = 20.0
_STANDARD_INPUT = 0


def hold(stop: Callable[[], None]) -> None:
    """Watch standard input; at its end call `stop`, and some time later end the process whatever it does."""

    def watch() -> None:
        # Not sys.stdin: a thread that waits in it holds its lock, and the interpreter aborts when it ends meanwhile.
        while os.read(_STANDARD_INPUT, 64):
            pass
        stop()
        time.sleep(_GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
