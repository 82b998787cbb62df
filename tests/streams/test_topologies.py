"""The feature pipeline and its readers on Redis behind Sentinels and on a Redis Cluster, real servers both."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.crc import key_slot

from headrace.errors import ConfigError, ServiceUnavailable
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.stores import online
from headrace_schemas.stores.topology import parse_topology
from headrace_streams.patience import Patience
from headrace_streams.run import StreamOptions
from tests.redis_topologies import ClusterOfThree, Watched, program_of, until
from tests.services import Services
from tests.streams.shop import START_US, Run, Shop

QUICK = StreamOptions(watch_s=0.3, patience=Patience(claim_s=1.0, answer_s=2.0))


def binary(services: Services) -> str:
    found = program_of(services.name)
    if found is None:
        pytest.skip("real services: no `redis-server` on PATH")
    return found


@contextmanager
def feeding(shop: Shop) -> Iterator[None]:
    """Events keep coming."""
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            shop.produce(40)
            stop.wait(0.02)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def reads(shop: Shop, at_us: int) -> int:
    """What the service's reader sees, compared with the naive reader's states; how many were compared."""

    async def fetch(requests: list[tuple[ViewKeys, bytes]]) -> list[bytes | None]:
        reader = online.AsyncOnlineReader(shop.services.redis)
        try:
            await reader.ping()
            return await reader.fetch(requests)
        finally:
            await reader.close()

    view = shop.loaded.project.view("spending")
    keys = sorted({encode_key((event["card"],)) for event in shop.events})
    found = asyncio.run(fetch([(ViewKeys(shop.namespace, view), key) for key in keys]))
    states = online.OnlineReader(shop.client, shop.namespace).states(view, keys)
    assert [value or b"" for value in found] == [states[i] for i in range(len(keys))]
    return len(keys)


@pytest.mark.parametrize("lag_s", [0.0, 0.7], ids=["in-sync", "lagging"])
def test_a_fail_over_loses_nothing_and_counts_nothing_twice(
    services: Services, prefix: str, tmp_path: Path, lag_s: float
) -> None:
    with Watched(binary(services), tmp_path / "redis") as watched:
        shop = Shop(replace(services, redis=watched.url), prefix, tmp_path, seed=21)
        shop.produce(800)
        with shop.supervised() as group:
            shop.wait()
            with feeding(shop):
                time.sleep(0.3)
                watched.fail_over(lag_s=lag_s)
                time.sleep(0.3)
            shop.client = online.connect(watched.url)
            shop.wait()
            restarted = len(group.noted("started"))
            assert group.noted("redis-trouble") or restarted > 1
            assert group.stop() == 0
        if lag_s:
            assert restarted > 1, "a store that went back in time is no store to go on with"
        assert shop.check() > 400
        assert reads(shop, START_US) > 20


def test_slots_move_under_load_and_no_event_is_lost_or_counted_twice(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    with ClusterOfThree(binary(services), tmp_path / "redis") as cluster:
        shop = Shop(replace(services, redis=cluster.url), prefix, tmp_path, seed=22)
        shop.produce(800)
        with shop.streaming(QUICK) as run:
            shop.wait(run)
            moved = _move_lanes(shop, cluster, run)
            shop.wait(run)
        assert moved > 30, "no key was moved"
        assert run.noted("redis-trouble"), "nothing was in flight"
        assert shop.check() > 400
        assert reads(shop, START_US) > 20
        assert len(shop.client.get_primaries()) == 3  # type: ignore[attr-defined]


def _move_lanes(shop: Shop, cluster: ClusterOfThree, run: Run) -> int:
    """Move the slots of some lanes to the next node while events arrive; how many keys moved."""
    moved = 0
    view = shop.loaded.project.view("spending")
    keys = ViewKeys(shop.namespace, view)
    with feeding(shop):
        for lane in range(view.lanes):
            slot = key_slot(keys.lane_key(lane))
            before = cluster.owner(slot)
            to = cluster.nodes[(cluster.nodes.index(before) + 1) % 3]
            moved += cluster.move(slot, to, keys_at_once=2, pause_s=0.05)
            assert run.error is None
    return moved


def test_a_primary_of_the_cluster_is_away_for_a_while(services: Services, prefix: str, tmp_path: Path) -> None:
    """Without a replica its slots are down; commits wait, and go on where they were."""
    with ClusterOfThree(binary(services), tmp_path / "redis") as cluster:
        shop = Shop(replace(services, redis=cluster.url), prefix, tmp_path, seed=23)
        with shop.streaming(QUICK) as run:
            shop.produce(300)
            shop.wait(run)
            with feeding(shop):
                cluster.nodes[2].send(signal.SIGSTOP)
                time.sleep(2.5)
                cluster.nodes[2].send(signal.SIGCONT)
                until(lambda: bool(run.noted("redis-back")))
            # Each node learns by itself that the third one is back, and this test asks all of them.
            until(lambda: all(node.client().cluster("info")["cluster_state"] == "ok" for node in cluster.nodes))
            shop.wait(run)
        assert shop.check() > 400


def test_every_primary_of_a_cluster_must_keep_its_keys(services: Services, tmp_path: Path) -> None:
    with ClusterOfThree(binary(services), tmp_path / "redis") as cluster:
        client = online.connect(cluster.url)
        online.check_policy(client)
        cluster.nodes[1].client().config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ConfigError, match=f":{cluster.nodes[1].port}: maxmemory-policy must be noeviction"):
            online.check_policy(client)
        assert online.evicted_keys(client) == 0
        client.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://localhost:26379", "it needs the name of the service"),
        ("redis+sentinel:///orders", "it names no host"),
        ("redis+sentinel://localhost:26379/orders/two", "invalid literal"),
        ("redis+cluster://localhost:7000/2", "a cluster has no database numbers"),
        ("redis+cluster://localhost:seven", "invalid literal"),
    ],
)
def test_a_url_that_names_nothing_is_refused(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_topology(url)


def test_sentinels_that_are_away_or_know_nothing_are_named(services: Services, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1: .*refused"):
        online.connect("redis+sentinel://127.0.0.1:1/orders", patience_s=0.0)
    with Watched(binary(services), tmp_path / "redis") as watched:
        other = watched.url.replace("/headrace", "/orders")
        with pytest.raises(ServiceUnavailable, match="no service 'orders' is known here"):
            parse_topology(other).locate(b"")


def test_the_readers_of_a_service_follow_the_primary(services: Services, tmp_path: Path) -> None:
    with Watched(binary(services), tmp_path / "redis") as watched:
        online.connect(watched.url).set("k", "v")
        until(lambda: all(node.client().get("k") == b"v" for node in watched.nodes))

        async def read() -> None:
            reader = online.AsyncOnlineReader(watched.url)
            assert await reader.fetch_names([b"k"]) == [b"v"]
            await asyncio.to_thread(watched.fail_over)
            deadline = time.monotonic() + 10
            while True:
                try:
                    assert await reader.fetch_names([b"k"]) == [b"v"]
                    break
                except ServiceUnavailable:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
            await reader.close()

        asyncio.run(read())
