"""The kernel alone: folding, reading and the size of states, beside the floor of copying the same bytes.

    python -m ops.benchmarks.kernel [--quick] [--json FILE]

Four windows (10m, 1h, 24h, 7d) x four aggregations (count, mean, min, max) of 100,000 entities, keys zipf(1.1) and uniform. Event
time runs at 50,000 events/s. States are warmed with a week of events first, so that busy entities have all their tiles. The floor
of an update is a memcpy of the states that it takes and gives; numpy's bincount is the fold of one window without any state.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace import kernel
from ops.benchmarks.report import Row, options, publish, row

ENTITIES = 100_000
WEEK_US = 7 * 86_400 * 1_000_000
ROUNDS = 3


def view() -> hr.FeatureView:
    windows = ("10m", "1h", "24h", "7d")
    paid = hr.Event(
        "paid",
        fields={"id": hr.int64(), "card": hr.int64(), "at": hr.timestamp(), "amount": hr.float64()},
        time="at",
        id="id",
    )
    return hr.FeatureView(
        "spending",
        entity=hr.Entity("card", keys={"card": hr.int64()}),
        event=paid,
        features={
            "n": hr.count().over(*windows),
            "mean": hr.mean("amount").over(*windows),
            "low": hr.min("amount").over(*windows),
            "high": hr.max("amount").over(*windows),
        },
    )


class Source:
    """Seeded batches: entities of a distribution, amounts in cents, rising times."""

    def __init__(self, layout: kernel.Layout, distribution: str, seed: int) -> None:
        self.layout, self.random = layout, np.random.default_rng(seed)
        self.offset, self.now_us = 0, 1_700_000_000_000_000
        weights = 1 / np.arange(1, ENTITIES + 1) ** 1.1 if distribution == "zipf" else np.ones(ENTITIES)
        self.cumulative = np.cumsum(weights) / weights.sum()
        self.shuffled = self.random.permutation(ENTITIES)

    def batch(self, size: int, step_us: float) -> tuple[npt.NDArray[np.int64], kernel.EventBatch]:
        entity = self.shuffled[np.searchsorted(self.cumulative, self.random.random(size))]
        at = self.now_us + (np.arange(size) * step_us).astype(np.int64)
        offset = np.arange(self.offset, self.offset + size)
        self.offset, self.now_us = self.offset + size, int(at[-1])
        columns = {"at": at, "amount": np.round(self.random.gamma(2, 20, size), 2)}
        identity = self.random.integers(0, 2**63, size).astype(np.uint64)
        batch = kernel.prepare(
            self.layout, columns, partition=np.zeros(size, np.int32), offset=offset, id_hash=identity
        )
        return entity, batch


class Store:
    """All states as separate byte strings, as a cache holds them."""

    def __init__(self, layout: kernel.Layout) -> None:
        self.layout = layout
        self.states: list[bytes | None] = [None] * ENTITIES

    def fold(self, entity: npt.NDArray[np.int64], batch: kernel.EventBatch) -> tuple[float, int]:
        """Returns the seconds in the kernel and the bytes that went in and out."""
        touched, slot = np.unique(entity, return_inverse=True)
        before = kernel.States.from_list([self.states[i] for i in touched.tolist()])
        slot = slot.astype(np.int32)
        start = time.perf_counter()
        after = kernel.update(self.layout, before, batch, slot).states
        seconds = time.perf_counter() - start
        for i, state in zip(touched.tolist(), after.to_list(), strict=True):
            self.states[i] = state
        return seconds, int(before.offsets[-1] + after.offsets[-1])


def memcpy_seconds(size: int) -> float:
    source, target = np.ones(max(size, 1), np.uint8), np.empty(max(size, 1), np.uint8)
    return min(_timed(lambda: np.copyto(target, source)) for _ in range(5))


def bincount_seconds(batch: kernel.EventBatch, entity: npt.NDArray[np.int64]) -> float:
    return min(_timed(lambda: np.bincount(entity, weights=batch.values[:, 0], minlength=ENTITIES)) for _ in range(3))


def _timed(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_updates(layout: kernel.Layout, distribution: str, quick: bool) -> tuple[list[Row], Store, Source]:
    source, store = Source(layout, distribution, 7), Store(layout)
    warm = 500_000 if quick else 3_000_000
    for _ in range(warm // 50_000):
        store.fold(*source.batch(50_000, WEEK_US / warm))
    rows = []
    for size in (500, 3_000, 30_000):
        rates, floors, counts = [], [], []
        for _ in range(ROUNDS):
            events, kernel_s, floor_s, count_s, compared = 0, 0.0, 0.0, 0.0, 0
            while kernel_s < (0.1 if quick else 0.5):
                entity, batch = source.batch(size, 20.0)
                seconds, copied = store.fold(entity, batch)
                events, kernel_s = events + size, kernel_s + seconds
                if floor_s < 0.02:
                    floor_s, compared = floor_s + memcpy_seconds(copied), compared + size
                    count_s += bincount_seconds(batch, entity)
            rates.append(events / kernel_s)
            floors.append(compared / floor_s)
            counts.append(compared / count_s)
        what, reached = (
            f"kernel update, {distribution}, batches of {size:,}",
            1_500_000 if distribution == "zipf" else None,
        )
        rows.append(
            row(what, rates, "events/s/core", reference=("memcpy of the same states", floors), at_least=reached)
        )
        rows.append(row("the same", rates, "events/s/core", reference=("bincount, one window without states", counts)))
    return rows, store, source


def measure_reads(store: Store, source: Source, distribution: str) -> Row:
    chosen = source.shuffled[np.searchsorted(source.cumulative, source.random.random(20_000))]
    states = kernel.States.from_list([store.states[i] for i in chosen.tolist()])
    at_us, each = np.full(len(states), source.now_us), 1e6 / len(states)
    reads = [_timed(lambda: kernel.read(store.layout, states, at_us)) * each for _ in range(ROUNDS)]
    copies = [memcpy_seconds(int(states.offsets[-1])) * each for _ in range(ROUNDS)]
    what = f"kernel read of 16 features, {distribution}"
    return row(what, reads, "µs", reference=("memcpy of the same states", copies), at_most=2.0)


def measure_sizes(store: Store, distribution: str, notes: list[str]) -> list[Row]:
    """The mean over entities, which is what memory costs; notes tell how it is spread."""
    states = [state for state in store.states if state]
    rows = []
    for form, name, most in ((0, "raw form", 875), (1, "tile form", 4096)):
        sizes = np.array([len(state) for state in states if state[1] == form])
        if len(sizes):
            rows.append(row(f"mean bytes per entity, {distribution}, {name}", [float(sizes.mean())], "B", at_most=most))
            p50, p99 = np.quantile(sizes, [0.5, 0.99])
            notes.append(
                f"{distribution}, {name}: {len(sizes):,} entities, bytes p50 {p50:.0f}, p99 {p99:.0f}, most {sizes.max():,}."
            )
    return rows


def main() -> None:
    chosen = options("The kernel alone: folding, reading and the size of states.")
    start = time.perf_counter()
    kernel.warm()
    notes = [f"Loading or compiling the kernel took {time.perf_counter() - start:.2f} s."]
    layout = kernel.Layout.of(view())
    rows: list[Row] = []
    for distribution in ("zipf", "uniform"):
        updates, store, source = measure_updates(layout, distribution, chosen.quick)
        rows += [*updates, measure_reads(store, source, distribution), *measure_sizes(store, distribution, notes)]
    publish(rows, chosen, notes)


if __name__ == "__main__":
    main()
