"""A signal stops a program even while its main thread holds the lock of the very event that says so; its exit code stays what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from headrace_streams.stopping import stopped_by_signals

_PROGRAM = """
import os, signal, time
from headrace_streams.stopping import stopped_by_signals
with stopped_by_signals() as stop:
    with stop._cond:  # as `stop.wait` does
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.05)
    print(stop.wait(10))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_the_middle_of_a_wait_stops_the_program(name: str) -> None:
    command = [sys.executable, "-c", _PROGRAM.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_signals_do_afterwards_what_they_did_before() -> None:
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        with stopped_by_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(10)
            assert not heard.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)


_ABORTS_AT_ITS_END = """
import atexit, os, sys
from headrace_streams.leaving import leave
def main():
    print("said")
    {ends}
atexit.register(os.abort)
leave(main)
"""


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [("return 12", 12, ""), ("raise ValueError('odd')", 1, "ValueError: odd"), ("sys.exit(2)", 2, ""), ("sys.exit('no')", 1, "no")],
)  # fmt: skip
def test_what_happens_while_the_interpreter_shuts_down_does_not_change_the_exit_code(
    ends: str, code: int, told: str
) -> None:
    """Of a group of several that failed, three in four processes aborted there, and an error with its own code was a crash."""
    command = [sys.executable, "-c", _ABORTS_AT_ITS_END.format(ends=ends)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (code, "said\n")
    assert told in done.stderr
