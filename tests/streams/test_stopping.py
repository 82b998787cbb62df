"""A signal stops a program even while its main thread holds the lock of the very event that says so."""

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
