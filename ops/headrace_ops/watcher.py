"""The watcher: one small process beside a parent, which kills the parent's children once the parent has ended.

It is for systems whose kernel does not do that (macOS). Its standard input is a pipe that the parent holds open; lines
`+PID` and `-PID` say which children live. The end of the pipe means that the parent has ended, however that happened.
What may not live here: an import outside the standard library, for it runs without site-packages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def main(lines: Iterable[str]) -> None:
    """Follow the parent's children until the lines end, then kill those that are left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    for line in lines:
        pid = int(line[1:])
        if line[0] == "+":
            children.add(pid)
        else:
            children.discard(pid)
    for pid in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin)
