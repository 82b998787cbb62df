"""One process of a user compiles at a time; who is stopped keeps nobody waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.kernel.compiling import compiling_alone

_HOLD = """
import sys
from headrace.kernel.compiling import compiling_alone
with compiling_alone(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _holder(what: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.communicate()


def test_one_process_at_a_time() -> None:
    what = f"test-{os.getpid()}-a"
    with (
        _holder(what) as first,
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, what], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as second,
    ):
        time.sleep(1.0)  # it is given the chance to be wrong
        assert second.poll() is None
        first.communicate()
        told, _ = second.communicate(timeout=60)
        assert told == "held\n"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system does not tell which processes are stopped")
@pytest.mark.timeout(60)
def test_a_stopped_process_keeps_nobody_waiting() -> None:
    what = f"test-{os.getpid()}-b"
    with _holder(what) as first:
        first.send_signal(signal.SIGSTOP)
        with compiling_alone(what):
            assert first.poll() is None
