"""What is done to a running pipeline and its services: one small function per fault, enrolled by its decorator.

A fault strikes and, where it stands for an outage, ends it again; it waits for nothing else. What may not live here: choosing, judging.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from redis.crc import key_slot

from headrace_schemas.keys import ViewKeys
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log
from headrace_streams.errors import FENCED
from tests.recovery.chaos.payments import Payments
from tests.recovery.chaos.pipeline import Pipeline
from tests.recovery.chaos.proxy import Proxy, Way
from tests.recovery.chaos.reader import Reader
from tests.recovery.chaos.setups import APACHE, KINDS, Setup
from tests.recovery.chaos.teller import Ending

_OPEN_S = (2.0, 8.0)  # how long a transaction is left open, while more faults come
_LEAST_EXPIRED = 500


@dataclass(frozen=True, slots=True)
class Stage:
    """What a fault may touch."""

    setup: Setup
    pipeline: Pipeline
    payments: Payments
    reader: Reader
    chance: random.Random
    log_disk: Path | None  # a small disk that holds the log, if one could be mounted
    keeps: dict[int, int] = field(default_factory=dict)
    """By partition, the first offset that the topic is to keep; see `_find_old`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Args:
        name: for the report.
        strike: does it.
        kinds: the services on which it exists.
        role: whose work it strikes: ``stream`` or ``log``.
        most: how often in one run.
        prepare: what has to be done before it, while nothing is held back for it.
    """

    name: str
    strike: Callable[[Stage], None]
    kinds: tuple[str, ...]
    role: str
    most: int
    prepare: Callable[[Stage], None]


FAULTS: list[Fault] = []


def fault(
    name: str, *, on: tuple[str, ...] = KINDS, role: str = "stream", most: int = 1_000,
    prepare: Callable[[Stage], None] = lambda _: None,
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:  # fmt: skip
    """Enrol a fault."""

    def enrol(strike: Callable[[Stage], None]) -> Callable[[Stage], None]:
        FAULTS.append(Fault(name, strike, on, role, most, prepare))
        return strike

    return enrol


# --- the pipeline's own processes ---------------------------------------------------------------------------------------


@fault("kill -9 of a worker")
def _(stage: Stage) -> None:
    pids = stage.pipeline.wait_pids("stream", stage.pipeline.workers)
    stage.pipeline.signal(stage.chance.choice(pids), signal.SIGKILL)


@fault("kill -9 of all workers")
def _(stage: Stage) -> None:
    for pid in stage.pipeline.wait_pids("stream", stage.pipeline.workers):
        stage.pipeline.signal(pid, signal.SIGKILL)


@fault("a worker frozen for a while")
def _(stage: Stage) -> None:
    pid = stage.chance.choice(stage.pipeline.wait_pids("stream", stage.pipeline.workers))
    stage.pipeline.signal(pid, signal.SIGSTOP)
    time.sleep(stage.chance.uniform(0.2, 2.0))
    stage.pipeline.signal(pid, signal.SIGCONT)


@fault("a worker frozen until the supervisor finds it", most=2)
def _(stage: Stage) -> None:
    # One that has begun: a worker that starts has minutes, because the first one on a machine compiles.
    workers = stage.pipeline.until(stage.pipeline.claimed_by, "a group that owns its lanes")
    worker = stage.chance.choice(workers)
    stage.pipeline.signal(worker, signal.SIGSTOP)
    stage.pipeline.until(lambda: worker not in stage.pipeline.pids("stream"), "another worker in its place")


@fault("kill -9 of the supervisor")
def _(stage: Stage) -> None:
    stage.pipeline.signal(stage.pipeline.children["stream"].pid, signal.SIGKILL)


@fault("kill -9 of the log writer", role="log")
def _(stage: Stage) -> None:
    for pid in stage.pipeline.wait_pids("log", 1):
        stage.pipeline.signal(pid, signal.SIGKILL)


@fault("another number of workers", most=2)
def _(stage: Stage) -> None:
    stage.pipeline.stop_role("stream")
    stage.pipeline.workers = 3 if stage.pipeline.workers == 2 else 2
    stage.pipeline.start("stream")


@fault("a zombie: a frozen group wakes behind its successor", most=2)
def _(stage: Stage) -> None:
    pipeline = stage.pipeline
    workers = pipeline.wait_pids("stream", pipeline.workers)
    zombie = pipeline.children.pop("stream")
    for pid in (zombie.pid, *workers):
        pipeline.signal(pid, signal.SIGSTOP)
    try:
        pipeline.start("stream", "--take-over")
        stage.payments.burst(300)
        pipeline.until(lambda: bool(pipeline.notes("stream", "claimed")), "the successor's claim")
        time.sleep(stage.chance.uniform(0.0, 0.5))
        for pid in (*workers, zombie.pid):
            pipeline.signal(pid, signal.SIGCONT)
        code = zombie.wait(90.0)
        assert code == FENCED, f"the zombie ended with {code}:\n{zombie.log_tail(30)}"
    finally:
        if zombie.alive():
            pipeline.signal(zombie.pid, signal.SIGKILL)


# --- the broker ---------------------------------------------------------------------------------------------------------


@fault("the broker frozen for a while")
def _(stage: Stage) -> None:
    stage.setup.freeze(stage.setup.broker, stage.chance.uniform(0.3, 2.0))


@fault("kill -9 of the broker", on=APACHE, most=3)
def _(stage: Stage) -> None:
    stage.setup.kill(stage.setup.broker)


@fault("partitions added", on=APACHE, most=2)  # the embedded broker cannot
def _(stage: Stage) -> None:
    stage.payments.add_partition()


@fault("a transaction left open, then committed", on=APACHE, most=3)
def _(stage: Stage) -> None:
    stage.payments.leave_open(Ending.COMMIT, stage.chance.uniform(*_OPEN_S))


@fault("a transaction left open, then aborted", on=APACHE, most=3)
def _(stage: Stage) -> None:
    stage.payments.leave_open(Ending.ABORT, stage.chance.uniform(*_OPEN_S))


@fault("a transaction left open, until its producer is fenced", on=APACHE, most=3)
def _(stage: Stage) -> None:
    stage.payments.leave_open(Ending.FENCE, stage.chance.uniform(*_OPEN_S))


def _find_old(stage: Stage) -> None:
    """Up to where the topic may forget: what every view and the log have, and the expectation too."""
    topic, pipeline = stage.payments.topic, stage.pipeline
    firsts = kafka.first_offsets(stage.setup.kafka, topic, patience_s=60.0)
    log = event_log(pipeline.loaded.settings, pipeline.loaded.project.event("paid"))

    def done() -> dict[int, int] | None:
        committed, logged = pipeline.committed() or {}, log.watermark()
        done = {p: min(committed.get(p, 0), logged.get(p, 0)) for p in firsts}
        return done if sum(max(0, done[p] - first) for p, first in firsts.items()) > _LEAST_EXPIRED else None

    for partition, upto in pipeline.until(done, "old records").items():
        first = firsts[partition]
        stage.keeps[partition] = max(first, first + int((upto - first) * stage.chance.uniform(0.5, 1.0)))
    stage.reader.keep()


def _expire(stage: Stage) -> None:
    topic = stage.payments.topic
    admin = AdminClient({"bootstrap.servers": stage.setup.kafka, "log_level": 0})
    places = [TopicPartition(topic, partition, first) for partition, first in stage.keeps.items()]
    for future in admin.delete_records(places, request_timeout=30).values():
        future.result(40)


@fault("records expired", on=APACHE, most=3, prepare=_find_old)
def _(stage: Stage) -> None:
    _expire(stage)


@fault("records expired, and the store flushed", on=APACHE, most=3, prepare=_find_old)
def _(stage: Stage) -> None:
    _expire(stage)
    _flush(stage)


# --- the store ----------------------------------------------------------------------------------------------------------


@fault("the store frozen for a while", on=("embedded", "cluster"))
def _(stage: Stage) -> None:
    stage.setup.freeze(stage.chance.choice(stage.setup.stores), stage.chance.uniform(0.2, 1.5))


@fault("kill -9 of the store, which kept nothing", on=("embedded",))
def _(stage: Stage) -> None:
    stage.setup.kill(stage.setup.stores[0])


@fault("kill -9 of a node that kept its file", on=("cluster",))
def _(stage: Stage) -> None:
    stage.setup.kill(stage.chance.choice(stage.setup.stores))


@fault("the store flushed", most=3)
def _(stage: Stage) -> None:
    _flush(stage)


def _flush(stage: Stage) -> None:
    nodes = stage.setup.stores if stage.setup.watched is None else [stage.setup.watched.primary().server]
    for server in nodes:
        client = _client(server.address)
        client.flushall()
        client.close()


@fault("the script cache flushed")
def _(stage: Stage) -> None:
    for server in stage.setup.stores:
        client = _client(server.address)
        client.script_flush()
        client.close()


@fault("a fail-over", on=("sentinel",), most=4)
def _(stage: Stage) -> None:
    assert stage.setup.watched is not None
    stage.setup.watched.fail_over()


@fault("a fail-over to a replica that lags", on=("sentinel",), most=4)
def _(stage: Stage) -> None:
    assert stage.setup.watched is not None
    stage.payments.burst(300)
    stage.setup.watched.fail_over(lag_s=stage.chance.uniform(0.2, 0.8))


@fault("the primary frozen until another takes its place, then awake", on=("sentinel",), most=2)
def _(stage: Stage) -> None:
    watched = stage.setup.watched
    assert watched is not None
    old = watched.primary()
    old.send(signal.SIGSTOP)
    stage.pipeline.until(lambda: watched.primary() is not old, "another primary")
    old.send(signal.SIGCONT)
    stage.pipeline.until(watched.in_sync, "the old primary as a replica")


@fault("slots moved", on=("cluster",))
def _(stage: Stage) -> None:
    cluster = stage.setup.cluster
    assert cluster is not None
    view = stage.chance.choice(stage.pipeline.loaded.project.views)
    keys = ViewKeys(stage.pipeline.loaded.settings.namespace, view)
    for lane in stage.chance.sample(range(view.lanes), 3):
        slot = key_slot(keys.lane_key(lane))
        to = cluster.nodes[(cluster.nodes.index(cluster.owner(slot)) + stage.chance.randint(1, 2)) % 3]
        cluster.move(slot, to, keys_at_once=2, pause_s=0.01)


# --- the network --------------------------------------------------------------------------------------------------------


def _trouble(stage: Stage, proxy: Proxy, way: Way) -> None:
    proxy.set(way, delay_s=0.05)
    time.sleep(stage.chance.uniform(0.2, 2.0))
    proxy.set(Way.PASS)


@fault("the network to the broker cut")
def _(stage: Stage) -> None:
    _trouble(stage, stage.setup.broker_proxy, Way.CUT)


@fault("the network to the broker slow", most=2)
def _(stage: Stage) -> None:
    _trouble(stage, stage.setup.broker_proxy, Way.DELAY)


@fault("the network to the store cut", on=("embedded",))
def _(stage: Stage) -> None:
    assert stage.setup.store_proxy is not None
    _trouble(stage, stage.setup.store_proxy, Way.CUT)


@fault("the network to the store swallows", on=("embedded",))
def _(stage: Stage) -> None:
    assert stage.setup.store_proxy is not None
    _trouble(stage, stage.setup.store_proxy, Way.SWALLOW)


@fault("the network to the store slow", on=("embedded",), most=2)
def _(stage: Stage) -> None:
    assert stage.setup.store_proxy is not None
    _trouble(stage, stage.setup.store_proxy, Way.DELAY)


# --- the disk -----------------------------------------------------------------------------------------------------------


@fault("the log's disk full", role="log", most=2)
def _(stage: Stage) -> None:
    assert stage.log_disk is not None
    filler = stage.log_disk / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"\0" * 65536)
            file.flush()
    time.sleep(stage.chance.uniform(1.5, 4.0))
    filler.unlink(missing_ok=True)


def _client(address: str) -> online.redis.Redis:
    return online.redis.Redis.from_url(address, socket_timeout=20)
