"""An embedded server: one shipped binary as a child process on one loopback port.

Invariant: after `start` the server that answers on the port is the process that was started, not a stranger that took
the port in between. What may not live here: what is particular to the broker or to the store (`broker.py`, `store.py`).
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Protocol

from headrace.errors import ServiceUnavailable
from headrace_ops.processes import Child, spawn

HOST = "127.0.0.1"
_ATTEMPTS = 5
_POLL_S = 0.01


class Program(Protocol):
    """What is particular to one kind of server."""

    name: str
    """What it is called in messages and in its log's file name."""

    def command(self, port: int, directory: Path) -> list[str]:
        """The program and its arguments, to listen on `port` of loopback alone.

        Raises:
            ServiceUnavailable: its wheel is not installed.
        """

    def environment(self) -> dict[str, str | None]:
        """Variables to set, and (None) to take away, so that nothing around it changes what it does."""

    def answers(self, port: int, pid: int) -> bool:
        """Whether process `pid` serves `port`; False as well for a refused or broken connection."""

    def address(self, port: int) -> str:
        """How clients name the server."""


class EmbeddedServer:
    """A server that can be started, killed and started again at the same address.

    Args:
        program: the kind of server.
        directory: its working directory and its log `<name>.log`.
    """

    def __init__(self, program: Program, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._child: Child | None = None
        self._port: int | None = None

    @property
    def name(self) -> str:
        """What the server is called in messages."""
        return self._program.name

    @property
    def log(self) -> Path:
        """The file that receives the server's output."""
        return self._directory / f"{self._program.name}.log"

    @property
    def address(self) -> str:
        """How clients name the server; the same for its whole life.

        Raises:
            ServiceUnavailable: it was never started.
        """
        if self._port is None:
            raise ServiceUnavailable(
                f"embedded {self.name}", "no address yet", "it was not started", remedy="call start() first"
            )
        return self._program.address(self._port)

    @property
    def pid(self) -> int:
        """The process id of the server that was started last.

        Raises:
            ServiceUnavailable: it was never started.
        """
        if self._child is None:
            raise ServiceUnavailable(
                f"embedded {self.name}", "no address yet", "it was not started", remedy="call start() first"
            )
        return self._child.pid

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child is not None and self._child.alive()

    def start(self, *, timeout_s: float = 20.0) -> str:
        """Start the server and return its address once it answers. A running server is left as it is.

        The first start chooses a free port, and another if that one is taken meanwhile; later starts keep it.

        Raises:
            ServiceUnavailable: its wheel is missing, it ended at once, or it did not answer within `timeout_s`.
        """
        if self.alive():
            return self.address
        deadline = time.monotonic() + timeout_s
        for attempt in range(1, _ATTEMPTS + 1):
            port = self._port if self._port is not None else free_port()
            child = self._spawn(port)
            if self._await(child, port, deadline):
                self._child, self._port = child, port
                return self.address
            reason = "it ended at once" if not child.alive() else f"no answer within {timeout_s:g} s"
            child.kill()
            if can_bind(port):
                raise self._failure(port, reason, child)
            if attempt == _ATTEMPTS or time.monotonic() >= deadline:
                raise self._failure(port, f"another program listens there, attempt {attempt}", child)
            time.sleep(_POLL_S * 10)
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """End the server; nothing happens if it is not running."""
        if self._child is not None:
            self._child.stop(grace_s=5.0)

    def restart(self, *, timeout_s: float = 20.0) -> None:
        """End the server if it runs, and start it at the same address. It comes back empty.

        Raises:
            ServiceUnavailable: as `start`.
        """
        self.stop()
        self.start(timeout_s=timeout_s)

    def _spawn(self, port: int) -> Child:
        return spawn(
            f"embedded {self.name}",
            self._program.command(port, self._directory),
            log=self.log,
            cwd=self._directory,
            env=self._program.environment(),
        )

    def _await(self, child: Child, port: int, deadline: float) -> bool:
        while child.alive() and time.monotonic() < deadline:
            if self._program.answers(port, child.pid):
                return True
            time.sleep(_POLL_S)
        return False

    def _failure(self, port: int, reason: str, child: Child) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"embedded {self.name}",
            self._program.address(port),
            f"{reason}; exit code {child.returncode}; its last words:\n{child.log_tail(8)}\n",
            remedy=f"see {self.log}",
        )


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def can_bind(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
