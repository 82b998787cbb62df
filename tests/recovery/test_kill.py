"""kill -9 at any moment: the supervisor starts again, and nothing is lost or counted twice.

Events keep coming while worker groups are killed at seeded moments. In the end every read equals the oracle's, and every state
equals, in canonical form, that of a run that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

from headrace import kernel
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log
from headrace_streams.flow import part_name
from tests.services import Services
from tests.streams.shop import Group, Shop

KILLS = 4


def kill_often(shop: Shop, group: Group, kills: int, seed: int) -> list[dict[str, int]]:
    """Kill each worker group some time after it claimed its lanes, while events arrive; what was open at each kill."""
    chance, told = random.Random(seed), []
    for kill in range(kills):
        deadline = time.monotonic() + 60
        while len(group.noted("claimed")) <= kill:
            assert time.monotonic() < deadline, f"group {kill} never claimed its lanes"
            time.sleep(0.005)
        shop.produce(chance.randrange(300, 900))
        time.sleep(chance.choice([0.02, 0.2, 0.4]) * chance.random())  # before, during and behind the first flushes
        pid = group.pids()[0]
        lag = lag_of(shop)
        os.kill(pid, signal.SIGKILL)
        told.append({"pid": pid, "lag": lag})
    return told


def lag_of(shop: Shop) -> int:
    """Events that are on the topic and not yet committed for every view."""
    ends = kafka.end_offsets(shop.services.kafka, shop.topic)
    reached = [online.progress(shop.client, shop.namespace, view) for view in shop.loaded.project.views]
    return sum(end - min(positions.get(partition, 0) for positions in reached) for partition, end in ends.items())


def canonical_states(shop: Shop) -> dict[bytes, bytes]:
    """Every state in the form in which equal contents are equal bytes, by view and entity key."""
    found = {}
    for view in shop.loaded.project.views:
        layout = kernel.Layout.of(view)
        tag = f"{{{shop.namespace}:{view.name}:".encode()
        for name, state in shop.states().items():
            if name.startswith(tag):
                found[view.name.encode() + name.partition(b"}s")[2]] = kernel.canonical(layout, state)
    return found


def test_killed_worker_groups_lose_nothing_and_count_nothing_twice(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    (killed := tmp_path / "killed").mkdir()
    (quiet := tmp_path / "quiet").mkdir()
    shop = Shop(services, prefix, killed, seed=11)
    shop.produce(500)
    with shop.supervised() as group:
        told = kill_often(shop, group, KILLS, seed=11)
        shop.wait()
        deadline = time.monotonic() + 60
        while len(group.noted("started")) <= KILLS:  # the last kill may have struck when everything was committed
            assert time.monotonic() < deadline, group.noted("started")
            time.sleep(0.05)
        assert group.stop() == 0
    print(f"kills on {services.name}: {told}")
    claims = group.noted("started")
    assert [bool(start["succeeds"]) for start in claims] == [False] + [True] * KILLS
    assert shop.check() > 400
    undisturbed = Shop(services, prefix, quiet, seed=0)
    undisturbed_root = undisturbed.root / "headrace.toml"
    undisturbed_root.write_text(undisturbed_root.read_text().replace(f'"{prefix}n"', f'"{prefix}quiet"'))
    undisturbed.declare_again()
    with undisturbed.streaming() as run:
        undisturbed.wait(run)
    assert canonical_states(shop) == canonical_states(undisturbed)


def test_a_killed_log_writer_writes_every_row_once(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, seed=12)
    chance = random.Random(12)
    with shop.supervised("log") as group:
        for kill in range(3):
            while len(group.noted("starting")) <= kill:
                time.sleep(0.01)
            shop.produce(400)
            time.sleep(chance.random() * 0.8)
            os.kill(group.pids()[0], signal.SIGKILL)
        shop.produce(100)
        log = event_log(shop.loaded.settings, shop.loaded.project.event("paid"))
        ends, deadline = kafka.end_offsets(services.kafka, shop.topic), time.monotonic() + 60
        while log.watermark() != ends:
            assert time.monotonic() < deadline, f"{ends} wanted, {log.watermark()} reached"
            time.sleep(0.05)
        assert group.stop() == 0
    rows = log.scan().select("id", "_partition", "_offset").collect()
    assert sorted(rows.rows()) == sorted((e["id"], e["_partition"], e["_offset"]) for e in shop.events)


def test_a_group_of_two_processes_shares_the_lanes_and_survives_a_kill(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    assert part_name(0) < part_name(1)
    shop = Shop(services, prefix, tmp_path, settings="[stream]\nworkers = 2\n", seed=13)
    shop.produce(1000)
    with shop.supervised() as group:
        shop.wait()
        os.kill(group.pids()[1], signal.SIGKILL)
        feed = threading.Thread(target=shop.produce, args=(600,))
        feed.start()
        feed.join()
        shop.wait()
        assert group.stop() == 0
    assert len(group.noted("started")) == 2
    shop.check()
