"""The online store as readers and operators see it, on every service that is there."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import uvloop

from headrace.errors import CodecError, ConfigError, ServiceUnavailable
from headrace_schemas.keys import ViewKeys
from headrace_schemas.stores import online
from headrace_schemas.stores.lanes import LaneRecord, Watermark, watermark_field
from headrace_schemas.stores.online import AsyncOnlineReader
from headrace_schemas.stores.resp import Address
from tests.services import Services

NOWHERE = "redis://127.0.0.1:1/0"


def view(name: str = "v", fingerprint: str = "ab", lanes: int = 2) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, layout_fingerprint=fingerprint, finalizer_fingerprint="cd", lanes=lanes,
        event=SimpleNamespace(topic="flights.departures"),
    )  # fmt: skip


def test_registering_replaces_what_was_registered(services: Services, prefix: str) -> None:
    client = online.connect(services.redis)
    online.register_views(client, prefix, [view("a"), view("b")])
    online.register_views(client, prefix, [view("b", "ef"), view("c")])
    found = online.registered_views(client, prefix)
    assert list(found) == ["b", "c"]
    assert found["b"].layout_fingerprint == "ef"
    assert found["b"].keys(prefix).lane_key(1) == ViewKeys(prefix, view("b", "ef")).lane_key(1)
    assert online.registered_views(client, prefix + "other") == {}


def test_a_registration_that_is_none_is_told(services: Services, prefix: str) -> None:
    client = online.connect(services.redis)
    client.hset(f"{{{prefix}}}views", "v", "{}")
    with pytest.raises(CodecError, match="registered views of namespace"):
        online.registered_views(client, prefix)


def test_progress_is_what_all_shards_of_a_group_have_reached(services: Services, prefix: str) -> None:
    client = online.connect(services.redis)
    key = ViewKeys(prefix, view()).progress_key
    assert online.progress(client, prefix, view()) == {}
    client.hset(key, mapping=online.progress_fields(0, 2, {0: 50, 1: 9}))
    assert online.progress(client, prefix, view()) == {}, "the other shard has not spoken yet"
    client.hset(key, mapping=online.progress_fields(1, 2, {0: 40, 1: 9}))
    assert online.progress(client, prefix, view()) == {0: 40, 1: 9}
    client.hset(key, mapping=online.progress_fields(0, 1, {0: 70}))
    assert online.progress(client, prefix, view()) == {0: 70, 1: 9}, "a later group of one shard came further"


def test_committed_is_the_lowest_lane(services: Services, prefix: str) -> None:
    client, keys = online.connect(services.redis), ViewKeys(prefix, view())
    client.hset(keys.lane_key(0), mapping={b"head": b"x", watermark_field("id", 0): Watermark(7, 1, "d").encode()})
    assert online.committed(client, keys) == {}, "the other lane has not begun"
    client.hset(keys.lane_key(1), mapping={watermark_field("id", 0): Watermark(5).encode()})
    assert online.committed(client, keys) == {0: 5}
    assert online.lane_records(client, keys)[0] == LaneRecord(b"", 0, b"x", {("id", 0): Watermark(7, 1, "d")})


def test_a_broken_watermark_is_told() -> None:
    with pytest.raises(CodecError, match="lane record: b'7;1' is not <next>:<leader epoch>:<digest>"):
        Watermark.decode(b"7;1")


def test_a_missing_redis_is_told_after_the_patience() -> None:
    with pytest.raises(ServiceUnavailable, match=r"Redis at 127.0.0.1:1 does not answer .*; start it"):
        online.connect(NOWHERE, patience_s=0.1)


def test_a_url_that_is_none_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse("http://user:secret@host:1")
    assert "[redis] url must be like redis://localhost:6379/0" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_clients_never_repeat_a_command(services: Services) -> None:
    """A script that was sent again by the client would run twice, unseen by the protocol."""
    client = online.connect(services.redis)
    assert client.get_retry()._retries == 0


@pytest.mark.parametrize("count", [1, 100])
def test_concurrent_reads_share_round_trips_and_get_their_own_answers(
    services: Services, prefix: str, count: int
) -> None:
    client, keys = online.connect(services.redis), ViewKeys(prefix, view())
    for index in range(count):
        client.set(keys.locate(b"k%d" % index), b"v%d" % index)
    before = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]

    async def read() -> list[list[bytes | None]]:
        reader = AsyncOnlineReader(services.redis)
        asked = [reader.fetch([(keys, b"k%d" % index), (keys, b"absent")]) for index in range(count)]
        found = await asyncio.gather(*asked)
        await reader.close()
        return found

    assert asyncio.run(read()) == [[b"v%d" % index, None] for index in range(count)]
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == before + 1


def test_reads_work_on_the_loop_that_serving_uses(services: Services, prefix: str) -> None:
    """uvloop's transports are no asyncio.Transport, and it swallows an error raised when a connection is made."""
    client, keys = online.connect(services.redis), ViewKeys(prefix, view())
    client.set(keys.locate(b"k"), b"v")

    async def read() -> list[bytes | None]:
        reader = AsyncOnlineReader(services.redis)
        found = await reader.fetch([(keys, b"k")])
        await reader.close()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(read()) == [b"v"]


def test_a_cancelled_read_takes_nothing_from_the_others(services: Services, prefix: str) -> None:
    client, keys = online.connect(services.redis), ViewKeys(prefix, view())
    client.set(keys.locate(b"k"), b"v")

    async def read() -> list[object]:
        reader = AsyncOnlineReader(services.redis)
        await reader.ping()
        tasks = [asyncio.create_task(reader.fetch([(keys, b"k")])) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await reader.close()
        return list(found)

    found = asyncio.run(read())
    assert found[0] == found[2] == [b"v"]
    assert isinstance(found[1], asyncio.CancelledError)


def test_an_error_reaches_every_waiter_and_the_next_read_connects_anew(services: Services, prefix: str) -> None:
    client, keys = online.connect(services.redis), ViewKeys(prefix, view())
    client.set(keys.locate(b"k"), b"v")

    async def read() -> None:
        reader = AsyncOnlineReader(services.redis)
        await reader.ping()
        client.client_kill_filter(_type="normal", skipme=True)
        found = await asyncio.gather(*(reader.fetch([(keys, b"k")]) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, ServiceUnavailable) for error in found)
        assert await reader.fetch([(keys, b"k")]) == [b"v"]
        await reader.close()

    asyncio.run(read())


def test_an_absent_redis_is_told_to_every_reader() -> None:
    async def read() -> list[object]:
        reader = AsyncOnlineReader(NOWHERE)
        return list(await asyncio.gather(*(reader.fetch_names([b"k"]) for _ in range(2)), return_exceptions=True))

    assert all(isinstance(error, ServiceUnavailable) for error in asyncio.run(read()))


@pytest.fixture
def dumb_server() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers the handshake as told, and nothing else."""
    listener, answers = socket.create_server(("127.0.0.1", 0)), [b"*1\r\n$6\r\nmaster\r\n"]
    opened: list[socket.socket] = []

    def serve() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                connection.recv(4096)
                connection.sendall(answers[0])
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}", answers
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in opened:
        connection.close()


def test_a_read_that_is_not_answered_in_time_fails(dumb_server: tuple[str, list[bytes]]) -> None:
    async def read() -> None:
        reader = AsyncOnlineReader(dumb_server[0], timeout_s=0.1)
        with pytest.raises(ServiceUnavailable, match=r"no answer within 0.1 s"):
            await reader.fetch_names([b"k"])
        await reader.close()

    asyncio.run(read())


def test_a_replica_is_refused_because_it_may_be_behind(dumb_server: tuple[str, list[bytes]]) -> None:
    dumb_server[1][0] = b"*1\r\n$5\r\nslave\r\n"

    async def read() -> None:
        with pytest.raises(ServiceUnavailable, match=r"it is a replica\); name the master"):
            await AsyncOnlineReader(dumb_server[0], timeout_s=1.0).fetch_names([b"k"])

    asyncio.run(read())
