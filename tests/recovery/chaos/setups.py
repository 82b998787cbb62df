"""The services of a run, all of its own, so that they may be killed: a broker behind a proxy, and one kind of online store.

    embedded   Tansu, Valkey behind a proxy; nothing but Python packages
    sentinel   Apache Kafka; Redis, a primary and a replica under three Sentinels
    cluster    Apache Kafka; Redis Cluster of three primaries that keep an append-only file

What may not live here: what is done to them (`faults.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace_ops.embedded import EmbeddedServer, broker, store
from tests.apache_kafka import ApacheKafka, find_jars
from tests.recovery.chaos.proxy import HOST, Proxy
from tests.redis_topologies import ClusterOfThree, RedisNode, Watched, program_of

KINDS = ("embedded", "sentinel", "cluster")
APACHE = ("sentinel", "cluster")  # the embedded broker has neither transactions nor records that expire
_START_S = 60.0


class Missing(Exception):  # noqa: N818  (it is an answer, not a mistake)
    """What a kind of services needs is not on this machine."""


class _AdvertisedTansu(broker.Broker):
    """Tansu, whose clients are sent through a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def command(self, port: int, directory: Path) -> list[str]:
        self._proxy.target = port
        advertised = f"--advertised-listener-url=tcp://{HOST}:{self._proxy.port}"
        return [advertised if "advertised" in part else part for part in super().command(port, directory)]


class _AdvertisedKafka(ApacheKafka):
    """Apache Kafka, whose clients are sent through a proxy."""

    def __init__(self, java: str, jars: Path, proxy: Proxy) -> None:
        super().__init__(java, jars)
        self._proxy = proxy

    def command(self, port: int, directory: Path) -> list[str]:
        self._proxy.target = port
        command = super().command(port, directory)
        settings = Path(command[-1])
        text = settings.read_text().splitlines()
        settings.write_text(
            "\n".join(
                f"advertised.listeners=PLAINTEXT://{HOST}:{self._proxy.port}"
                if line.startswith("advertised.")
                else line
                for line in text
            )
        )
        return command


class Setup:
    """Services of one run.

    Args:
        kind: one of `KINDS`.
        directory: everything on disk.

    Attributes:
        kafka: bootstrap servers.
        redis: URL of the store.
        broker_proxy: in front of the broker.
        store_proxy: in front of a single store, else None.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._open = ExitStack()
        self.broker_proxy = self._open.enter_context(Proxy())
        self.store_proxy: Proxy | None = None
        self.watched: Watched | None = None
        self.cluster: ClusterOfThree | None = None
        self.single: RedisNode | None = None
        try:
            self._start(directory)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self.broker, *self.stores):
            if server.alive():
                _send(server, signal.SIGCONT)
        self._open.close()

    def _start(self, directory: Path) -> None:
        program = self._broker_program()
        self.broker = self._server(program, directory / "broker")
        self.kafka = f"{HOST}:{self.broker_proxy.port}"
        binary = program_of("embedded" if self.kind == "embedded" else "real")
        if binary is None:
            raise Missing("no `redis-server` on PATH")
        if self.kind == "embedded":
            self.single = RedisNode(binary, directory / "redis").start()
            self._open.callback(self.single.stop)
            self.store_proxy = self._open.enter_context(Proxy(self.single.port))
            self.redis = f"redis://{HOST}:{self.store_proxy.port}/0"
        elif self.kind == "sentinel":
            self.watched = self._open.enter_context(Watched(binary, directory / "redis"))
            self.redis = self.watched.url
        else:
            self.cluster = self._open.enter_context(ClusterOfThree(binary, directory / "redis", "--appendonly", "yes"))
            self.redis = self.cluster.url

    def _broker_program(self) -> _AdvertisedTansu | _AdvertisedKafka:
        if self.kind == "embedded":
            return _AdvertisedTansu(self.broker_proxy)
        jars, java = find_jars(), shutil.which("java")
        if jars is None or java is None:
            raise Missing("no Apache Kafka (`make kafka` fetches one; it needs Java 17)")
        return _AdvertisedKafka(java, jars, self.broker_proxy)

    def _server(self, program: _AdvertisedTansu | _AdvertisedKafka, directory: Path) -> EmbeddedServer:
        directory.mkdir(parents=True, exist_ok=True)
        server = EmbeddedServer(program, directory)
        self._open.callback(server.stop)
        server.start(timeout_s=_START_S)
        return server

    @property
    def stores(self) -> list[EmbeddedServer]:
        """Every server of the store."""
        if self.single is not None:
            return [self.single.server]
        nodes = (
            self.watched.nodes if self.watched is not None else self.cluster.nodes if self.cluster is not None else []
        )
        return [node.server for node in nodes]

    @property
    def described(self) -> str:
        """Products, for the report."""
        names = {
            "embedded": f"Tansu {broker.version().split('-')[0]}, Valkey {store.version()}",
            "sentinel": "Apache Kafka, Redis under Sentinels",
            "cluster": "Apache Kafka, Redis Cluster",
        }
        return names[self.kind]

    def freeze(self, server: EmbeddedServer, seconds: float) -> None:
        """Stop a server's process for a while."""
        _send(server, signal.SIGSTOP)
        time.sleep(seconds)
        _send(server, signal.SIGCONT)

    def kill(self, server: EmbeddedServer) -> None:
        """kill -9, and start it again at its address."""
        _send(server, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while server.alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.start(timeout_s=_START_S)


def _send(server: EmbeddedServer, number: signal.Signals) -> None:
    os.kill(server.pid, number)
