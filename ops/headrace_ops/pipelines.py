"""The feature pipeline and the log writer in the foreground, as supervised children of this process.

What may not live here: what the pipelines do, and when one of their workers is started again (`headrace_streams`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.loading import LoadedProject, load_project
from headrace_streams.stopping import stopped_by_signals

_POLL_S = 0.2


def run_pipelines(project: str | None, roles: Sequence[str]) -> int:
    """Run the roles until a signal, or until one of them gives up; its exit code, or 0.

    Args:
        project: as in ``-p``.
        roles: ``stream`` and ``log``.
    """
    loaded = load_project(project)
    children: list[Child] = []
    with stopped_by_signals() as stop:
        try:
            children += [_start(loaded, role) for role in roles]
            for child in children:
                sys.stderr.write(f"{child.name}: running; its log is {child.log}\n")
            while not stop.wait(_POLL_S):
                for child in children:
                    if child.returncode is not None:
                        sys.stderr.write(f"{child.name}: ended with code {child.returncode}:\n{child.log_tail(8)}\n")
                        return child.returncode
            return 0
        finally:
            for child in reversed(children):
                child.stop()


def _start(loaded: LoadedProject, role: str) -> Child:
    arguments = ("--project", str(loaded.root), "--role", role, "--supervise")
    return spawn_module(role, "headrace_streams", arguments, log=loaded.settings.run_path / f"{role}.log")
