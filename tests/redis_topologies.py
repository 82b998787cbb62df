"""Redis as operators run it, for the tests: a primary with a replica under Sentinels, and a cluster of three primaries.

Either from the machine's `redis-server` or from the embedded store's program; both can do both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from headrace_ops.embedded import EmbeddedServer, store
from headrace_ops.embedded.server import HOST, free_port

SERVICE = "headrace"
SLOTS = 16384
_START_S = 20.0


def program_of(kind: str) -> str | None:
    """The server's program: of this machine for ``real``, else the embedded one; None where there is none."""
    return shutil.which("redis-server") if kind == "real" else str(store.binary())


class RedisNode(store.Store):
    """One server with options of its own.

    Args:
        binary: its program.
        directory: of its own; the server may be killed and started again there.
        options: more of its command line.
    """

    def __init__(self, binary: str, directory: Path, *options: str) -> None:
        self._binary, self._options = binary, options
        directory.mkdir(parents=True, exist_ok=True)
        self.server = EmbeddedServer(self, directory)
        self._client: redis.Redis | None = None

    def command(self, port: int, directory: Path) -> list[str]:
        return [self._binary, *super().command(port, directory)[1:], *self._options]

    def start(self) -> Self:
        self.server.start(timeout_s=_START_S)
        return self

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2].partition("/")[0])

    def client(self) -> redis.Redis:
        """Closed with the server."""
        if self._client is None:
            self._client = redis.Redis(HOST, self.port, socket_timeout=5)
        return self._client

    def send(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT."""
        os.kill(self.server.pid, number)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        if self.server.alive():
            self.send(signal.SIGCONT)
            self.server.stop()


class _Sentinel(RedisNode):
    """One Sentinel; it keeps what it learns in its configuration file."""

    def __init__(self, binary: str, directory: Path, primary: int, quorum: int) -> None:
        super().__init__(binary, directory)
        self._primary, self._quorum = primary, quorum

    def command(self, port: int, directory: Path) -> list[str]:
        config = directory / f"sentinel-{port}.conf"
        if not config.exists():
            config.write_text(
                f"bind {HOST}\nport {port}\ndir {directory}\n"
                f"sentinel monitor {SERVICE} {HOST} {self._primary} {self._quorum}\n"
                f"sentinel down-after-milliseconds {SERVICE} 2000\nsentinel failover-timeout {SERVICE} 2000\n"
            )
        return [self._binary, str(config), "--sentinel"]

    def answers(self, port: int, pid: int) -> bool:
        with redis.Redis(HOST, port, socket_timeout=0.5) as client, contextlib.suppress(redis.RedisError):
            told: Any = client.info("server")
            return bool(told["process_id"] == pid)
        return False


class Watched:
    """A primary and a replica under three Sentinels."""

    def __init__(self, binary: str, directory: Path) -> None:
        self.nodes = [RedisNode(binary, directory / f"node{n}", "--repl-diskless-sync-delay", "0") for n in range(2)]
        for node in self.nodes:
            node.start()
        self.sentinels: list[_Sentinel] = []
        self.nodes[1].client().execute_command("REPLICAOF", HOST, str(self.nodes[0].port))
        for n in range(3):
            sentinel = _Sentinel(binary, directory / f"sentinel{n}", self.nodes[0].port, 2)
            sentinel.start()
            self.sentinels.append(sentinel)
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{s.port}' for s in self.sentinels)}/{SERVICE}"
        until(lambda: self._facts()["num-slaves"] == 1 and self._facts()["num-other-sentinels"] == 2)
        until(self.in_sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in [*self.sentinels, *self.nodes]:
            server.stop()

    def _facts(self) -> dict[str, Any]:
        client: Any = self.sentinels[0].client()
        facts: dict[str, Any] = client.sentinel_master(SERVICE)
        return facts

    def primary(self) -> RedisNode:
        """Whom the first Sentinel names."""
        client: Any = self.sentinels[0].client()
        _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(node for node in self.nodes if node.port == port)

    def replica(self) -> RedisNode:
        return next(node for node in self.nodes if node is not self.primary())

    def in_sync(self) -> bool:
        """Whether the replica follows the primary."""
        try:
            told: Any = self.replica().client().info("replication")
        except redis.RedisError:
            return False
        return bool(told["role"] == "slave" and told["master_link_status"] == "up"
                    and told["master_port"] == self.primary().port)  # fmt: skip

    def fail_over(self, *, lag_s: float = 0.0) -> None:
        """Kill the primary and let the replica take its place; with a lag, the replica stops to follow that long before.

        The old primary starts again, empty, and becomes the replica.
        """
        old, new = self.primary(), self.replica()
        if lag_s:
            new.client().config_set("masterauth", "refused")  # so that it cannot connect again
            new.client().execute_command("CLIENT", "KILL", "TYPE", "master")
            time.sleep(lag_s)
        old.send(signal.SIGKILL)
        until(lambda: self.primary() is new, timeout_s=40.0)
        until(lambda: not old.server.alive())
        new.client().config_set("masterauth", "")
        old.start()
        old.client().execute_command("REPLICAOF", HOST, str(new.port))  # the Sentinels would do it in ten seconds
        until(self.in_sync, timeout_s=40.0)
        until(lambda: self._facts()["flags"] == "master", timeout_s=40.0)


class ClusterOfThree:
    """Three primaries, each with a third of the slots.

    Args:
        binary: the server's program.
        directory: everything on disk.
        options: more of each server's command line.
    """

    def __init__(self, binary: str, directory: Path, *options: str) -> None:
        self.nodes: list[RedisNode] = []
        for n in range(3):
            bus = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000")
            self.nodes.append(RedisNode(binary, directory / f"node{n}", *bus, *options).start())
        for n, node in enumerate(self.nodes):
            first, last = n * SLOTS // 3, (n + 1) * SLOTS // 3 - 1
            node.client().execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for other in self.nodes[1:]:
            bus = other._options[other._options.index("--cluster-port") + 1]
            self.nodes[0].client().execute_command("CLUSTER", "MEET", HOST, other.port, bus)
        self.url = f"redis+cluster://{HOST}:{self.nodes[1].port},{HOST}:{self.nodes[0].port}"
        until(lambda: all(self._healthy(node) for node in self.nodes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.stop()

    def _healthy(self, node: RedisNode) -> bool:
        told = _text(node.client().execute_command("CLUSTER", "INFO"))
        return "cluster_state:ok" in told and "cluster_known_nodes:3" in told

    def owner(self, slot: int) -> RedisNode:
        """The primary of a slot."""
        told: Any = self.nodes[0].client().execute_command("CLUSTER", "SLOTS")
        port = next(primary[1] for first, last, primary, *_ in told if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def move(self, slot: int, to: RedisNode, *, keys_at_once: int = 20, pause_s: float = 0.0) -> int:
        """Move a slot as `redis-cli --cluster reshard` does, a few keys at a time; how many keys it had."""
        source = self.owner(slot)
        if source is to:
            return 0
        giver, taker = source.client(), to.client()
        ids = {node: str(_text(node.client().execute_command("CLUSTER", "MYID"))) for node in (source, to)}
        taker.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        giver.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
        moved = 0
        while True:
            names: Any = giver.execute_command("CLUSTER", "GETKEYSINSLOT", slot, keys_at_once)
            if not names:
                break
            giver.execute_command("MIGRATE", HOST, to.port, "", 0, 5000, "KEYS", *names)
            moved += len(names)
            time.sleep(pause_s)
        for node in (to, source, *self.nodes):
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[to])
        return moved


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{true} did not become true within {timeout_s:g} s"
        time.sleep(0.05)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
