"""Freshness: from the moment at which an event is due to be produced until a reader sees it, at 5, 20 and 50 thousand events a second.

A feed keeps the rate whatever happens. Beside it, probes fall due at a fixed pace: each is a payment of a card that nobody else has, and a reader
looks for it through the product's own read path until its features count it. Latency is counted from the scheduled moment, so a stall
is seen by every probe that falls into it. Headrace, which is the worker and its log writer, has the first core; broker, store, feed, probes and
reader share the other, and where that is not enough for them they wait for each other, which counts. The last row kills the worker with SIGKILL in the middle, under its supervisor. Apache Kafka and Redis serve where they are to be had,
otherwise the embedded stack, whose broker answers the more slowly the more it holds.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from headrace_ops.processes import Child, spawn_module
from headrace_schemas.codecs import EventCodec
from headrace_schemas.keys import encode_key
from headrace_schemas.loading import load_project
from headrace_schemas.stores import kafka, online
from ops.benchmarks.feed import Feed
from ops.benchmarks.peers.services import missing
from ops.benchmarks.peers.services import services as real
from ops.benchmarks.report import Row, options, publish, row
from ops.benchmarks.stream import FROM_US, on_first_core, on_last_core
from ops.benchmarks.stream import services as embedded

PROJECT = Path(__file__).parent / "peers" / "project"
RATES = (5_000, 20_000, 50_000)
EVERY_S = 0.01
WARM_S, LOST_S = 8.0, 30.0  # a JVM that is warming up is not what is measured
CLAIM_S = 60.0
TARGETS = {50_000: (5.0, 20.0)}


def main() -> int:
    """Measure."""
    chosen = options(__doc__ or "")
    seconds = 5.0 if chosen.quick else 20.0
    rows: list[Row] = []
    for rate in RATES[1:2] if chosen.quick else RATES:
        ms, late = measure(rate, seconds)
        rows += percentiles(f"freshness at {rate:,} events/s", ms, TARGETS.get(rate))
        print(f"  {rate:,} events/s: {len(ms)} probes, the feed was at most {late * 1000:.0f} ms late", file=sys.stderr)
    ms, _ = measure(20_000, seconds, kill=True)
    rows += percentiles("freshness at 20,000 events/s, the worker killed once", ms, None)
    publish(
        rows,
        chosen,
        [f"one view, four windows × four aggregations; exactly once, the log written beside it; {_served_by()}"],
    )
    return 0


def percentiles(what: str, ms: np.ndarray, targets: tuple[float, float] | None) -> list[Row]:
    """The rows of a run: median, p99, p99.9, each with the spread over its thirds."""
    rows = []
    for place, percent in enumerate((50.0, 99.0, 99.9)):
        thirds = [float(np.percentile(part, percent)) for part in np.array_split(ms, 3)]
        least = None if targets is None or place > 1 else targets[place]
        found = row(f"{what}, p{percent:g}", thirds, "ms", at_most=least)
        value = float(np.percentile(ms, percent))
        rows.append(
            Row(
                found.what,
                value,
                "ms",
                found.low,
                found.high,
                target=found.target,
                met=None if least is None else value <= least,
            )
        )
    return rows


def measure(rate: int, seconds: float, *, kill: bool = False) -> tuple[np.ndarray, float]:
    """Latencies in milliseconds of all probes, and how late the feed was at most, in seconds."""
    with _services() as environ, ProcessPoolExecutor(2, get_context("spawn")) as others:
        environ |= {"HEADRACE_NAMESPACE": f"fresh-{secrets.token_hex(4)}"}
        loaded = load_project(PROJECT, environ)
        event = loaded.project.event("payments")
        kafka.ensure_topics(loaded.settings.kafka, {event.topic: 4})
        with running(environ) as worker:
            feeding = others.submit(feed, environ, rate, WARM_S + seconds)
            probing = others.submit(probe, environ, seconds)
            if kill:
                time.sleep(WARM_S + seconds / 2)
                os.kill(_workers(worker)[-1], signal.SIGKILL)
            return np.array(probing.result()) * 1000, feeding.result()


def _served_by() -> str:
    return "the embedded stack" if missing() else "Apache Kafka and Redis"


@contextmanager
def _services() -> Iterator[dict[str, str]]:
    """Services on the last core, and the environment that leads a project to them."""
    if missing():
        with embedded() as environ:
            yield environ
        return
    with on_last_core(), real() as found:
        yield {
            **os.environ,
            "HEADRACE_KAFKA": found.kafka,
            "HEADRACE_REDIS": f"redis://{found.redis}/0",
            **{f"HEADRACE_{part.upper()}_PATH": str(found.scratch / part) for part in ("log", "registry", "run")},
        }


@contextmanager
def running(environ: dict[str, str]) -> Iterator[Child]:
    """The feature pipeline on the first core under its supervisor, and the log writer on the other."""
    arguments = ["--project", str(PROJECT), "--role"]
    run = Path(environ["HEADRACE_RUN_PATH"])
    with on_first_core():
        stream = spawn_module(
            "stream", "headrace_streams", [*arguments, "stream", "--supervise"], log=run / "stream.log", env=environ
        )
        writer = spawn_module("log", "headrace_streams", [*arguments, "log"], log=run / "log.log", env=environ)
    try:
        _await_claim(stream)
        yield stream
    finally:
        stream.stop()
        writer.stop()


def _await_claim(stream: Child) -> None:
    deadline = time.monotonic() + CLAIM_S
    while '"claimed"' not in stream.log.read_text():
        if not stream.alive() or time.monotonic() > deadline:
            raise SystemExit(f"the worker does not begin:\n{stream.log_tail()}")
        time.sleep(0.1)


def _workers(supervisor: Child) -> list[int]:
    notes = [json.loads(line) for line in supervisor.log.read_text().splitlines() if line.startswith("{")]
    return list([note for note in notes if note["event"] == "started"][-1]["pids"])


def feed(environ: dict[str, str], rate: int, seconds: float) -> float:
    """Keep the rate for a while; how late it was at most."""
    loaded, late = load_project(PROJECT, environ), 0.0
    with Feed(loaded, rate) as feeding:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(0.05)
            late = max(late, passed - feeding.sent / rate)
    return late


def probe(environ: dict[str, str], seconds: float) -> list[float]:
    """Send a probe now and then, and look for all that are under way; the latency of each in seconds, in their order."""
    loaded = load_project(PROJECT, environ)
    event, view = loaded.project.event("payments"), loaded.project.views[0]
    codec, producer = EventCodec(event), kafka.producer(loaded.settings.kafka, linger_ms=0)
    client = online.connect(loaded.settings.redis)
    reader = online.OnlineReader(client, loaded.settings.namespace)
    count = view.feature_names.index("n_7d")
    total = int((WARM_S + seconds) / EVERY_S)
    values = [
        codec.encode({"card": f"probe{n:07d}", "merchant": "m", "device": "d", "paid_at": FROM_US + n, "amount": 1.0})
        for n in range(total)
    ]
    keys = [encode_key((f"probe{n:07d}",)) for n in range(total)]
    waiting: dict[int, float] = {}
    latency: dict[int, float] = {}
    began, sent = time.monotonic(), 0
    while len(latency) < total:
        now = time.monotonic()
        while sent < total and began + sent * EVERY_S <= now:
            producer.produce(event.topic, values[sent], partition=sent % 4)
            waiting[sent] = began + sent * EVERY_S
            sent += 1
        producer.poll(0)
        if waiting:
            numbers = list(waiting)
            read = reader.features(view, [keys[n] for n in numbers], FROM_US + total)
            now = time.monotonic()
            for number, seen in zip(numbers, read[:, count].tolist(), strict=True):
                if seen >= 1:
                    latency[number] = now - waiting.pop(number)
            if waiting and now - min(waiting.values()) > LOST_S:
                raise SystemExit(f"{len(waiting)} probes are not readable after {LOST_S:g} s")
        time.sleep(0.001)
    client.close()
    return [latency[number] for number in range(int(WARM_S / EVERY_S), total)]


if __name__ == "__main__":
    sys.exit(main())
