"""Starts a group of worker processes, and starts it again when it ends.

    all exited 0                    done
    one made no progress (pulse.py) it is killed, then as with any other end
    one exited for good (errors.py) end the others, stop with its message and its exit code
    anything else, killed included  end the others, wait a little, start the whole group again; it takes the lanes of the old one
                                    at once, for we have seen every process of it exit, but nobody else's
    two ends that nobody foresaw    start a group of one, which may take one record at a time (poison.py), until that was enough
    too often in too short a time   stop with the last exit code

The unit of restart is the group: the engine's processes cannot replace one of theirs. What may not live here: what workers do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from headrace.errors import HeadraceError
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.lanes import fresh_group
from headrace_streams.errors import CAREFUL_ENOUGH, FINAL, STOPPED, UNFORESEEN
from headrace_streams.journal import Journal
from headrace_streams.poison import Place, Suspicion, write_poison
from headrace_streams.pulse import Listener

_POLL_S = 0.05
_ABSENT_S = 5.0  # a supervisor that looks no oftener was asleep itself, and so perhaps were its workers
_REMEMBERED = 64  # dead groups; the lanes of those before them have been silent for long enough


@dataclass(frozen=True, slots=True)
class Start:
    """What one worker process is started with.

    Args:
        worker: its number.
        addresses: of the group; empty for a group of one.
        group: what the tokens of all of the group begin with.
        dead: the same of earlier groups, whose lanes may be taken at once.
        take_over: take lanes from anybody.
        pulse: the pipe through which it shows that it goes on.
        careful: whether to take one record at a time (`headrace_streams.poison`): not, if it is stuck, or in any case.
        stand_in: it is alone in place of several, and ends once it was careful enough.
    """

    worker: int
    addresses: Sequence[str]
    group: bytes
    dead: Sequence[bytes]
    take_over: bool
    pulse: int
    careful: str = ""
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a group may fail.

    Args:
        most: failures within `within_s` before giving up.
        within_s: the time that they are counted over.
        pause_s: before the first restart; doubled with each failure in that time.
        longest_pause_s: between restarts.
        grace_s: for a process to stop as asked, before it is killed.
        wedged_s: without progress, after which a process is killed; 0 for never.
        start_s: the same for a process that has not begun yet: a cold machine compiles for minutes.
    """

    most: int = 5
    within_s: float = 60.0
    pause_s: float = 0.2
    longest_pause_s: float = 5.0
    grace_s: float = 15.0
    wedged_s: float = 30.0
    start_s: float = 300.0


class Supervisor:
    """Keeps one group of worker processes running.

    Args:
        command: makes the command line of a worker.
        workers: how many there are.
        journal: where starts and ends are reported.
        restarts: how often the group may fail.
        environ: the workers' environment; by default this process's.
        errors: where the workers' standard error goes; by default this process's.
        suspicion: finds records that end workers.
        accuse: writes such a record down for all readers.
    """

    def __init__(
        self,
        command: Callable[[Start], list[str]],
        workers: int,
        journal: Journal,
        restarts: Restarts | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        errors: IO[bytes] | None = None,
        suspicion: Suspicion | None = None,
        accuse: Callable[[Place], None] = lambda _: None,
    ) -> None:
        self._command, self._workers, self._journal = command, workers, journal
        self._restarts = restarts or Restarts()
        self._environ = {**(os.environ if environ is None else environ), "RUST_BACKTRACE": "0"}
        self._errors, self._suspicion, self._accuse = errors, suspicion, accuse
        self._group: list[subprocess.Popen[bytes]] = []
        self._listeners: list[Listener] = []
        self._failures: deque[float] = deque()
        self._dead: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._accused: deque[Place] = deque(maxlen=_REMEMBERED)

    @property
    def pids(self) -> list[int]:
        """The processes of the running group."""
        return [process.pid for process in self._group]

    def run(self, stop: threading.Event, *, take_over: bool = False) -> int:
        """Run the group until it is stopped or fails for good; returns its exit code.

        Args:
            stop: set it to stop the group cleanly.
            take_over: the first group takes lanes from anybody.
        """
        while True:
            self._start(take_over)
            code = self._end(self._watch(stop))
            if stop.is_set() and (code < 0 or code == CAREFUL_ENOUGH):
                # A signal came before the process could drain. Nothing is lost by that: the next start takes it up.
                code = STOPPED
            if code == STOPPED or stop.is_set() or code in FINAL:
                self._journal.note("ended", code=code)
                return code
            take_over = False
            if code == CAREFUL_ENOUGH and self._suspicion is not None:
                self._suspicion.enough()
                continue
            self._suspect(code)
            pause_s = self._next_pause()
            self._journal.note("failed", code=code, again_in_s=pause_s)
            if pause_s is None:
                self._journal.note("gave-up", failures=len(self._failures), within_s=self._restarts.within_s)
                return code if code > 0 else 1
            if stop.wait(pause_s):
                return STOPPED

    def _start(self, take_over: bool) -> None:
        group, dead = fresh_group(), tuple(self._dead)
        careful = self._suspicion.careful if self._suspicion is not None else ""
        if self._suspicion is not None:
            self._suspicion.starts()
        # In a group of several, one record at a time is too slow: each would wait for all the others.
        workers = 1 if careful else self._workers
        stand_in = workers < self._workers
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)] if workers > 1 else []
        if stand_in:
            self._journal.note("standing-in", instead_of=self._workers)
        self._listeners = [Listener() for _ in range(workers)]
        self._group = [
            subprocess.Popen(
                self._command(Start(worker, addresses, group, dead, take_over, listener.writing, careful, stand_in)),
                stdin=subprocess.PIPE,
                stderr=self._errors,
                env=self._environ,
                pass_fds=[listener.writing],
                start_new_session=True,  # Ctrl-C on the terminal comes to us; the workers are stopped by us
            )
            for worker, listener in enumerate(self._listeners)
        ]
        for listener in self._listeners:
            listener.handed_over()
        self._dead.append(group)  # it will be when it is read
        self._journal.note("started", pids=self.pids, take_over=take_over, succeeds=[g.hex()[:8] for g in dead[-1:]])

    def _suspect(self, code: int) -> None:
        """After an end that nobody foresaw: was it a record's fault?"""
        if self._suspicion is None or not _nobody_foresaw(code):
            return
        place = self._suspicion.ended(code)
        if place is None:
            return
        self._journal.note(
            "poison", topic_id=place.topic_id, partition=place.partition, offset=place.offset, reason=place.reason
        )
        try:
            self._accuse(place)
        except HeadraceError as error:
            self._journal.note("poison-not-written", message=str(error))
            return
        if not any(place.is_at(other) for other in self._accused):
            self._failures.clear()  # it goes on behind that record, so these were not in vain
        self._accused.append(place)

    def _watch(self, stop: threading.Event) -> int | None:
        """Wait for the first process to fail, or for all to end; None when we were asked to stop."""
        looked_at = time.monotonic()
        while not stop.is_set():
            if time.monotonic() - looked_at > _ABSENT_S:
                for listener in self._listeners:
                    listener.excuse()
            looked_at = time.monotonic()
            self._kill_wedged()
            codes = [process.poll() for process in self._group]
            failed = next((code for code in codes if code not in (None, STOPPED)), None)
            if failed is not None:
                return failed
            if all(code == STOPPED for code in codes):
                return STOPPED
            stop.wait(_POLL_S)
        return None

    def _kill_wedged(self) -> None:
        """Kill a process that makes no progress: no peer can go on without it, and it may not hear a signal."""
        limits = self._restarts
        for process, listener in zip(self._group, self._listeners, strict=True):
            silent_s = listener.silent_s()
            if 0 < (limits.wedged_s if listener.begun else limits.start_s) < silent_s and process.poll() is None:
                self._journal.note("wedged", pid=process.pid, silent_s=round(silent_s, 1), begun=listener.begun)
                process.kill()
                process.wait()

    def _end(self, code: int | None) -> int:
        """See every process of the group exit; returns the exit code of the group."""
        ended = [
            process.poll() for process in self._group
        ]  # by themselves: what ends from here on may have been ended by us
        for process in self._group:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._restarts.grace_s
        for process in self._group:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        codes = [process.returncode for process in self._group]
        # When one process fails its peers fail with it; a code that says why stands above those that only say that.
        final = next((c for c in codes if c in FINAL and c != STOPPED), None)
        cause = next((c for c in (*ended, *codes) if c == UNFORESEEN), None)
        cause = cause or next((c for c in ended if c is not None and _nobody_foresaw(c)), None)
        return final or cause or code or next((c for c in codes if c != STOPPED), STOPPED)

    def _next_pause(self) -> float | None:
        """How long to wait before starting again, or None: it failed too often."""
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - self._restarts.within_s:
            self._failures.popleft()
        if len(self._failures) > self._restarts.most:
            return None
        return min(self._restarts.pause_s * 2.0 ** (len(self._failures) - 1), self._restarts.longest_pause_s)


def _nobody_foresaw(code: int) -> bool:
    """Whether a process ended by a signal, or by an error that has no code of its own."""
    return code < 0 or code == UNFORESEEN


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def worker_command(project: str, role: str, start: Start) -> list[str]:
    """The command line of one worker process."""
    command = [sys.executable, "-m", "headrace_streams", "--project", project, "--role", role, "--child"]
    command += ["--group", start.group.hex(), "--dead", ",".join(group.hex() for group in start.dead)]
    command += ["--pulse", str(start.pulse), *(["--careful", start.careful] if start.careful else [])]
    if start.addresses:
        command += ["--worker", str(start.worker), "--addresses", ",".join(start.addresses)]
    if start.take_over:
        command.append("--take-over")
    if start.stand_in:
        command.append("--stand-in")
    return command


def supervise(
    loaded: LoadedProject,
    role: str = "stream",
    *,
    stop: threading.Event | None = None,
    take_over: bool = False,
    restarts: Restarts | None = None,
) -> int:
    """Keep the feature pipeline or the log writer of a project running, in child processes.

    Args:
        loaded: the project.
        role: ``stream`` or ``log``.
        stop: set it to stop cleanly.
        take_over: claim lanes from whoever owns them.
        restarts: how often it may fail.

    Returns:
        The exit code (`headrace_streams.errors`).
    """
    workers = loaded.settings.workers if role == "stream" else 1

    def command(start: Start) -> list[str]:
        return worker_command(str(loaded.root), role, start)

    restarts = restarts or Restarts(wedged_s=loaded.settings.wedged_s)
    supervisor = Supervisor(
        command, workers, Journal(f"{role}-supervisor"), restarts,
        suspicion=Suspicion(loaded.settings, role),
        accuse=partial(write_poison, loaded.settings),
    )  # fmt: skip
    return supervisor.run(stop or threading.Event(), take_over=take_over)
