"""The embedded stack: the broker and the store together, as one context manager."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import ConfigError
from headrace_ops.embedded.broker import Broker
from headrace_ops.embedded.server import EmbeddedServer
from headrace_ops.embedded.store import Store


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stack listens, as clients name it. A server that was not asked for has an empty address.

    Attributes:
        kafka: bootstrap servers, such as ``127.0.0.1:40123``.
        redis: URL, such as ``redis://127.0.0.1:40124/0``.
    """

    kafka: str
    redis: str


class EmbeddedStack:
    """A broker and a store on free loopback ports, for as long as the context lasts.

    Args:
        directory: receives the logs (`broker.log`, `redis.log`); made when it is missing. Stacks never share one port,
            so any number of them may run beside each other.
        kafka: whether the broker is wanted.
        redis: whether the store is wanted.

    Attributes:
        broker: the broker's process; its `pid`, `alive()` and `restart()` are there for fault tests.
        redis: the store's process.
    """

    def __init__(self, directory: Path, *, kafka: bool = True, redis: bool = True) -> None:
        self.directory = directory.absolute()
        self.broker = EmbeddedServer(Broker(), self.directory)
        self.redis = EmbeddedServer(Store(), self.directory)
        self._wanted = [server for server, wanted in ((self.broker, kafka), (self.redis, redis)) if wanted]

    @property
    def addresses(self) -> Addresses:
        """Where the stack listens.

        Raises:
            ServiceUnavailable: it was not started.
        """
        kafka, redis = (server.address if server in self._wanted else "" for server in (self.broker, self.redis))
        return Addresses(kafka=kafka, redis=redis)

    def start(self, *, timeout_s: float = 20.0) -> Addresses:
        """Start what is not running and return the addresses once all servers answer.

        Raises:
            ServiceUnavailable: a wheel is missing, or a server did not come up within `timeout_s`; none is left running.
            ConfigError: the directory cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"embedded stack: required a folder that can be written, but {error}") from error
        try:
            for server in self._wanted:
                server.start(timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def stop(self) -> None:
        """End both servers; what is not running stays so."""
        for server in reversed(self._wanted):
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
