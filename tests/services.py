"""Where the tests' Kafka and Redis come from: the embedded stack, and real ones if there are any.

`embedded` is always there. `real` is looked for, Kafka and Redis each on its own, in this order:

1. the addresses in HEADRACE_TEST_KAFKA and HEADRACE_TEST_REDIS;
2. Docker, through testcontainers (`pip install 'headrace[containers]'`), if an engine answers;
3. Apache Kafka's jars in HEADRACE_TEST_KAFKA_HOME or where `make kafka` puts them, and a `redis-server` on PATH.

Nothing is installed from here. What is missing is told with its reason; HEADRACE_TEST_REQUIRE=kafka,redis turns that
into a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from headrace_ops.embedded import EmbeddedServer, EmbeddedStack, broker, store
from tests.apache_kafka import ApacheKafka, find_jars
from tests.containers import kafka_container, no_docker, redis_container

NAMES = ("embedded", "real")


@dataclass(frozen=True, slots=True)
class Services:
    """A broker and a store that a test may use as it likes.

    Attributes:
        name: ``embedded`` or ``real``.
        kafka: bootstrap servers, ``HOST:PORT``.
        redis: URL with its database, ``redis://HOST:PORT/0``.
        description: product and version of both, for the summary.
    """

    name: str
    kafka: str
    redis: str
    description: str


class Absent(Exception):  # noqa: N818  (it is an answer, not a mistake)
    """There is no such service here; the message says why, and what would bring it."""


class Finder:
    """Starts what it finds, at most once, and keeps it until `close`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._found: dict[str, Services | Absent] = {}

    def get(self, name: str) -> Services:
        """The services of this name, started if need be.

        Raises:
            Absent: a part of them is not here.
        """
        if name not in self._found:
            try:
                self._found[name] = self._embedded() if name == "embedded" else self._real()
            except Absent as absent:
                self._found[name] = absent
        found = self._found[name]
        if isinstance(found, Absent):
            raise found
        return found

    def close(self) -> None:
        """End everything that was started."""
        self._running.close()

    def _embedded(self) -> Services:
        stack = self._running.enter_context(EmbeddedStack(self._directory / "embedded"))
        versions = f"tansu {broker.version().split('-')[0]}, valkey {_redis_version(stack.addresses.redis)}"
        return Services("embedded", stack.addresses.kafka, stack.addresses.redis, versions)

    def _real(self) -> Services:
        missing: list[str] = []
        found: list[tuple[str, str]] = []
        for part, ways in (
            ("kafka", (_given_kafka, self._docker_kafka, self._local_kafka)),
            ("redis", (_given_redis, self._docker_redis, self._local_redis)),
        ):
            reasons: list[str] = []
            answer = _first(ways, reasons)
            if answer is None:
                missing.append(f"no {part}: " + "; ".join(reasons))
            else:
                found.append(answer)
        if missing:
            raise Absent(" | ".join(missing))
        (kafka, kafka_version), (redis_url, redis_version) = found
        return Services("real", kafka, redis_url, f"{kafka_version}, {redis_version}")

    def _docker_kafka(self) -> tuple[str, str]:
        return self._container(kafka_container)

    def _docker_redis(self) -> tuple[str, str]:
        return self._container(redis_container)

    def _container(self, start: Callable[[ExitStack], tuple[str, str]]) -> tuple[str, str]:
        reason = no_docker()
        if reason is not None:
            raise Absent(reason)
        return start(self._running)

    def _local_kafka(self) -> tuple[str, str]:
        jars = find_jars()
        if jars is None:
            raise Absent("no Apache Kafka in HEADRACE_TEST_KAFKA_HOME or .cache/kafka (`make kafka` fetches one)")
        java = shutil.which("java")
        if java is None:
            raise Absent("no `java` on PATH to run Apache Kafka with")
        program = ApacheKafka(java, jars)
        return self._server(program, 60.0), f"Apache Kafka {program.version}"

    def _local_redis(self) -> tuple[str, str]:
        binary = shutil.which("redis-server")
        if binary is None:
            raise Absent("no `redis-server` on PATH")
        address = self._server(LocalRedis(binary), 20.0)
        return address, f"Redis {_redis_version(address)}"

    def _server(self, program: ApacheKafka | LocalRedis, timeout_s: float) -> str:
        directory = self._directory / program.name
        directory.mkdir(parents=True, exist_ok=True)
        server = EmbeddedServer(program, directory)
        self._running.callback(server.stop)
        return server.start(timeout_s=timeout_s)


class LocalRedis(store.Store):
    """The `redis-server` of this machine, started as the embedded store is."""

    name = "real-redis"

    def __init__(self, binary: str) -> None:
        self._binary = binary

    def command(self, port: int, directory: Path) -> list[str]:
        return [self._binary, *super().command(port, directory)[1:]]


def required() -> frozenset[str]:
    """The real services without which the suite fails, of ``kafka`` and ``redis``."""
    return frozenset(filter(None, os.environ.get("HEADRACE_TEST_REQUIRE", "").split(",")))


def empty(url: str) -> None:
    """Take every key out of the store's database."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def _first(ways: tuple[Callable[[], tuple[str, str]], ...], reasons: list[str]) -> tuple[str, str] | None:
    for way in ways:
        try:
            return way()
        except Absent as absent:
            reasons.append(str(absent))
    return None


def _given_kafka() -> tuple[str, str]:
    address = os.environ.get("HEADRACE_TEST_KAFKA")
    if not address:
        raise Absent("HEADRACE_TEST_KAFKA is not set")
    host, _, port = address.split(",")[0].rpartition(":")
    if broker.cluster_id(host, int(port)) is None:
        raise RuntimeError(f"HEADRACE_TEST_KAFKA={address}: required a Kafka broker, but none answers there")
    return address, f"Kafka at {address}"


def _given_redis() -> tuple[str, str]:
    url = os.environ.get("HEADRACE_TEST_REDIS")
    if not url:
        raise Absent("HEADRACE_TEST_REDIS is not set")
    with redis.Redis.from_url(url) as client:
        keys = client.dbsize()
    if keys:
        raise RuntimeError(
            f"HEADRACE_TEST_REDIS={url}: required an empty database, since every test empties it, but it has {keys} keys;"
            f" name another database number"
        )
    return url, f"Redis {_redis_version(url)} at {url}"


def _redis_version(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        told = client.info("server")
    return str(told.get("valkey_version") or told["redis_version"])
