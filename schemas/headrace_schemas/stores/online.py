"""The online store: Redis as readers and operators see it.

Connecting, the memory policy, which views are registered, how far each has come, and reading states. Writing is the worker's
alone, through the scripts of `headrace_schemas.stores.lanes`. A reader sees single entities at their last commit; it goes to
the master, never retries by itself, and says at once when Redis does not answer. What may not live here: folding, what a
model does without its features.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace.errors import CodecError, ConfigError, ServiceUnavailable, StoreError
from headrace_schemas.keys import KeyedView, ViewKeys, events_key, views_key
from headrace_schemas.stores.async_online import AsyncOnlineReader
from headrace_schemas.stores.lanes import LaneRecord, lowest
from headrace_schemas.stores.topology import Cluster, Sentinels, Topology, parse_topology

if TYPE_CHECKING:
    from headrace.events import Event
    from headrace.kernel import States
    from headrace.views import FeatureView

__all__ = [
    "AsyncOnlineReader",
    "OnlineReader",
    "RegisteredView",
    "check_policy",
    "committed",
    "connect",
    "evicted_keys",
    "lane_records",
    "progress",
    "progress_fields",
    "register_events",
    "register_views",
    "registered_events",
    "registered_views",
]

PATIENCE_S = 15.0  # how long a missing Redis is waited for at start
_PAUSE_S = 0.25
_TIMEOUT_S = 5.0


def connect(url: str, *, patience_s: float = PATIENCE_S) -> redis.Redis:
    """A client for everything but the hot paths. It sends each command once: a retried script would run twice.

    Args:
        url: where the primaries are (`headrace_schemas.stores.topology`).
        patience_s: how long a missing server is waited for.

    Returns:
        A client; behind Sentinels one that follows the primary, of a cluster one that knows all of them, with the same commands.

    Raises:
        ConfigError: the URL is none.
        ServiceUnavailable: no server answered in time, or it refused us.
    """
    topology = parse_topology(url)
    deadline = time.monotonic() + patience_s
    while True:
        client: redis.Redis | None = None
        try:
            topology.primaries()  # says better than a client what is missing
            client = _client(topology, url)
            client.ping()
            return client
        except (ServiceUnavailable, redis.ConnectionError, redis.TimeoutError, redis.RedisClusterException) as error:
            if client is not None:
                client.close()
            if isinstance(error, redis.AuthenticationError) or time.monotonic() > deadline:
                reason = error.reason if isinstance(error, ServiceUnavailable) else str(error)
                raise ServiceUnavailable("Redis", str(topology), reason) from error
            topology.forget()
            time.sleep(_PAUSE_S)
        except redis.RedisError as error:
            if client is not None:
                client.close()
            raise ServiceUnavailable("Redis", str(topology), str(error)) from error


def _client(topology: Topology, url: str) -> redis.Redis:
    options: dict[str, Any] = {"protocol": 2, "socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
    once = {"retry": Retry(NoBackoff(), 0), "retry_on_error": []}
    if isinstance(topology, Cluster):
        return cast(redis.Redis, topology.client(**options))  # it has the commands that are used, and no common base
    if isinstance(topology, Sentinels):
        return topology.client(**options, **once)
    return redis.Redis.from_url(url, **options, **once)


@contextmanager
def told(client: redis.Redis) -> Iterator[None]:
    """Turn what a client raises into what a person understands.

    Raises:
        ServiceUnavailable: Redis is away.
        StoreError: it refuses a command.
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.RedisClusterException) as error:
        raise ServiceUnavailable("Redis", _place(client), str(error)) from error
    except redis.ResponseError as error:
        raise StoreError(
            f"Redis at {_place(client)}: a command was refused ({error}); check the permissions of its user and the type of its keys"
        ) from error


def check_policy(client: redis.Redis) -> None:
    """Refuse a Redis that may throw states away to make room.

    Raises:
        ConfigError: its memory policy evicts keys; an evicting server lost 40 % of the states in a trial while every
            watermark looked perfect.
    """
    for place, facts in _info(client, "memory").items():
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise evicting(place, str(policy))


def evicting(place: str, policy: str) -> ConfigError:
    """The refusal of a Redis that may throw states away."""
    return ConfigError(
        f"Redis at {place}: maxmemory-policy must be noeviction, because an evicted state is a wrong feature, "
        f"but it is {policy}; run `redis-cli CONFIG SET maxmemory-policy noeviction` and keep it in redis.conf"
    )


def evicted_keys(client: redis.Redis) -> int:
    """How many keys the primaries have evicted since their start; anything but a standstill means lost states."""
    return sum(int(cast(int, facts.get("evicted_keys", 0))) for facts in _info(client, "stats").values())


def _info(client: redis.Redis, section: str) -> Mapping[str, Mapping[str, object]]:
    """What each primary says of itself, by its place."""
    if (cluster := _cluster(client)) is not None:
        return {node.name: cast(Any, cluster.info(section, target_nodes=node)) for node in _primaries(cluster)}
    return {_place(client): cast("Mapping[str, object]", client.info(section))}


def _cluster(client: object) -> redis.RedisCluster | None:
    return client if isinstance(client, redis.RedisCluster) else None


def _primaries(cluster: redis.RedisCluster) -> list[Any]:
    return list(cluster.get_primaries())  # type: ignore[no-untyped-call]


def _place(client: redis.Redis) -> str:
    if (cluster := _cluster(client)) is not None:
        return ",".join(sorted(node.name for node in _primaries(cluster)))
    options = client.connection_pool.connection_kwargs
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")


# --- registered views ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegisteredView:
    """A view whose lanes count; written by the worker when it starts.

    Args:
        name: the view's name.
        layout_fingerprint: physical layout; part of every key.
        finalizer_fingerprint: how features are finished from a state.
        lanes: number of lanes.
        topic: the topic of its events.
    """

    name: str
    layout_fingerprint: str
    finalizer_fingerprint: str
    lanes: int
    topic: str

    def keys(self, namespace: str) -> ViewKeys:
        """The names of its keys in Redis."""
        return ViewKeys.of(namespace, self.name, self.layout_fingerprint, self.lanes)


def register_views(client: redis.Redis, namespace: str, views: Iterable[FeatureView]) -> None:
    """Make exactly these views the registered ones of the namespace.

    Lanes of views that are no longer registered, or that were registered with another layout, stay in Redis but count for
    nothing: they neither hold back nor rewind the position at which the source starts.
    """
    fields: dict[Any, Any] = {}
    for view in views:
        registered = RegisteredView(
            view.name, view.layout_fingerprint, view.finalizer_fingerprint, view.lanes, view.event.topic
        )
        fields[view.name] = json.dumps(asdict(registered), sort_keys=True)
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(views_key(namespace))
        if fields:
            pipe.hset(views_key(namespace), mapping=fields)
        pipe.execute()


def registered_views(client: redis.Redis, namespace: str) -> dict[str, RegisteredView]:
    """The registered views of the namespace, by name."""
    found = cast("Mapping[bytes, bytes]", client.hgetall(views_key(namespace)))
    try:
        return {name.decode(): RegisteredView(**json.loads(value)) for name, value in sorted(found.items())}
    except (TypeError, ValueError) as error:
        raise CodecError(f"registered views of namespace {namespace!r}", str(error)) from None


@dataclass(frozen=True, slots=True)
class RegisteredEvent:
    """An event as it was last applied: how its records on the topic are encoded.

    Attributes:
        name: of the event.
        topic: its topic.
        format: ``avro`` or ``json``.
        framing: ``none`` or ``confluent``.
        avro_schema: the record schema of its fields.
    """

    name: str
    topic: str
    format: str
    framing: str
    avro_schema: Mapping[str, object]

    @classmethod
    def of(cls, event: Event) -> RegisteredEvent:
        """What is registered of an event."""
        return cls(event.name, event.topic, event.format, event.framing, event.avro_schema)


def register_events(client: redis.Redis, namespace: str, events: Iterable[Event]) -> None:
    """Remember how records of these events are encoded."""
    fields: dict[Any, Any] = {e.name: json.dumps(asdict(RegisteredEvent.of(e)), sort_keys=True) for e in events}
    if fields:
        client.hset(events_key(namespace), mapping=fields)


def registered_events(client: redis.Redis, namespace: str) -> dict[str, RegisteredEvent]:
    """The registered events of the namespace, by name."""
    found = cast("Mapping[bytes, bytes]", client.hgetall(events_key(namespace)))
    try:
        return {name.decode(): RegisteredEvent(**json.loads(value)) for name, value in sorted(found.items())}
    except (TypeError, ValueError) as error:
        raise CodecError(f"registered events of namespace {namespace!r}", str(error)) from None


# --- how far a view has come -----------------------------------------------------------------------------------------


def lane_records(client: redis.Redis, keys: ViewKeys) -> list[LaneRecord]:
    """The records of all lanes of a view, as they are now. Only a hint to anyone who does not own the lanes."""
    with client.pipeline(transaction=False) as pipe:
        for lane in range(keys.lanes):
            pipe.hgetall(keys.lane_key(lane))
        return [LaneRecord.decode(fields) for fields in cast("list[dict[bytes, bytes]]", pipe.execute())]


def committed(client: redis.Redis, keys: ViewKeys) -> dict[int, int]:
    """The next offset below which every lane of a view is committed, by partition; exact, one read per lane.

    Lanes without traffic advance once a second, so this may trail `progress` by that much.
    """
    records = lane_records(client, keys)
    known = {place for record in records for place in record.watermarks}
    lows = {partition: lowest(records, topic_id, partition) for topic_id, partition in known}
    return {partition: low for partition, low in sorted(lows.items()) if low is not None}


def progress_fields(shard: int, shards: int, positions: Mapping[int, int]) -> dict[bytes, bytes]:
    """The fields that one shard of a worker group writes to say how far its lanes are committed.

    Args:
        shard: this shard.
        shards: how many there are; the lanes of shard s are those with lane % shards = s.
        positions: the next offset of each partition.

    >>> progress_fields(0, 2, {5: 120})
    {b'0/2/5': b'120'}
    """
    return {f"{shard}/{shards}/{partition}".encode(): b"%d" % position for partition, position in positions.items()}


def progress(client: redis.Redis, namespace: str, view: KeyedView) -> dict[int, int]:
    """The next offset below which a view is committed, by partition: written after each acknowledged flush.

    For status, freshness and waiting; never for correctness. A field once written stays true, so fields of a group of another
    size do no harm: a partition's position is the highest that all shards of some group have reached.
    """
    fields = cast("Mapping[bytes, bytes]", client.hgetall(ViewKeys(namespace, view).progress_key))
    groups: dict[tuple[int, int], dict[int, int]] = {}
    for name, value in fields.items():
        shard, shards, partition = (int(part) for part in name.split(b"/"))
        groups.setdefault((partition, shards), {})[shard] = int(value)
    found: dict[int, int] = {}
    for (partition, shards), positions in sorted(groups.items()):
        if len(positions) == shards:
            found[partition] = max(found.get(partition, 0), min(positions.values()))
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


class OnlineReader:
    """Reads states in plain code: command line, reports, tests.

    Args:
        client: a client from `connect`.
        namespace: the project's namespace.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def states(self, view: FeatureView, keys: Sequence[bytes]) -> States:
        """The states of entities, empty where there is none.

        Args:
            view: the feature view.
            keys: entity keys (`headrace_schemas.keys.encode_key`).

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        from headrace.kernel import States

        names = ViewKeys(self._namespace, view)
        with told(self._client):
            found = self._mget([names.locate(key) for key in keys]) if keys else []
        return States.from_list(found)

    def _mget(self, names: Sequence[bytes]) -> list[bytes | None]:
        if _cluster(self._client) is not None:
            # One by one, in one round trip to each node: an MGET of a slot that is on the move is refused.
            with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(name)
                return cast("list[bytes | None]", pipe.execute())
        return cast("list[bytes | None]", self._client.mget(list(names)))

    def features(self, view: FeatureView, keys: Sequence[bytes], at_us: int) -> npt.NDArray[np.float64]:
        """The features of entities at a moment, one row per key, in the view's order; NaN is null."""
        from headrace import kernel
        from headrace.layout import Layout

        states = self.states(view, keys)
        return kernel.read(Layout.of(view), states, np.full(len(keys), at_us, np.int64))
