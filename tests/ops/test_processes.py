"""Child processes end with their parent, however the parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace_ops.processes import Guard, ProcessError, spawn, spawn_module

GUARDS: list[Guard] = ["kernel", "watcher"] if sys.platform == "linux" else ["watcher"]

PARENT = """
import sys, time
from pathlib import Path
from headrace_ops.processes import spawn
child = spawn("sleeper", ["sleep", "600"], log=Path(sys.argv[1]), guard=sys.argv[2])
print(child.pid, flush=True)
time.sleep(float(sys.argv[3]))
"""


def gone(pid: int) -> bool:
    """Whether no process of this id runs; one that ended and was not waited for counts as gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.strip().startswith("Z")


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def parent(log: Path, guard: Guard, seconds: float) -> tuple[subprocess.Popen[str], int]:
    """A program that has one child, and the child's pid."""
    arguments = [sys.executable, "-c", PARENT, str(log), guard, str(seconds)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        return process, int(output.readline())


@pytest.mark.parametrize("guard", GUARDS)
def test_child_ends_when_its_parent_is_killed(tmp_path: Path, guard: Guard) -> None:
    process, child = parent(tmp_path / "log", guard, 600)
    assert not gone(child)
    process.kill()
    process.wait()
    assert within(5, lambda: gone(child))


@pytest.mark.parametrize("guard", GUARDS)
def test_child_ends_when_its_parent_ends_without_stopping_it(tmp_path: Path, guard: Guard) -> None:
    process, child = parent(tmp_path / "log", guard, 0)
    assert process.wait(10) == 0
    assert within(5, lambda: gone(child))


@pytest.mark.parametrize("guard", GUARDS)
def test_child_outlives_the_thread_that_started_it(tmp_path: Path, guard: Guard) -> None:
    """The kernel's tie is to a thread, so a child that was started from a short-lived one would die with it."""
    children = []
    start = lambda: children.append(spawn("sleeper", ["sleep", "600"], log=tmp_path / "log", guard=guard))  # noqa: E731
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = children
    time.sleep(0.3)
    assert child.alive()
    child.kill()


def test_grandchild_ends_when_the_first_of_the_line_is_killed(tmp_path: Path) -> None:
    line = PARENT.replace(
        '["sleep", "600"]', "[sys.executable, '-c', sys.argv[4], sys.argv[1] + '2', sys.argv[2], '600']"
    )
    arguments = [sys.executable, "-c", line, str(tmp_path / "log"), GUARDS[0], "600", PARENT]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        child = int(output.readline())
    assert within(10, lambda: (tmp_path / "log").read_text().strip().isdigit())
    grandchild = int((tmp_path / "log").read_text())
    assert not gone(grandchild)
    process.kill()
    process.wait()
    assert within(5, lambda: gone(child) and gone(grandchild))


def test_stop_asks_first_and_returns_the_programs_own_exit_code(tmp_path: Path) -> None:
    polite = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
    child = spawn("polite", [sys.executable, "-c", polite], log=tmp_path / "log")
    assert within(10, lambda: child.log_tail() == "ready")
    assert child.stop() == 7
    assert not child.alive()
    assert child.stop() == 7


def test_stop_kills_a_program_that_does_not_listen_and_its_own_children(tmp_path: Path) -> None:
    deaf = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    child = spawn("deaf", [sys.executable, "-c", deaf], log=tmp_path / "log")
    assert within(10, lambda: child.log_tail().isdigit())
    assert child.stop(grace_s=0.2) == -signal.SIGKILL
    assert within(5, lambda: gone(int(child.log_tail())))


def test_a_childs_pid_is_the_programs_own(tmp_path: Path) -> None:
    child = spawn("self", ["sh", "-c", "echo $$"], log=tmp_path / "log")
    assert child.wait(10) == 0
    assert child.log_tail() == str(child.pid)


def test_a_child_is_in_a_process_group_of_its_own(tmp_path: Path) -> None:
    """A Ctrl-C in the terminal goes to the foreground group, and must reach the parent alone."""
    child = spawn("sleeper", ["sleep", "600"], log=tmp_path / "log")
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    child.kill()


def test_environment_is_added_to_and_taken_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("TAKEN", "taken")
    script = 'echo "$KEPT/$GIVEN/${TAKEN-away}/$PWD"'
    child = spawn(
        "echo", ["sh", "-c", script], log=tmp_path / "a" / "log", cwd=tmp_path, env={"GIVEN": "given", "TAKEN": None}
    )
    assert child.wait(10) == 0
    assert child.log_tail() == f"kept/given/away/{tmp_path}"


def test_a_module_runs_with_this_interpreter_and_an_unbuffered_log(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text("import sys, time; print(sys.executable, *sys.argv[1:]); time.sleep(600)")
    child = spawn_module("told", "told", ["one", "two"], log=tmp_path / "log", cwd=tmp_path)
    assert within(10, lambda: child.log_tail() == f"{sys.executable} one two")
    child.kill()


def test_a_program_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        ProcessError, match=r"ghost: required a program that can be run, but `no-such-program` is not one"
    ):
        spawn("ghost", ["no-such-program"], log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProcessError, match="sleeper: cannot start `sleep` with log .*file/log"):
        spawn("sleeper", ["sleep", "600"], log=tmp_path / "file" / "log")


def test_waiting_too_long_says_who_and_where_to_look(tmp_path: Path) -> None:
    child = spawn("sleeper", ["sleep", "600"], log=tmp_path / "log")
    with pytest.raises(ProcessError, match=rf"sleeper \(pid {child.pid}\): required to end within 0.1 s.*log"):
        child.wait(0.1)
    child.kill()


def test_log_tail_is_the_last_lines(tmp_path: Path) -> None:
    child = spawn("counter", ["sh", "-c", "for i in 1 2 3 4; do echo $i; done"], log=tmp_path / "log")
    child.wait(10)
    assert child.log_tail(2) == "3\n4"
