"""What a Redis does to its clients on a bad day, provoked on a real one: nothing is lost, and the journal says what it was."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis

from headrace.errors import ConfigError, Stale, StoreError
from headrace_schemas.keys import ViewKeys
from headrace_streams.patience import Patience
from headrace_streams.run import StreamOptions
from tests.redis_topologies import HOST, RedisNode, program_of, until
from tests.services import Services
from tests.streams.shop import VIEWS, Run, Shop

OPTIONS = StreamOptions(watch_s=0.3, patience=Patience(answer_s=1.0, claim_s=1.0, longest_pause_s=0.1))


@contextmanager
def own_redis(services: Services, prefix: str, place: Path, *options: str) -> Iterator[tuple[RedisNode, Shop]]:
    """A Redis that may be harmed, and a shop on it."""
    binary = program_of(services.name)
    if binary is None:
        pytest.skip("real services: no `redis-server` on PATH")
    (place / "data").mkdir()
    node = RedisNode(binary, place / "redis", "--dir", str(place / "data"), "--enable-debug-command", "yes", *options)
    node.start()
    try:
        url = f"redis://{HOST}:{node.port}/0"
        yield node, Shop(replace(services, redis=url), prefix, place, VIEWS, seed=41)
    finally:
        node.stop()


@dataclass(frozen=True)
class Trouble:
    """One kind.

    Args:
        name: of it.
        begin, end: of it.
        told: what the journal says of it, somewhere.
    """

    name: str
    begin: Callable[[redis.Redis, Path, ExitStack], object]
    end: Callable[[redis.Redis, Path], object]
    told: str


def _nothing(_client: redis.Redis, _place: Path) -> None:
    """It ends by itself."""


def _full(client: redis.Redis, _place: Path, _stack: ExitStack) -> None:
    client.config_set("maxmemory", 1)


def _unsaved(client: redis.Redis, place: Path, _stack: ExitStack) -> None:
    """Its snapshot cannot be written: the directory is gone."""
    shutil.rmtree(place / "data")
    client.config_set("save", "3600 1")
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def _saved_again(client: redis.Redis, _place: Path) -> None:
    client.config_set("stop-writes-on-bgsave-error", "no")


def _busy(client: redis.Redis, _place: Path, stack: ExitStack) -> None:
    """Somebody's script runs for ever."""
    client.config_set("busy-reply-threshold", 50)
    other = redis.Redis(HOST, client.connection_pool.connection_kwargs["port"])
    stack.callback(other.close)

    def loop() -> None:
        with suppress(redis.RedisError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    stack.callback(thread.join)
    until(lambda: _is_busy(client))


def _is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.RedisError as error:
        return "BUSY" in str(error)
    return False


TROUBLES = (
    Trouble("memory full", _full, lambda client, _: client.config_set("maxmemory", 0), "OOM"),
    Trouble("read-only", lambda client, *_: client.replicaof(HOST, 1), lambda client, _: client.replicaof("NO", "ONE"),
            "replica|READONLY"),
    Trouble("snapshot fails", _unsaved, _saved_again, "MISCONF"),
    Trouble("too few replicas", lambda client, *_: client.config_set("min-replicas-to-write", 1),
            lambda client, _: client.config_set("min-replicas-to-write", 0), "NOREPLICAS"),
    Trouble("busy", _busy, lambda client, _: client.script_kill(), "BUSY|no answer"),
    Trouble("slow", lambda client, *_: client.client_pause(2500), _nothing, "no answer within 1 s"),
    Trouble("connections cut", lambda client, *_: client.client_kill_filter(_type="normal", skipme=True), _nothing, "closed|reset"),
)  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_a_bad_day_of_redis_is_waited_out_and_loses_nothing(
    services: Services, prefix: str, tmp_path: Path, trouble: Trouble
) -> None:
    with own_redis(services, prefix, tmp_path) as (node, shop), ExitStack() as stack:
        shop.produce(300)
        with shop.streaming(OPTIONS) as run:
            shop.wait(run)
            client = node.client()
            trouble.begin(client, tmp_path, stack)
            shop.produce(300)
            _wait_told(run, trouble.told)
            time.sleep(0.3)  # it lasts for a while
            trouble.end(client, tmp_path)
            shop.wait(run)
        assert shop.check() > 300


def _wait_told(run: Run, told: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not any(one in run.diary.getvalue() for one in told.split("|")):
        assert run.error is None, run.error
        assert time.monotonic() < deadline, f"no {told!r} in {run.diary.getvalue()}"
        time.sleep(0.01)


def test_a_flushed_script_cache_is_filled_again(services: Services, prefix: str, tmp_path: Path) -> None:
    with own_redis(services, prefix, tmp_path) as (node, shop):
        with shop.streaming(OPTIONS) as run:
            for _ in range(5):
                shop.produce(100)
                node.client().script_flush()
            shop.wait(run)
        assert shop.check() > 300


def test_a_redis_that_loads_its_file_is_waited_for(services: Services, prefix: str, tmp_path: Path) -> None:
    """Killed, and started again with everything that it had acknowledged."""
    slow = ("--appendonly", "yes", "--key-load-delay", "20000")  # microseconds a key
    with own_redis(services, prefix, tmp_path, *slow) as (node, shop):
        shop.produce(300)
        with shop.streaming(OPTIONS) as run:
            shop.wait(run)
            node.send(signal.SIGKILL)
            until(lambda: not node.server.alive())
            starting = threading.Thread(target=node.start)
            starting.start()
            shop.produce(300)
            starting.join()
            shop.wait(run)
        assert run.noted("redis-trouble") or run.noted("redis-disconnected")
        assert shop.check() > 300


def test_a_user_without_permission_is_told_so(services: Services, prefix: str, tmp_path: Path) -> None:
    with own_redis(services, prefix, tmp_path) as (node, shop):
        shop.produce(50)
        node.client().execute_command("ACL", "SETUSER", "default", "-evalsha")
        with shop.streaming(OPTIONS) as run:
            error = run.fails()
    assert isinstance(error, StoreError)
    assert "NOPERM" in str(error) or "no permissions" in str(error)
    assert "check the permissions of its user" in str(error)


def test_a_permission_that_is_taken_away_ends_the_worker(services: Services, prefix: str, tmp_path: Path) -> None:
    """A commit that is answered with anything unforeseen leaves the lanes unknown, so the worker begins anew."""
    with own_redis(services, prefix, tmp_path) as (node, shop):
        shop.produce(50)
        with shop.streaming(OPTIONS) as run:
            shop.wait(run)
            node.client().execute_command("ACL", "SETUSER", "default", "-evalsha")
            shop.produce(50)
            error = run.fails()
        assert isinstance(error, Stale)
        assert "permission" in str(error.__notes__)
        node.client().execute_command("ACL", "SETUSER", "default", "+evalsha")
        with shop.streaming(OPTIONS, take_over=True) as run:
            shop.wait(run)
        assert shop.check() > 50


def test_somebody_else_s_value_under_a_lane_s_key_is_told(services: Services, prefix: str, tmp_path: Path) -> None:
    with own_redis(services, prefix, tmp_path) as (node, shop):
        shop.produce(50)
        view = shop.loaded.project.view("spending")
        node.client().set(ViewKeys(shop.namespace, view).lane_key(3), b"mine")
        with shop.streaming(OPTIONS) as run:
            error = run.fails()
    assert isinstance(error, StoreError)
    assert "WRONGTYPE" in str(error) or "wrong kind of value" in str(error)


def test_a_policy_that_turns_evicting_while_running_stops_the_worker_before_it_hurts(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    with own_redis(services, prefix, tmp_path) as (node, shop):
        shop.produce(50)
        with shop.streaming(OPTIONS) as run:
            shop.wait(run)
            node.client().config_set("maxmemory-policy", "allkeys-lru")
            error = run.fails()
    assert isinstance(error, ConfigError)
    assert "maxmemory-policy must be noeviction" in str(error)
    assert "CONFIG SET maxmemory-policy noeviction" in str(error)
