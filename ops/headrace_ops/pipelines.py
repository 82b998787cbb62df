"""The feature pipeline and the log writer in the foreground: children that are started again when they die.

What may not live here: what the pipelines do (`headrace_streams`).
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.loading import load_project

_POLL_S = 0.2
_RESTARTS = 5
_WHILE_S = 60.0
# A worker that ends with one of these has said why and would only say it again: wrong use, or a missing service.
_FINAL = (0, 2, 3)


def run_pipelines(project: str | None, roles: Sequence[str]) -> int:
    """Run the roles until a signal; the exit code of the first that gave up, or 0.

    Args:
        project: as in ``-p``.
        roles: ``stream`` and ``log``.
    """
    loaded = load_project(project)
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    keepers = [_Keeper(role, loaded.root, loaded.settings.run_path / f"{role}.log") for role in roles]
    try:
        while not stop.wait(_POLL_S):
            for keeper in keepers:
                code = keeper.look()
                if code is not None:
                    return code
        return 0
    finally:
        for keeper in reversed(keepers):
            keeper.child.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Keeper:
    """One role's child, and its restarts."""

    def __init__(self, role: str, root: Path, log: Path) -> None:
        self._role, self._root, self._log = role, root, log
        self._deaths: list[float] = []
        self.child = self._start()

    def look(self) -> int | None:
        """The exit code if the role gave up; None while it runs."""
        code = self.child.returncode
        if code is None:
            return None
        tail = self.child.log_tail(8)
        if code in _FINAL:
            sys.stderr.write(f"{self._role}: ended with code {code}; its log {self._log} ends:\n{tail}\n")
            return code
        now = time.monotonic()
        self._deaths = [moment for moment in self._deaths if now - moment < _WHILE_S] + [now]
        if len(self._deaths) > _RESTARTS:
            sys.stderr.write(
                f"{self._role}: ended {len(self._deaths)} times within a minute; its log {self._log} ends:\n{tail}\n"
            )
            return 1
        sys.stderr.write(f"{self._role}: ended with code {code}; starting it again\n")
        self.child = self._start()
        return None

    def _start(self) -> Child:
        arguments = ("--project", str(self._root), "--role", self._role)
        return spawn_module(self._role, "headrace_streams", arguments, log=self._log)
