"""Shared reads from a Redis Cluster, for an event loop: the counterpart of a single connection in `async_online`.

redis-py knows the slots, follows them when they move, and sends what belongs to one node in one go. Keys are asked for one by one
within it, because a cluster refuses an MGET whose slot is on the move. What may not live here: coalescing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import redis
from redis.asyncio.cluster import RedisCluster

from headrace.errors import ServiceUnavailable
from headrace_schemas.stores.topology import Cluster

_FAILURES = (redis.RedisError, redis.RedisClusterException, OSError, TimeoutError)


@dataclass(slots=True)
class Ask:
    """One caller's keys, and where its answer goes."""

    names: list[bytes]
    answer: asyncio.Future[list[bytes | None]]


def deliver(asks: Sequence[Ask], values: Sequence[bytes | None]) -> None:
    """Give each caller its share of the values, which are in the order of all their keys."""
    at = 0
    for ask in asks:
        if not ask.answer.done():  # a caller that was cancelled takes nothing from the others
            ask.answer.set_result(list(values[at : at + len(ask.names)]))
        at += len(ask.names)


def refuse(asks: Sequence[Ask], address: str, reason: str) -> None:
    """Tell each caller that Redis does not answer."""
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(ServiceUnavailable("Redis", address, reason))


class ClusterSession:
    """Connections to all primaries of a cluster.

    Args:
        client: redis-py's.
        place: the cluster, for messages.
        timeout_s: how long a round trip may take, redirections included.
    """

    lost = False

    def __init__(self, client: RedisCluster, place: str, timeout_s: float) -> None:
        self._client, self._place, self._timeout_s = client, place, timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, cluster: Cluster, timeout_s: float) -> ClusterSession:
        """Connect.

        Raises:
            ServiceUnavailable: no node of the cluster answers.
        """
        client = cluster.async_client(protocol=2, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await client.initialize()
        except _FAILURES as error:
            await client.aclose()
            raise ServiceUnavailable(
                "Redis", str(cluster), str(error) or f"no answer within {timeout_s:g} s"
            ) from error
        return cls(client, str(cluster), timeout_s)

    def mget(self, asks: list[Ask]) -> None:
        """Ask for the keys of several callers at once."""
        task = asyncio.get_running_loop().create_task(self._fetch(asks))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, asks: list[Ask]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                pipe = self._client.pipeline()
                for ask in asks:
                    for name in ask.names:
                        pipe.get(name)
                deliver(asks, cast("list[bytes | None]", await pipe.execute()))
        except _FAILURES as error:
            refuse(asks, self._place, str(error) or f"no answer within {self._timeout_s:g} s")
        except asyncio.CancelledError:
            refuse(asks, self._place, "the reader was closed")
            raise

    async def close(self) -> None:
        """Close the connections; reads that are under way fail."""
        self.lost = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
