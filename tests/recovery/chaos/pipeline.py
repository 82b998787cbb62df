"""The pipeline under test: its own processes, started as an operator would, and what they wrote into their journals.

What may not live here: what is done to them, what must come out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import redis

from headrace.errors import ServiceUnavailable
from headrace_ops.processes import Child, spawn_module
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import online
from headrace_schemas.stores.log import event_log

PATIENCE_S = 120.0
_Found = TypeVar("_Found")


class Pipeline:
    """The feature pipeline and the log writer, each under its supervisor.

    Args:
        root: the project.
        kafka: bootstrap servers.
        url: of the store.
        log_path: where the log is.
        workers: processes of the feature pipeline.
    """

    def __init__(self, root: Path, kafka: str, url: str, log_path: Path, workers: int) -> None:
        self._root, self.workers = root, workers
        mine = {
            "HEADRACE_KAFKA": kafka,
            "HEADRACE_REDIS": url,
            "HEADRACE_LOG_PATH": str(log_path),
            "HEADRACE_RUN_PATH": str(root / "run"),
            "HEADRACE_WEDGED_S": "8",
            "HEADRACE_CACHE_KB": "64",  # small, so that states are evicted and read again
        }
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")} | mine
        self.loaded: LoadedProject = load_project(root, environ=mine)
        self._url = url
        self._client: redis.Redis | None = None
        self._starts: Counter[str] = Counter()
        self.children: dict[str, Child] = {}
        self.ends: Counter[str] = Counter()
        """How supervisors ended that had to be started again: role and exit code."""

    def start(self, role: str, *options: str) -> None:
        """Start the supervisor of a role."""
        self._starts[role] += 1
        self.children[role] = spawn_module(
            f"chaos {role}", "headrace_streams",
            ["--project", str(self._root), "--role", role, "--supervise", *options],
            log=self._root / f"{role}-{self._starts[role]}.log",
            env={**self._environ, "HEADRACE_WORKERS": str(self.workers)},
        )  # fmt: skip

    def keep(self) -> None:
        """Start again what has ended, as a service manager does."""
        for role, child in list(self.children.items()):
            if child.returncode is not None:
                self.ends[f"{role} {child.returncode}"] += 1
                self.start(role)

    def stop(self) -> None:
        """Stop everything, cleanly where that is possible; no process of it stays."""
        workers = {
            pid
            for role in ("stream", "log")
            for note in self.notes(role, "started", newest=False)
            for pid in note["pids"]
        }
        for pid in workers:
            if _is_alive(pid):
                self.signal(pid, signal.SIGCONT)
        for child in self.children.values():
            child.stop(grace_s=60.0)
        for pid in workers:
            if _is_alive(pid):
                self.signal(pid, signal.SIGKILL)
        if self._client is not None:
            self._client.close()

    def stop_role(self, role: str) -> int:
        """Stop one supervisor cleanly; its exit code."""
        return self.children.pop(role).stop(grace_s=60.0)

    def notes(self, role: str, event: str, *, newest: bool = True) -> list[dict[str, Any]]:
        """Lines of the journals of a role, by default of its newest supervisor."""
        logs = [self.children[role].log] if newest else sorted(self._root.glob(f"{role}-*.log"))
        found = []
        for log in logs:
            for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
                if line.startswith("{"):
                    with contextlib.suppress(ValueError):
                        note = json.loads(line)
                        if note.get("event") == event:
                            found.append(note)
        return found

    def pids(self, role: str) -> list[int]:
        """The processes of a role's newest group that are alive."""
        started = self.notes(role, "started")
        return [pid for pid in started[-1]["pids"] if _is_alive(pid)] if started else []

    def claimed_by(self) -> list[int] | None:
        """The processes of the feature pipeline's newest group, once all of them own their lanes and are alive."""
        started, claimed = self.notes("stream", "started"), self.notes("stream", "claimed")
        shards = {note["shard"] for note in claimed if started and note["at"] > started[-1]["at"]}
        return found if len(shards) == self.workers and len(found := self.pids("stream")) == self.workers else None

    def wait_pids(self, role: str, count: int) -> list[int]:
        """The same, once there are so many."""
        return self.until(lambda: found if len(found := self.pids(role)) >= count else None, f"{count} of {role}")

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process that may be gone by now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def until(self, found: Callable[[], _Found | None], what: str, patience_s: float = PATIENCE_S) -> _Found:
        """Wait for something, and keep the programs running meanwhile."""
        deadline = time.monotonic() + patience_s
        while True:
            self.keep()
            result = found()
            if result is not None and result is not False:
                return result
            if time.monotonic() > deadline:
                tails = "\n".join(f"{role}:\n{child.log_tail(25)}" for role, child in self.children.items())
                raise AssertionError(f"{what}: not within {patience_s:g} s\n{tails}")
            time.sleep(0.02)

    # --- how far it is ---------------------------------------------------------------------------------------------

    def committed(self) -> dict[int, int] | None:
        """By partition, the offset below which every view is committed; None while the store does not tell."""
        try:
            if self._client is None:
                self._client = online.connect(self._url, patience_s=0.0)
            reached = [
                online.progress(self._client, self.loaded.settings.namespace, view)
                for view in self.loaded.project.views
            ]
        except (redis.RedisError, redis.RedisClusterException, ServiceUnavailable, OSError):
            if self._client is not None:
                with contextlib.suppress(Exception):
                    self._client.close()
            self._client = None
            return None
        partitions = {partition for positions in reached for partition in positions}
        return {p: min(positions.get(p, 0) for positions in reached) for p in partitions}

    def lag(self, ends: Mapping[int, int]) -> int | None:
        """How many acknowledged records are not committed; None while the store does not tell."""
        reached = self.committed()
        return None if reached is None else sum(max(0, end - reached.get(p, 0)) for p, end in ends.items())

    def wait_committed(self, ends: Mapping[int, int], patience_s: float = PATIENCE_S) -> None:
        """Until every view has committed these positions."""
        self.until(lambda: self.lag(ends) == 0, f"{dict(ends)} committed", patience_s)

    def wait_logged(self, ends: Mapping[int, int]) -> None:
        """Until the log covers these positions."""
        log = event_log(self.loaded.settings, self.loaded.project.event("paid"))

        def done() -> bool:
            reached = log.watermark()
            return all(reached.get(partition, 0) >= end for partition, end in ends.items())

        self.until(done, f"{dict(ends)} in the log")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
