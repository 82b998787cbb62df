"""What exactly once costs, and how fast it heals.

protocol    the same pipeline with plain MSETs of the same states (`plain_mset.py`), round by round in turn
recovery    20,000 events a second come all the time; a worker is killed: how long until what is 100 ms old is readable again
readers     open loop, latency from the scheduled moment: MGET of three states, while 36,000 states a second are written
rebuild     an empty store, a topic that keeps nothing: everything comes from the log
restart     a million cards are known; 200,000 events wait: how long from the start of the process until all is committed
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import LogTable, event_log
from headrace_schemas.stores.resp import Address, Connection, pack
from ops.benchmarks.feed import Feed
from ops.benchmarks.paced import WRITE_RATE
from ops.benchmarks.report import Row, options, publish, row
from ops.benchmarks.stream import HERE, PATIENCE_S, on_first_core, produce, services, stream

RATE = 20_000
READ_RATE, READS_S = 500, 8.0
FRESH_S = 0.1


def main() -> int:
    chosen = options(__doc__ or "")
    rows = [
        *protocol(chosen.quick),
        *recovery(chosen.quick),
        *readers(chosen.quick),
        *restart(chosen.quick),
        *rebuild(chosen.quick),
    ]
    publish(rows, chosen, ["embedded services; the worker on one core, services, producer and readers on the other"])
    return 0


# --- protocol ---------------------------------------------------------------------------------------------------------


def protocol(quick: bool) -> Iterator[Row]:
    """Throughput with the protocol and without."""
    events, rounds = (300_000, 1) if quick else (1_000_000, 3)
    for keys in ("zipf", "uniform"):
        with services() as environ:
            loaded = load_project(HERE / "payments", environ)
            produce(loaded, events, keys)
            whole, plain = [], []
            for _ in range(rounds):
                whole.append(stream(loaded, environ, events))
                plain.append(stream(loaded, environ, events, module="ops.benchmarks.plain_mset"))
        least = 0.75 * float(np.median(plain))
        yield row(f"protocol, {keys} keys: throughput with it", whole, "events/s", reference=("plain MSET", plain),
                  at_least=least)  # fmt: skip


# --- recovery ---------------------------------------------------------------------------------------------------------


def recovery(quick: bool) -> Iterator[Row]:
    """From kill -9 to fresh again; two workers only where there are cores for them beside the services."""
    for workers in (1, 2) if (os.cpu_count() or 1) >= 4 else (1,):
        found, phases = [], []
        for _ in range(2 if quick else 5):
            # New services each time: the embedded broker answers later the more it holds.
            with services() as environ:
                environ |= {"HEADRACE_NAMESPACE": f"bench-{secrets.token_hex(4)}", "HEADRACE_WORKERS": str(workers)}
                loaded = load_project(HERE / "payments", environ)
                with Feed(loaded, RATE) as feed, supervised(loaded, environ, pinned=workers == 1) as supervisor:
                    until_fresh(loaded, feed)
                    time.sleep(1.0)
                    killed_at, at = time.monotonic(), time.time()
                    os.kill(started(supervisor)[-1]["pids"][-1], signal.SIGKILL)
                    until(partial(is_replaced, supervisor), "a new group")
                    until_fresh(loaded, feed)
                    found.append(time.monotonic() - killed_at)
                    phases.append(told(supervisor, at))
        print(f"  seconds after the kill, {workers} worker(s): {'; '.join(phases)}")
        yield row(
            f"recovery: a worker of {workers} killed at {RATE:,} events/s, until fresh again", found, "s", at_most=3.0
        )


@contextmanager
def supervised(
    loaded: LoadedProject, environ: dict[str, str], *, pinned: bool = True, module: str = ""
) -> Iterator[Child]:
    """The feature pipeline under its supervisor, or a variant of it alone; on the first core unless it may use all."""
    with on_first_core() if pinned else nullcontext():
        child = spawn_module(
            "stream", module or "headrace_streams",
            ["--project", str(loaded.root), "--role", "stream", *([] if module else ["--supervise"])],
            log=Path(environ["HEADRACE_RUN_PATH"]) / f"{secrets.token_hex(4)}.log", env=environ,
        )  # fmt: skip
    try:
        yield child
    finally:
        child.stop()


def notes(child: Child) -> list[dict[str, object]]:
    """The journal."""
    lines = child.log.read_text(errors="replace").splitlines() if child.log.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def started(child: Child) -> list[dict[str, list[int]]]:
    """The groups that were started."""
    return [note for note in notes(child) if note["event"] == "started"]  # type: ignore[misc]


def is_replaced(child: Child) -> bool:
    """Whether another group was started."""
    return len(started(child)) > 1


def told(child: Child, since_s: float) -> str:
    """When the journal said what, in seconds after a moment; the last of several."""
    moments: dict[str, float] = {}
    for note in notes(child):
        at = np.datetime64(str(note["at"]).removesuffix("Z")).astype("datetime64[ms]").astype(np.int64) / 1000 - since_s
        if at > 0 and note["event"] in ("failed", "started", "starting", "claimed"):
            moments[str(note["event"])] = at
    return ", ".join(f"{event} {at:.2f}" for event, at in moments.items())


def committed(client: online.redis.Redis, loaded: LoadedProject) -> int:
    """How many events every view has committed."""
    return min(sum(online.progress(client, loaded.settings.namespace, view).values()) for view in loaded.project.views)


def until_fresh(loaded: LoadedProject, feed: Feed) -> None:
    """Wait until everything is readable that was sent `FRESH_S` ago."""
    client = online.connect(loaded.settings.redis)
    # Twice, so that a moment in which little was sent does not pass for freshness.
    for _ in range(2):
        until(lambda: committed(client, loaded) >= max(feed.sent_at(time.monotonic() - FRESH_S), 1), "fresh features")
        time.sleep(0.02)
    client.close()


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} within {PATIENCE_S:g} s")
        time.sleep(0.005)


# --- readers ----------------------------------------------------------------------------------------------------------


def readers(quick: bool) -> Iterator[Row]:
    """p99 of reads while states are written, and while they are not; the reader is a process of its own."""
    rounds, idle, busy, middle = 1 if quick else 3, [], [], []
    with services() as environ, ProcessPoolExecutor(1, get_context("spawn")) as reader:
        loaded = load_project(HERE / "payments", environ)
        produce(loaded, int(WRITE_RATE * (READS_S + 12) * rounds), "uniform")
        environ |= {"HEADRACE_NAMESPACE": f"bench-{secrets.token_hex(4)}"}
        loaded = load_project(HERE / "payments", environ)
        client = online.connect(loaded.settings.redis)
        for _ in range(rounds):
            idle.append(float(np.percentile(reader.submit(read, environ).result(), 99)))
            before = committed(client, loaded)
            with supervised(loaded, environ, module="ops.benchmarks.paced"):
                until(lambda known=before: committed(client, loaded) > known + WRITE_RATE, "events at the rate")  # type: ignore[misc]
                first = committed(client, loaded)
                taken = reader.submit(read, environ).result()
                rate = (committed(client, loaded) - first) / READS_S
            if rate < 0.9 * WRITE_RATE:
                raise SystemExit(f"only {rate:,.0f} events/s were committed while it was read")
            busy.append(float(np.percentile(taken, 99)))
            middle.append(float(np.percentile(taken, 50)))
        client.close()
    states = f"{3 * WRITE_RATE:,} states/s are written"
    yield row(f"readers: MGET of 3 states, p50 while {states}", middle, "ms")
    yield row(
        f"readers: MGET of 3 states, p99 while {states}", busy, "ms", reference=("nothing written", idle), at_most=2.0
    )


def read(environ: Mapping[str, str]) -> Sequence[float]:
    """Latencies in ms of an open loop of reads."""
    loaded = load_project(HERE / "payments", environ)
    view = loaded.project.view("card_payments")
    keys, rng = ViewKeys(loaded.settings.namespace, view), np.random.default_rng(5)
    names = [
        [keys.locate(encode_key((f"card{rng.integers(100_000):07d}",))) for _ in range(3)]
        for _ in range(int(READ_RATE * READS_S))
    ]
    commands = [pack("MGET", *some) for some in names]
    connection, taken = Connection(Address.parse(loaded.settings.redis), 5.0), []
    began = time.perf_counter() + 0.1
    for number, command in enumerate(commands):
        due = began + number / READ_RATE
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left if left < 0.0005 else left - 0.0003)
        connection.send(command)
        connection.wait()
        taken.append(1000 * (time.perf_counter() - due))
    connection.close()
    return taken


# --- restart ----------------------------------------------------------------------------------------------------------


def restart(quick: bool) -> Iterator[Row]:
    """A worker that begins where millions of cards are known."""
    for cards, waiting in ((100_000, 50_000),) if quick else ((1_000_000, 200_000), (3_000_000, 200_000)):
        yield _restart(cards, waiting, rounds=1 if quick else 3)


def _restart(cards: int, waiting: int, *, rounds: int) -> Row:
    with services() as environ:
        environ |= {"HEADRACE_NAMESPACE": f"bench-{secrets.token_hex(4)}"}
        loaded = load_project(HERE / "payments", environ)
        produce(loaded, cards, "each once", cards=cards)
        catch_up(loaded, environ, cards)
        found = []
        for round_ in range(1, rounds + 1):
            produce(loaded, waiting, "uniform", cards=cards)
            found.append(catch_up(loaded, environ, cards + round_ * waiting))
    return row(f"restart: {cards:,} cards known, {waiting:,} events wait, until caught up", found, "s", at_most=10.0)


def catch_up(loaded: LoadedProject, environ: dict[str, str], events: int) -> float:
    """Start a worker, wait until everything is committed, stop it; how long that took from its start."""
    began = time.monotonic()
    with supervised(loaded, environ):
        client = online.connect(loaded.settings.redis)
        until(lambda: committed(client, loaded) >= events, "end of the topic")
        client.close()
        return time.monotonic() - began


# --- rebuild ----------------------------------------------------------------------------------------------------------


def rebuild(quick: bool) -> Iterator[Row]:
    """Events a second from the log into an empty store."""
    events, rounds = (300_000, 1) if quick else (1_500_000, 3)
    for keys in ("zipf", "uniform"):
        with services() as environ:
            loaded = load_project(HERE / "payments", environ)
            produce(loaded, events, keys)
            log = write_log(loaded, environ)
            rates, scans = [], []
            for _ in range(rounds):
                scans.append(scan(log))
                rates.append(stream(loaded, environ, events, module="ops.benchmarks.from_log"))
        yield row(f"rebuild from the log, {keys} keys, one worker", rates, "events/s",
                  reference=("reading the log only", scans), at_least=500_000)  # fmt: skip


def write_log(loaded: LoadedProject, environ: dict[str, str]) -> LogTable:
    """Let the log writer take the whole topic."""
    event = loaded.project.event("payments")
    writer = spawn_module(
        "log", "headrace_streams", ["--project", str(loaded.root), "--role", "log"],
        log=Path(environ["HEADRACE_RUN_PATH"]) / "log.log", env=environ,
    )  # fmt: skip
    ends, log = kafka.end_offsets(loaded.settings.kafka, event.topic), event_log(loaded.settings, event)
    try:
        until(lambda: log.watermark() == ends, "log of all events")
    finally:
        writer.stop()
    return log


def scan(log: LogTable) -> float:
    """Rows a second of reading the log as a rebuild does, and nothing else."""
    with on_first_core():
        began, rows = time.perf_counter(), 0
        for partition, end in log.watermark().items():
            rows += log.read(partition, 0, end).height
        return rows / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
