"""The launcher: the first moments of every child process, before it becomes the program it is to run.

It runs as `python -I -S launcher.py HOW PARENT PROGRAM ARG…`, ties its life to the parent's, and replaces itself by
PROGRAM, so that the child's pid is the program's. HOW is one of

- `kernel`: Linux kills the child when the parent's thread that started it ends (prctl, PR_SET_PDEATHSIG);
- a file descriptor: the child writes its pid there, to the watcher (`watcher.py`), which kills it when the parent ends.

In both cases a parent that ended before the tie was made is noticed by the changed parent pid. What may not live here:
an import outside the standard library, for it runs without site-packages and is paid for by each child (about 20 ms).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the program; it returns only by an exception."""
    how, parent, *command = arguments
    if how == "kernel":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    else:
        os.write(int(how), f"+{os.getpid()}\n".encode())
        os.close(int(how))
    if os.getppid() != int(parent):
        sys.exit("the parent ended while its child was starting")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
