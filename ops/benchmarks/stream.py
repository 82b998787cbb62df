"""Stream: Kafka Avro → three views × four windows × four aggregations → Redis, one worker, exactly once.

The worker runs on one core, the embedded broker and store on another (where there are two). All events are on the topic before
the worker starts; its rate is taken between the first and the last committed tenth, so that start-up does not count. The floor
is the same topic consumed and decoded in one process on the same core: no features, no store.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace_ops.embedded import EmbeddedStack
from headrace_ops.processes import spawn_module
from headrace_schemas.codecs import EventCodec
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.records import open_records
from headrace_streams.source import SETTINGS
from ops.benchmarks.report import Row, options, publish, row

HERE = Path(__file__).parent
PARTITIONS = 4
DAYS = 14
FROM_US = 1_700_000_000_000_000
CARDS, MERCHANTS, DEVICES = 100_000, 5_000, 50_000
PATIENCE_S, WAIT_S = 120.0, 0.0005
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def main() -> int:
    chosen = options(__doc__ or "")
    events, rounds = (400_000, 1) if chosen.quick else (1_500_000, 3)
    rows: list[Row] = []
    for keys in ("zipf", "uniform"):
        with services() as environ:
            loaded = load_project(HERE / "payments", environ)
            produce(loaded, events, keys)
            floor = [consume_and_decode(loaded, events) for _ in range(rounds)]
            rates = [stream(loaded, environ, events) for _ in range(rounds)]
        rows.append(
            row(
                f"stream, {keys} keys: Avro → 3 views × 4 windows × 4 aggregations → Redis, exactly once, one worker",
                rates,
                "events/s",
                reference=("consume + decode only", floor),
                at_least=150_000,
            )
        )
    publish(rows, chosen, [f"{events:,} events over {DAYS} days of event time, {CARDS:,} cards, embedded services"])
    return 0


@contextmanager
def services() -> Iterator[dict[str, str]]:
    """The embedded stack on the second core, and the environment that leads a project to it."""
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStack(Path(scratch)) as stack:
        if len(CORES) > 1:
            for pid in (stack.broker.pid, stack.redis.pid):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), {CORES[-1]})
        yield {
            **os.environ,
            "HEADRACE_KAFKA": stack.addresses.kafka,
            "HEADRACE_REDIS": stack.addresses.redis,
            "HEADRACE_LOG_PATH": f"{scratch}/log",
            "HEADRACE_REGISTRY_PATH": f"{scratch}/registry",
            "HEADRACE_RUN_PATH": f"{scratch}/run",
        }


def produce(loaded: LoadedProject, events: int, keys: str, *, cards: int = CARDS) -> None:
    """Put the events on the topic, in event-time order.

    Args:
        loaded: the project.
        events: how many.
        keys: how entities are drawn.
        cards: how many there are.
    """
    event = loaded.project.event("payments")
    kafka.ensure_topics(loaded.settings.kafka, {event.topic: PARTITIONS})
    codec = EventCodec(event)
    producer = kafka.producer(loaded.settings.kafka, linger_ms=20, queue_buffering_max_messages=1_000_000)
    drawn = payments(events, keys, cards=cards)
    for i in range(events):
        card = card_name(drawn.card[i])
        record = {
            "card": card,
            "merchant": f"m{drawn.merchant[i]:05d}",
            "device": f"d{drawn.device[i]:05d}",
            "paid_at": int(drawn.paid_at_us[i]),
            "amount": float(drawn.amount[i]),
        }
        producer.produce(event.topic, codec.encode(record), card.encode())
        if not i % 1024:
            producer.poll(0)
            if i % 51_200 == 0:
                print(f"\r{keys}: {i:,} of {events:,} events produced", end="", file=sys.stderr, flush=True)
    if producer.flush(60) != 0:
        raise SystemExit("the broker did not take all events within 60 s")
    print(f"\r{keys}: {events:,} events produced{' ' * 20}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Payments:
    """What is on the topic, column by column, in event-time order."""

    card: npt.NDArray[np.int64]
    merchant: npt.NDArray[np.int64]
    device: npt.NDArray[np.int64]
    paid_at_us: npt.NDArray[np.int64]
    amount: npt.NDArray[np.float64]


def payments(events: int, keys: str, *, cards: int = CARDS) -> Payments:
    """The events that `produce` puts on the topic: the same arguments, the same events."""
    rng = np.random.default_rng(7)
    card, merchant, device = (draw(rng, keys, n, events) for n in (cards, MERCHANTS, DEVICES))
    step_us = DAYS * 86_400_000_000 // events
    amount = rng.gamma(2.0, 30.0, events).round(2)
    return Payments(card, merchant, device, FROM_US + np.arange(events) * step_us, amount)


def card_name(number: int) -> str:
    """A card as its events name it."""
    return f"card{number:07d}"


def draw(rng: np.random.Generator, keys: str, distinct: int, n: int) -> npt.NDArray[np.int64]:
    """Entity numbers: each once, uniform, or zipf with exponent 1.1 over a shuffled range."""
    if keys == "each once":
        return rng.permutation(n) % distinct
    if keys == "uniform":
        return rng.integers(0, distinct, n)
    weights = 1 / np.arange(1, distinct + 1) ** 1.1
    shares = np.cumsum(weights / weights.sum())
    return rng.permutation(distinct)[np.searchsorted(shares, rng.random(n)).clip(max=distinct - 1)]


def consume_and_decode(loaded: LoadedProject, events: int) -> float:
    """Events per second of the floor."""
    event = loaded.project.event("payments")
    codec = EventCodec(event, loaded.project.views)
    codec.warm()
    with on_first_core(), closing(open_records(loaded.settings.kafka, **SETTINGS)) as reader:
        reader.assign([(event.topic, partition, 0) for partition in range(PARTITIONS)])
        while not (fetched := reader.fetch(1, 0)[0]):  # the connection is up
            time.sleep(WAIT_S)
        decoded = -1
        started = time.perf_counter()
        while decoded < events - 1:
            for one in fetched:
                decoded += codec.decode(one.raw).frame.height
            if not (fetched := reader.fetch(20_000, 0)[0]):
                time.sleep(WAIT_S)
    return decoded / (time.perf_counter() - started)


def stream(loaded: LoadedProject, environ: dict[str, str], events: int, *, module: str = "headrace_streams") -> float:
    """Events per second that one worker commits, from the first tenth to the end.

    Args:
        loaded: the project.
        environ: leads to the services.
        events: on the topic.
        module: what runs as the worker.
    """
    namespace = f"bench-{secrets.token_hex(4)}"
    log = Path(environ["HEADRACE_RUN_PATH"]) / "stream.log"
    with on_first_core():
        worker = spawn_module(
            "stream",
            module,
            ["--project", str(loaded.root), "--role", "stream"],
            log=log,
            env={**environ, "HEADRACE_NAMESPACE": namespace},
        )
    client = online.connect(loaded.settings.redis)
    samples: list[tuple[float, int]] = []
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not samples or samples[-1][1] < events:
            if not worker.alive() or time.monotonic() > deadline:
                raise SystemExit(f"the worker did not commit all events:\n{worker.log_tail()}")
            done = min(sum(online.progress(client, namespace, view).values()) for view in loaded.project.views)
            if not samples or done > samples[-1][1]:
                samples.append((time.perf_counter(), done))
            time.sleep(0.02)
    finally:
        worker.stop()
    first = next(sample for sample in samples if sample[1] >= events // 10)
    return (samples[-1][1] - first[1]) / (samples[-1][0] - first[0])


def on_first_core() -> AbstractContextManager[None]:
    """What is started meanwhile runs on the first core."""
    return _on(0)


def on_last_core() -> AbstractContextManager[None]:
    """What is started meanwhile runs on the last core."""
    return _on(-1)


@contextmanager
def _on(place: int) -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _all_threads_on({CORES[place]})
    try:
        yield
    finally:
        _all_threads_on(before)


def _all_threads_on(cores: set[int]) -> None:
    """Children are started by a thread of their own, and inherit its cores, not the caller's."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


if __name__ == "__main__":
    sys.exit(main())
