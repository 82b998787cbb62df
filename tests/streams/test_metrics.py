"""What a worker and the log writer tell Prometheus, held against what was sent."""

from __future__ import annotations

import socket
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.errors import ConfigError
from headrace_ops.embedded.server import can_bind, free_port
from headrace_schemas.codecs import EventCodec
from headrace_streams.clock import Clock
from tests.redis_topologies import until
from tests.services import Services
from tests.streams.shop import START_US, VIEWS, Shop

DAY_US = 86_400_000_000


def free_pair() -> int:
    """A port of which the next one is free too: that is the log writer's."""
    while True:
        port = free_port()
        if can_bind(port + 1):
            return port


def told(port: int) -> dict[tuple[str, ...], float]:
    """Each sample by its name and its labels' values, in the order of the labels' names."""
    families = []
    with suppress(URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def send(shop: Shop, *events: tuple[str, int]) -> None:
    """Payments of one card, by id and time."""
    codec = EventCodec(shop.loaded.project.event("paid"))
    for name, at_us in events:
        event = {"id": name, "card": "card 1", "shop": 1, "town": "Linz", "amount": 1.0, "at": at_us}
        shop._producer.produce(shop.topic, codec.encode(event), partition=0)
    assert shop._producer.flush(20) == 0


def test_late_too_late_repeated_and_broken_events_are_counted(services: Services, prefix: str, tmp_path: Path) -> None:
    port = free_pair()
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=2, settings=f"[stream]\nmetrics_port = {port}\n")
    short = VIEWS.replace(', "last": hr.last("amount").lifetime()', "")  # a lifetime is never too late
    shop.declare(short)
    send(
        shop, ("a", START_US + DAY_US), ("b", START_US + DAY_US - 60_000_000), ("c", START_US), ("a", START_US + DAY_US)
    )
    shop.produce_raw(b"\xff")
    with shop.streaming() as run, shop.logging():
        shop.wait(run)
        until(lambda: told(port + 1).get(("headrace_log_lag", "0", shop.topic)) == 0)
        found, log = told(port), told(port + 1)
    rows = {outcome: found["headrace_stream_rows_total", outcome, "spending"] for outcome in
            ("folded", "repeat", "too_late", "filtered", "held")}  # fmt: skip
    assert rows == {"folded": 2, "repeat": 1, "too_late": 1, "filtered": 0, "held": 0}
    assert found["headrace_stream_newest_event_seconds", "spending"] == (START_US + DAY_US) / 1e6
    assert found["headrace_stream_dead_letters_total", "undecodable", shop.topic] == 1
    assert found["headrace_stream_lag", "0", shop.topic] == 0
    assert found["headrace_stream_idle_seconds", "1", shop.topic] >= 0
    assert found["headrace_stream_commits_total",] >= 1
    assert found["headrace_stream_store_trouble",] == 0
    assert log["headrace_log_lag", "0", shop.topic] == 0


def test_rows_behind_the_newest_are_late(services: Services, prefix: str, tmp_path: Path) -> None:
    port = free_pair()
    shop = Shop(services, prefix, tmp_path, VIEWS, settings=f"[stream]\nmetrics_port = {port}\n")
    with shop.streaming() as run:
        send(shop, ("a", START_US + 60_000_000))
        shop.wait(run)
        send(shop, ("b", START_US), ("c", START_US + 61_000_000))
        shop.wait(run)
        assert told(port)["headrace_stream_late_rows_total", "spending"] == 1


def test_a_port_that_is_taken_is_told(services: Services, prefix: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shop = Shop(services, prefix, tmp_path, VIEWS, settings=f"[stream]\nmetrics_port = {port}\n")
        with shop.streaming() as run:
            error = run.fails()
    assert isinstance(error, ConfigError)
    assert f"127.0.0.1:{port} must be free for worker 0" in str(error)


def test_a_clock_that_is_set_is_noticed_and_changes_nothing(
    services: Services, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backwards, by an hour, while events arrive."""
    shift, real = [0.0], time.time
    shop = Shop(services, prefix, tmp_path, VIEWS, seed=81)
    with shop.streaming() as run:
        monkeypatch.setattr(time, "time", lambda: real() + shift[0])
        shop.produce(100)
        shop.wait(run)
        shift[0] = -3600.0
        shop.produce(100)
        shop.wait(run)
    assert shop.check() > 100


def test_the_clock_counts_steps_and_not_the_passing_of_time() -> None:
    wall, steady = [1000.0], [5.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    for pass_s, step_s, seen in ((60.0, 0.0, None), (1.0, -3600.0, -3600.0), (1.0, 0.4, None), (9.0, 7200.0, 7200.0)):
        wall[0] += pass_s + step_s
        steady[0] += pass_s
        assert clock.look() == (None if seen is None else pytest.approx(seen))
    assert clock.steps == 2
