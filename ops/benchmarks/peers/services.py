"""Apache Kafka and Redis for the peers, both on the last core, with nothing of an earlier run in them.

The embedded servers would do for Headrace, but not for every peer. What may not live here: contenders, measuring.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from confluent_kafka.admin import AdminClient

from headrace_ops.embedded import EmbeddedServer
from headrace_ops.embedded.store import Store
from tests.apache_kafka import ApacheKafka, find_jars

_START_S = 40.0


@dataclass(frozen=True, slots=True)
class Services:
    """Where both listen, and what they are."""

    kafka: str
    redis: str
    scratch: Path
    versions: tuple[str, ...]

    def client(self) -> redis.Redis:
        host, port = self.redis.split(":")
        return redis.Redis(host, int(port), socket_timeout=10)

    def clear(self, group: str) -> None:
        """Take away what a contender left: every key, and the topics that carry its group's name."""
        self.client().flushall()
        admin = AdminClient({"bootstrap.servers": self.kafka, "log_level": 3})
        if left := [name for name in admin.list_topics(timeout=10).topics if group in name]:
            for done in admin.delete_topics(left).values():
                done.result(30)


def missing() -> str | None:
    """Why there are no such services here; None if there are."""
    if shutil.which("java") is None:
        return "needs `java` (17) on PATH for Apache Kafka"
    if find_jars() is None:
        return "needs Apache Kafka's jars: `make kafka`"
    if shutil.which("redis-server") is None:
        return "needs `redis-server` on PATH"
    return None


@contextmanager
def services() -> Iterator[Services]:
    """Both servers for as long as the context lasts. They inherit the caller's core."""
    java, jars = shutil.which("java"), find_jars()
    assert java is not None
    assert jars is not None
    with tempfile.TemporaryDirectory(prefix="headrace-peers-") as directory:
        scratch = Path(directory)
        broker, store = ApacheKafka(java, jars), _Redis()
        kafka_server, redis_server = EmbeddedServer(broker, scratch), EmbeddedServer(store, scratch)
        try:
            kafka, address = kafka_server.start(timeout_s=_START_S), redis_server.start()
            yield Services(kafka, address, scratch, (f"Apache Kafka {broker.version}", f"Redis {store.version()}"))
        finally:
            redis_server.stop()
            kafka_server.stop()


class _Redis(Store):
    """The machine's `redis-server`, configured as the embedded store."""

    def command(self, port: int, directory: Path) -> list[str]:
        return ["redis-server", *super().command(port, directory)[1:]]

    def address(self, port: int) -> str:
        return super().address(port).removeprefix("redis://").removesuffix("/0")

    def version(self) -> str:
        told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=([0-9.]+)", told)
        return found.group(1) if found else "of unknown version"
