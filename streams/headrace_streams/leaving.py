"""The very end of a process: its exit code, which nothing may change any more.

An interpreter that shuts down ends the threads that come to it, and threads of an engine's native code do not survive that: the
process aborts, and its supervisor reads a crash where an error with a code of its own had been. What may not live here: what codes mean.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from headrace_streams.errors import STOPPED, UNFORESEEN


def leave(main: Callable[[], int]) -> NoReturn:
    """Run a program and end the process with its exit code, without shutting the interpreter down.

    Args:
        main: the program; an error that it raises is printed, and is `UNFORESEEN`.
    """
    try:
        code = main()
    except SystemExit as end:  # wrong arguments, or --help
        code = end.code if isinstance(end.code, int) else UNFORESEEN if end.code else STOPPED
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001  (whatever it is, this process is over)
        traceback.print_exc()
        code = UNFORESEEN
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
