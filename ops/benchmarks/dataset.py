"""Point-in-time features on one core: three views of twelve windowed features each, beside Polars' rolling windows.

    python -m ops.benchmarks.dataset [--quick] [--json FILE]

Events and rows are in memory when the clock starts ("after load"). Both sides use one thread. Polars computes the same
windows by the usual recipe: rows are put among the events, rolled over per entity, and taken out again. On times that are
multiples of all tiles both have the same meaning, so there the values are compared; the clock runs on times that are not.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is loaded

import time
from dataclasses import dataclass

import numpy as np
import polars as pl

import headrace as hr
from headrace import kernel
from headrace_training.lookups import Effort, PackedKeys, Reads, read_past
from ops.benchmarks.report import options, publish, row

WINDOWS = {"6h": 6, "24h": 24, "168h": 168}
TILE_US = 210 * 60_000_000  # of the longest window; the other tiles divide it
START_US = 1_735_689_600_000_000
SPAN_US = 90 * 86_400_000_000
ENTITIES = {"card": 100_000, "terminal": 20_000, "merchant": 2_000}

payments = hr.Event(
    "payments",
    fields={**{name: hr.int64() for name in ENTITIES}, "at": hr.timestamp(), "amount": hr.float64(quantum="0.01")},
    time="at",
)
VIEWS = tuple(
    hr.FeatureView(
        f"{name}_history",
        entity=hr.Entity(name, keys={name: hr.int64()}),
        event=payments,
        features={
            "n": hr.count().over(*WINDOWS),
            "spent": hr.sum("amount").over(*WINDOWS),
            "usual": hr.mean("amount").over(*WINDOWS),
            "top": hr.max("amount").over(*WINDOWS),
        },
        dedupe=0,  # neither do Polars' windows look for duplicates
    )
    for name in ENTITIES
)


@dataclass(frozen=True)
class Data:
    """Events as the log keeps them, and rows to compute features for."""

    events: pl.DataFrame
    rows: pl.DataFrame


def generate(events: int, rows: int, *, aligned: bool, seed: int = 7) -> Data:
    r = np.random.default_rng(seed)

    def moments(count: int, start_us: int) -> np.ndarray:
        found = np.sort(r.integers(start_us, SPAN_US, count))
        # Aligned times lie on tiles of the epoch, as tiles do.
        return (START_US + found) // TILE_US * TILE_US if aligned else START_US + found

    def keys(count: int) -> dict[str, np.ndarray]:
        return {name: r.integers(0, size, count) for name, size in ENTITIES.items()}

    at = moments(events, 0)
    log = pl.DataFrame({**keys(events), "at": at, "amount": np.round(r.gamma(2, 30, events), 2)}).with_columns(
        _partition=pl.lit(0, pl.Int32),
        _offset=pl.int_range(pl.len(), dtype=pl.Int64),
        _event_time_us=pl.col("at"),
        _id_hash=pl.int_range(pl.len(), dtype=pl.UInt64),
    )
    return Data(log, pl.DataFrame({**keys(rows), "at": moments(rows, SPAN_US // 2)}))


def ours(data: Data, threads: int = 1) -> dict[str, np.ndarray]:
    found = {}
    for view in VIEWS:
        reads = Reads(PackedKeys.of(data.rows, view.key_fields), data.rows["at"].to_numpy())
        found[view.name] = read_past(view, data.events.lazy(), reads, effort=Effort(threads=threads))
    return found


def polars_rolling(data: Data) -> dict[str, np.ndarray]:
    found = {}
    rows = data.rows.with_row_index("_row").with_columns(pl.col("_row").cast(pl.Int64))
    for name, view in zip(ENTITIES, VIEWS, strict=True):
        both = pl.concat(
            [data.events.select(name, "at", "amount"), rows.select(name, "at", "_row")], how="diagonal"
        ).sort(name, "at")
        columns: dict[str, pl.Series] = {}
        for text, hours in WINDOWS.items():
            # Rows carry no amount, so that they are not counted; "left" leaves out what happens at the very moment.
            rolled = both.rolling("at", period=f"{hours * 3_600_000_000}i", closed="left", group_by=name).agg(
                pl.col("amount").count().alias("n"),
                pl.col("amount").sum().alias("spent"),
                pl.col("amount").mean().alias("usual"),
                pl.col("amount").max().alias("top"),
            )
            asked = rolled.with_columns(both["_row"]).filter(pl.col("_row").is_not_null()).sort("_row")
            columns |= {f"{what}_{text}": asked[what] for what in ("n", "spent", "usual", "top")}
        wanted = [columns[feature].cast(pl.Float64).fill_null(np.nan) for feature in view.feature_names]
        found[view.name] = np.stack([series.to_numpy() for series in wanted], axis=1)
    return found


def compare(data: Data) -> tuple[int, int]:
    """Values compared, and how many of them differ: counts and maxima exactly, sums and means to their rounding."""
    values = different = 0
    mine, theirs = ours(data), polars_rolling(data)
    for view in VIEWS:
        a, b = mine[view.name], theirs[view.name]
        exact = np.array([name.startswith(("n_", "top_")) for name in view.feature_names])
        close = np.isclose(a, b, rtol=1e-9, atol=1e-6, equal_nan=True)
        equal = np.where(exact, (a == b) | (np.isnan(a) & np.isnan(b)), close)
        values, different = values + equal.size, different + int((~equal).sum())
    return values, different


def timed(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    chosen = options("Point-in-time features per core, beside Polars' rolling windows on the same data.")
    kernel.warm()
    checked, different = compare(generate(20_000, 5_000, aligned=True))
    events, rows = (200_000, 100_000) if chosen.quick else (2_000_000, 1_000_000)
    data = generate(events, rows, aligned=False)
    ours(generate(1_000, 1_000, aligned=False))
    rounds = 1 if chosen.quick else 3
    alone = [timed(lambda: ours(data)) for _ in range(rounds)]
    everyone = [timed(lambda: ours(data, threads=0)) for _ in range(rounds)]
    peer = [timed(lambda: polars_rolling(data))]
    steps = len(VIEWS) * (events + rows)
    reference = ("Polars rolling, one thread", [rows / seconds for seconds in peer])
    notes = [
        f"{events:,} events, {rows:,} rows, {len(VIEWS)} views x 12 features; in memory when the clock starts.",
        f"{checked:,} values compared with Polars on aligned times: {different} differ.",
        "Keys, grouping, ordering, folding and reading are inside the clock; a step is one event or row of one view.",
    ]
    publish(
        [
            row(
                "dataset, rows of 36 features",
                [rows / s for s in alone],
                "rows/s/core",
                reference=reference,
                at_least=300_000,
            ),
            row("dataset, events + rows", [(events + rows) / s for s in alone], "/s/core"),
            row("dataset, steps", [steps / s for s in alone], "steps/s/core"),
            row(f"dataset, {os.cpu_count()} cores", [rows / s for s in everyone], "rows/s"),
        ],
        chosen,
        notes,
    )
    if different:
        raise SystemExit(f"{different} of {checked} values differ from Polars")


if __name__ == "__main__":
    main()
