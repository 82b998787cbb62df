"""Child processes: programs that run beside this one, write a log, and end with it at the latest.

Invariants: a child never outlives this process, also when this process is killed with SIGKILL; its pid is the
program's own; it is in a process group of its own, so a Ctrl-C in the terminal reaches this process alone, which then
stops its children in the order it wants. What may not live here: what any of the programs are.

On Linux the kernel ends the children. It does so when the *thread* that started a child ends, therefore all children
are started by one thread that lives as long as this process (`_Starter`). Elsewhere a watcher process does it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

from headrace.errors import HeadraceError

Guard = Literal["kernel", "watcher"]
"""Who ends the children of a process that was killed."""

DEFAULT_GUARD: Guard = "kernel" if sys.platform == "linux" else "watcher"

_HERE = Path(__file__).parent


class ProcessError(HeadraceError):
    """A child process could not be started, or ended when it should not have."""


class Child:
    """A running program. Made by `spawn`.

    Attributes:
        name: what it is called in messages.
        log: the file that receives its standard output and error.
    """

    def __init__(self, name: str, log: Path, process: subprocess.Popen[bytes], forget: Callable[[int], None]) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._forget = forget

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the program runs."""
        return self._process.poll()

    def alive(self) -> bool:
        """Whether the program still runs."""
        return self.returncode is None

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the program's own end and return its exit code.

        Raises:
            ProcessError: it still runs after `timeout_s`.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(
                f"{self.name} (pid {self.pid}): required to end within {timeout_s} s, but it still runs; see {self.log}"
            ) from error
        self._forget(self.pid)
        return code

    def stop(self, *, grace_s: float = 10.0) -> int:
        """Ask the program to end (SIGTERM); after `grace_s` kill it and its process group (SIGKILL). Returns the exit code.

        Stopping a program that has ended is allowed, and only returns its exit code.
        """
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                return self.kill()
        return self.wait()

    def kill(self) -> int:
        """End the program and its process group at once (SIGKILL) and return the exit code."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the program wrote."""
        try:
            text = self.log.read_bytes()[-64 * 1024 :].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def spawn(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    guard: Guard = DEFAULT_GUARD,
) -> Child:
    """Start a program that ends with this process at the latest.

    Args:
        name: what it is called in messages.
        argv: the program and its arguments; a bare name is looked up on PATH.
        log: receives standard output and error; appended to, its folder is made.
        cwd: the program's working directory; by default this process's.
        env: variables set on top of this process's environment; None takes one away.
        guard: who ends the program when this process is killed; the default suits the platform.

    Raises:
        ProcessError: the log cannot be written, or the program cannot be started.
    """
    if shutil.which(argv[0]) is None:
        raise ProcessError(f"{name}: required a program that can be run, but `{argv[0]}` is not one; is it installed?")
    try:
        return _starter().run(lambda: _start(name, [str(part) for part in argv], log, cwd, env, _GUARDS[guard]))
    except OSError as error:
        raise ProcessError(f"{name}: cannot start `{argv[0]}` with log {log}: {error}") from error


def spawn_module(
    name: str,
    module: str,
    arguments: Sequence[str] = (),
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    guard: Guard = DEFAULT_GUARD,
) -> Child:
    """Start `python -m module arguments…` with this process's interpreter; otherwise as `spawn`.

    The module's output is unbuffered, so that its log is complete whenever it is read.
    """
    return spawn(
        name,
        [sys.executable, "-m", module, *arguments],
        log=log,
        cwd=cwd,
        env={"PYTHONUNBUFFERED": "1", **(env or {})},
        guard=guard,
    )


def _start(
    name: str, argv: list[str], log: Path, cwd: Path | None, env: Mapping[str, str | None] | None, guard: _Guard
) -> Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    how, descriptors = guard.tie()
    launcher = [sys.executable, "-I", "-S", str(_HERE / "launcher.py"), how, str(os.getpid())]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*launcher, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None},
            pass_fds=descriptors,
            process_group=0,
        )
    return Child(name, log, process, guard.forget)


class _Guard(Protocol):
    def tie(self) -> tuple[str, tuple[int, ...]]:
        """The launcher's first argument, and the descriptors that it needs."""

    def forget(self, pid: int) -> None:
        """The child has ended; its pid may come to mean another process."""


class _Kernel:
    def tie(self) -> tuple[str, tuple[int, ...]]:
        return "kernel", ()

    def forget(self, pid: int) -> None:
        pass


class _Watcher:
    def __init__(self) -> None:
        self._pipe: int | None = None

    def tie(self) -> tuple[str, tuple[int, ...]]:
        if self._pipe is None:
            reading, self._pipe = os.pipe()
            # Not by `spawn`: it has to outlive this process, by the moment that it needs. Nobody waits for it.
            watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_HERE / "watcher.py")], stdin=reading, process_group=0
            )
            watcher.returncode = 0
            os.close(reading)
        return str(self._pipe), (self._pipe,)

    def forget(self, pid: int) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, f"-{pid}\n".encode())


_GUARDS: dict[Guard, _Guard] = {"kernel": _Kernel(), "watcher": _Watcher()}


class _Starter:
    """The thread that starts all children of this process, and that lives as long as it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="headrace-processes", daemon=True).start()

    def run(self, start: Callable[[], Child]) -> Child:
        future: Future[Child] = Future()
        self._work.put((start, future))
        return future.result()

    def _run(self) -> None:
        while True:
            start, future = self._work.get()
            try:
                future.set_result(start())
            except BaseException as error:  # noqa: BLE001  (it belongs to the caller's thread)
                future.set_exception(error)


_starting: _Starter | None = None
_lock = threading.Lock()


def _starter() -> _Starter:
    global _starting
    with _lock:
        if _starting is None:
            _starting = _Starter()
        return _starting


def _forget_after_fork() -> None:
    """A forked copy of this process has no starter thread, and children of its own to come."""
    global _starting, _lock
    _starting, _lock = None, threading.Lock()
    _GUARDS["watcher"] = _Watcher()


os.register_at_fork(after_in_child=_forget_after_fork)
