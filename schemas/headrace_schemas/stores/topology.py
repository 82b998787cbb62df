"""Where the online store's primaries are: one server, a primary that Sentinels watch over, or a Redis Cluster.

    redis://HOST:PORT/DB            one server; also rediss:// (TLS) and unix://
    redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DB]     the primary that the Sentinels name
    redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT                   any nodes; each key's primary by its slot

``rediss+sentinel`` and ``rediss+cluster`` speak TLS to the servers; ``?sentinel_password=…`` is for the Sentinels themselves. What
is found is kept until `forget`, so a hot path asks nobody. What may not live here: connections that stay open, commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.crc import key_slot
from redis.retry import Retry

from headrace.errors import ConfigError, ServiceUnavailable
from headrace_schemas.stores.resp import Address

_ASK_S = 2.0  # for one Sentinel or node to say where the primaries are
_SENTINEL_PORT, _CLUSTER_PORT = 26379, 6379
_SLOTS = 16384
_Answer = TypeVar("_Answer")


class Topology(Protocol):
    """Where the primaries are."""

    @property
    def one(self) -> bool:
        """Whether all keys have the same primary."""
        ...

    def locate(self, key: bytes) -> Address:
        """The primary of a key.

        Raises:
            ServiceUnavailable: nobody says.
        """
        ...

    def primaries(self) -> list[Address]:
        """All of them.

        Raises:
            ServiceUnavailable: nobody says.
        """
        ...

    def forget(self) -> None:
        """Ask anew next time."""
        ...


def parse_topology(url: str) -> Topology:
    """What a URL names.

    >>> parse_topology("redis+sentinel://app:secret@a:26379,b/orders/2")
    Sentinels(a:26379,b:26379/orders/2)
    >>> parse_topology("redis://cache:6380/2").locate(b"any")
    Address(cache:6380/2)

    Raises:
        ConfigError: it names nothing.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return Sentinels(url)
        if scheme in ("redis+cluster", "rediss+cluster"):
            return Cluster(url)
    except ValueError as error:
        raise ConfigError(
            f"[redis] url must be like redis+sentinel://HOST:26379,HOST:26379/SERVICE/DB or "
            f"redis+cluster://HOST:PORT,HOST:PORT, but its part {scheme}://… is not ({error}); "
            f"correct it in headrace.toml or HEADRACE_REDIS"
        ) from None
    return Single(Address.parse(url))


class Single:
    """One server that stays where it is."""

    one = True

    def __init__(self, address: Address) -> None:
        self._address = address

    def __str__(self) -> str:
        return str(self._address)

    def locate(self, key: bytes) -> Address:
        return self._address

    def primaries(self) -> list[Address]:
        return [self._address]

    def forget(self) -> None:
        pass


class Sentinels:
    """The primary of a service, as the first Sentinel says that answers.

    A Sentinel that was cut off from the others may name an old primary; that one then says itself that it is a replica, or its
    writes are lost with it and the lanes' heads tell (`headrace_schemas.stores.lanes`).
    """

    one = True

    def __init__(self, url: str) -> None:
        self._hosts = _Hosts(url, _SENTINEL_PORT)
        path = self._hosts.path
        if not path[0] or len(path) > 2:
            raise ValueError("behind the hosts it needs the name of the service")
        self.service, self._db = path[0], int(path[1]) if len(path) == 2 else 0
        password = self._hosts.options.pop("sentinel_password", "")
        self._login = {"password": password} if password else {}
        self._known: Address | None = None
        self._at("unnamed", 0)  # a wrong option is told now

    def __str__(self) -> str:
        return f"{self._hosts}/{self.service}" + (f"/{self._db}" if self._db else "")

    def __repr__(self) -> str:
        return f"Sentinels({self})"

    def _at(self, host: str, port: int) -> Address:
        return Address.parse(self._hosts.url(host, port, self._db))

    def locate(self, key: bytes) -> Address:
        if self._known is None:
            self._known = self._ask()
        return self._known

    def primaries(self) -> list[Address]:
        return [self.locate(b"")]

    def forget(self) -> None:
        self._known = None

    def _ask(self) -> Address:
        def name(client: redis.Redis) -> Address | None:
            found: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)  # type: ignore[no-untyped-call]
            return self._at(_text(found[0]), int(found[1])) if found else None

        return self._hosts.first_answer(name, self._login, f"no service {self.service!r} is known here")

    def client(self, **options: Any) -> redis.Redis:
        """A client that asks the Sentinels for the primary whenever it connects."""
        data: dict[str, Any] = parse_url(self._hosts.url("unnamed", 0, self._db))  # type: ignore[no-untyped-call]
        asking = {**self._login, "socket_timeout": _ASK_S, "socket_connect_timeout": _ASK_S}
        sentinel: Any = redis.Sentinel(self._hosts.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        ours = {name: value for name, value in data.items() if name not in ("host", "port", "connection_class")}
        if "connection_class" in data:
            ours["ssl"] = True
        client: redis.Redis = sentinel.master_for(self.service, **ours, **options)
        return client


class Cluster:
    """The primaries of a Redis Cluster by hash slot."""

    one = False

    def __init__(self, url: str) -> None:
        self._hosts = _Hosts(url, _CLUSTER_PORT)
        if any(self._hosts.path):
            raise ValueError("a cluster has no database numbers")
        self._slots: list[Address | None] = []
        self._at("unnamed", 0)  # a wrong option is told now

    def __str__(self) -> str:
        return str(self._hosts)

    def __repr__(self) -> str:
        return f"Cluster({self})"

    def _at(self, host: str, port: int) -> Address:
        return Address.parse(self._hosts.url(host, port))

    def locate(self, key: bytes) -> Address:
        if not self._slots:
            self._slots = self._ask()
        address = self._slots[key_slot(key)]
        if address is None:
            self.forget()
            raise ServiceUnavailable("Redis", str(self), f"no node of the cluster serves the slot of {key!r}")
        return address

    def primaries(self) -> list[Address]:
        if not self._slots:
            self._slots = self._ask()
        return sorted({address for address in self._slots if address is not None}, key=str)

    def forget(self) -> None:
        self._slots = []

    def _ask(self) -> list[Address | None]:
        def slots(client: redis.Redis) -> list[Address | None] | None:
            told: Any = client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
            asked = client.connection_pool.connection_kwargs["host"]
            found: list[Address | None] = [None] * _SLOTS
            nodes: dict[tuple[str, int], Address] = {}
            for first, last, (host, port, *_), *_ in told:
                place = _text(host) or asked, int(port)
                nodes[place] = nodes.get(place) or self._at(*place)
                found[first : last + 1] = [nodes[place]] * (last + 1 - first)
            return found if nodes else None

        return self._hosts.first_answer(slots, self._login(), "it serves no slots")

    def _login(self) -> dict[str, Any]:
        data: dict[str, Any] = parse_url(self._hosts.url("unnamed", 0))  # type: ignore[no-untyped-call]
        secure = "connection_class" in data
        kept = {name: value for name, value in data.items() if name not in ("host", "port", "db", "connection_class")}
        return {**kept, "ssl": True} if secure else kept

    def client(self, **options: Any) -> redis.RedisCluster:
        """A client that knows all primaries and follows slots that move."""
        nodes = [ClusterNode(host, port) for host, port in self._hosts.hosts]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=nodes, **self._login(), **options)

    def async_client(self, **options: Any) -> AsyncCluster:
        """`client` for an event loop."""
        nodes = [AsyncClusterNode(host, port) for host, port in self._hosts.hosts]
        return AsyncCluster(startup_nodes=nodes, **self._login(), **options)


class _Hosts:
    """What a URL with several hosts says."""

    def __init__(self, url: str, default_port: int) -> None:
        parts = urlsplit(url)
        self._login, at, places = parts.netloc.rpartition("@")
        self._login += at
        self._scheme = "rediss" if parts.scheme.startswith("rediss") else "redis"
        self.hosts: list[tuple[str, int]] = []
        for place in places.split(","):
            host, colon, port = place.rpartition(":")
            host, port = (host, port) if colon else (port, str(default_port))
            if not host:
                raise ValueError("it names no host, or an empty one")
            self.hosts.append((host, int(port)))
        self.path = parts.path.strip("/").split("/")
        self.options = {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.hosts)

    def url(self, host: str, port: int, db: int = 0) -> str:
        """The URL of one server."""
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self._scheme}://{self._login}{host}:{port}" + (f"/{db}" if db else "") + query

    def first_answer(
        self, ask: Callable[[redis.Redis], _Answer | None], login: Mapping[str, Any], unknown: str
    ) -> _Answer:
        """The answer of the first host that has one."""
        reasons = []
        for host, port in self.hosts:
            client = redis.Redis(
                host=host, port=port, protocol=2, retry=Retry(NoBackoff(), 0),
                socket_timeout=_ASK_S, socket_connect_timeout=_ASK_S, **login,
            )  # fmt: skip
            try:
                answer = ask(client)
            except redis.RedisError as error:
                reasons.append(f"{host}:{port}: {error}")
                continue
            finally:
                client.close()
            if answer is not None:
                return answer
            reasons.append(f"{host}:{port}: {unknown}")
        raise ServiceUnavailable("Redis", str(self), "; ".join(reasons))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
