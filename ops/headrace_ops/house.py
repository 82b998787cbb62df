"""A project with everything that it needs, running as child processes of this one: stack, pipelines, service.

Invariants: every child ends with this process at the latest, and is stopped in the reverse order of its start; each run has a
directory of its own, so that runs never meet. What may not live here: what a run is for (`demo/`, `dev.py`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import ConfigError, HeadraceError
from headrace_ops.embedded import EmbeddedStack
from headrace_ops.processes import Child, ProcessError, spawn_module
from headrace_schemas.loading import LoadedProject, load_project

HOME = ".headrace"
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Run:
    """One run's own directory, namespace and port.

    Attributes:
        directory: holds the log, the registry, the children's logs, reports.
        namespace: prefix of its topics and keys.
        port: of its service.
    """

    directory: Path
    namespace: str
    port: int

    @classmethod
    def new(cls, kind: str, project: str, *, port: int | None = None, home: Path | None = None) -> Run:
        """A run beside all earlier ones.

        Args:
            kind: ``demo`` or ``dev``; names the parent directory.
            project: the project's name.
            port: the service's port if it is free, else any free one; None for any.
            home: where runs lie; by default ``.headrace`` in the working directory.

        Raises:
            ConfigError: the directory cannot be made.
        """
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        directory = (home or Path.cwd() / HOME) / kind / name
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(
                f"{directory}: a run needs a directory that can be written, but {error.strerror or error}; "
                f"run the command where you may write, or mend the permissions"
            ) from error
        return cls(directory, f"{project}-{name}", port if port is not None and is_free(port) else free_port())


class House:
    """A project's children.

    Args:
        root: the project's directory.
        run: this run's own directory, namespace and port.
        environ: variables to pass on; by default this process's.
    """

    def __init__(self, root: Path, run: Run, environ: Mapping[str, str] = os.environ) -> None:
        self.root, self.run = root, run
        self._stack = EmbeddedStack(run.directory / "stack")
        self._children: dict[str, Child] = {}
        self._compilers: list[Child] = []
        self._follower: threading.Thread | None = None
        self._stopped = threading.Event()
        self._failure: str | None = None
        own = {name for name in environ if name.startswith("HEADRACE_") and not name.startswith("HEADRACE_TEST_")}
        self._inherited = {name: value for name, value in environ.items() if name not in own}
        self.variables: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://{_HOST}:{self.run.port}"

    def start_stack(self) -> LoadedProject:
        """Start the broker and the store, and load the project with their addresses.

        Raises:
            ServiceUnavailable: a server is not installed or does not come up.
        """
        addresses = self._stack.start()
        directory = self.run.directory
        self.variables = {
            "HEADRACE_KAFKA": addresses.kafka,
            "HEADRACE_REDIS": addresses.redis,
            "HEADRACE_NAMESPACE": self.run.namespace,
            "HEADRACE_LOG_PATH": str(directory / "log"),
            "HEADRACE_REGISTRY_PATH": str(directory / "registry"),
            "HEADRACE_RUN_PATH": str(directory / "run"),
            "HEADRACE_HOST": _HOST,
            "HEADRACE_PORT": str(self.run.port),
        }
        return load_project(self.root, {**self._inherited, **self.variables})

    def start_pipelines(self) -> None:
        """Start the log writer at once, and the feature pipeline as soon as the kernel is compiled.

        The first use of an installation compiles for some seconds and keeps the result. It happens in programs of its own, what
        is needed first before the rest: on a small machine, programs that compile side by side only delay each other.
        """
        self._start_role("log")
        folding = self._compile("folding")
        self._compile("cache")

        def follow() -> None:
            try:
                if folding.wait() == 0 and not self._stopped.is_set():
                    self._start_role("stream")
                    self._compile("reading")
                else:
                    self._failure = f"compile: the kernel must compile, but it did not; see {folding.log}"
            except HeadraceError as error:
                self._failure = str(error)

        self._follower = threading.Thread(target=follow, name="headrace-pipelines", daemon=True)
        self._follower.start()

    def start_service(self) -> None:
        """Start the inference service."""
        self._start("serve", "headrace_serving", ("--project", str(self.root), "--port", str(self.run.port)))

    def check(self) -> None:
        """Make sure that all children run.

        Raises:
            ProcessError: one has ended; the message holds its last lines.
        """
        if self._failure is not None:
            raise ProcessError(self._failure)
        for child in list(self._children.values()):
            if not child.alive():
                raise ProcessError(
                    f"{child.name}: it must run, but it ended with code {child.returncode}; its log {child.log} ends:\n"
                    f"{child.log_tail(12)}"
                )
        for server in (self._stack.broker, self._stack.redis):
            if not server.alive():
                raise ProcessError(f"embedded {server.name}: it must run, but it ended; see {server.log}")

    def stop(self) -> None:
        """Stop all children, the last started first."""
        self._stopped.set()
        if self._follower is not None:
            for compiler in self._compilers:
                compiler.kill()
            self._follower.join()
            for compiler in self._compilers:  # one may have been started meanwhile
                compiler.kill()
        for child in reversed(list(self._children.values())):
            with contextlib.suppress(HeadraceError):
                child.stop()
        self._children.clear()
        self._stack.stop()

    def _compile(self, part: str) -> Child:
        log = self.run.directory / "logs" / f"compile-{part}.log"
        compiler = spawn_module(f"compile {part}", "headrace_ops.warming", [part], log=log)
        self._compilers.append(compiler)
        return compiler

    def _start_role(self, role: str) -> None:
        self._start(role, "headrace_streams", ("--project", str(self.root), "--role", role, "--supervise"))

    def _start(self, name: str, module: str, arguments: tuple[str, ...]) -> None:
        # The run's settings are the children's environment; whatever else the user has set is not theirs.
        blanks: dict[str, str | None] = {key: None for key in os.environ if key.startswith("HEADRACE_")}
        log = self.run.directory / "logs" / f"{name}.log"
        self._children[name] = spawn_module(name, module, arguments, log=log, env={**blanks, **self.variables})


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
