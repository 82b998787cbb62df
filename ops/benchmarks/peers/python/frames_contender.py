"""DuckDB and Polars: features of a spine at its moments, from a file of events.

    frames_contender.py duckdb_range|polars_rolling      twelve windowed features for each of three entities
    frames_contender.py duckdb_asof|polars_asof          no windows: the newest of ready-made values for each of three entities

Files are loaded before the clock starts. Prints seconds, peak memory, and a checksum for each feature.
"""

import json
import os
import resource
import sys
import time

THREADS = os.environ["PEER_THREADS"]
os.environ["POLARS_MAX_THREADS"] = THREADS

import duckdb  # noqa: E402
import polars as pl  # noqa: E402

SCRATCH = os.environ["PEER_SCRATCH"]
ENTITIES = ("card", "terminal", "merchant")
HOURS = (6, 24, 168)
EVENTS, ROWS = f"{SCRATCH}/events.parquet", f"{SCRATCH}/rows.parquet"


def duckdb_range(con):
    """Rows among the events, range windows over both, and the rows taken out again."""
    sums = {}
    for entity in ENTITIES:
        both = f'select {entity} as k, "at", amount, null::bigint as r from events union all select {entity}, "at", null, r from rows'
        columns, windows = [], []
        for h in HOURS:
            columns += [
                f"{f}(amount) over w{h} as {n}_{h}"
                for n, f in (("n", "count"), ("spent", "sum"), ("usual", "avg"), ("top", "max"))
            ]
            windows.append(
                f'w{h} as (partition by k order by "at" range between {h * 3_600_000_000} preceding and 1 preceding)'
            )
        con.execute(
            f"create or replace table found as select * from (select r, {', '.join(columns)} from ({both}) window {', '.join(windows)}) where r is not null"
        )
        for h in HOURS:
            for n in ("n", "spent", "usual", "top"):
                sums[f"{entity}.{n}_{h}h"] = float(con.execute(f"select sum({n}_{h}) from found").fetchone()[0])
    return sums


def polars_rolling(events, rows):
    sums = {}
    for entity in ENTITIES:
        both = pl.concat([events.select(entity, "at", "amount"), rows.select(entity, "at", "r")], how="diagonal").sort(
            entity, "at"
        )
        for h in HOURS:
            rolled = both.rolling("at", period=f"{h * 3_600_000_000}i", closed="left", group_by=entity).agg(
                pl.col("amount").count().alias("n"), pl.col("amount").sum().alias("spent"),
                pl.col("amount").mean().alias("usual"), pl.col("amount").max().alias("top"),
            )  # fmt: skip
            asked = rolled.with_columns(both["r"]).filter(pl.col("r").is_not_null()).sort("r")
            for n in ("n", "spent", "usual", "top"):
                sums[f"{entity}.{n}_{h}h"] = float(asked[n].cast(pl.Float64).fill_nan(None).sum() or 0)
    return sums


def duckdb_asof(con):
    values = ", ".join(f"e.amount + {i} as v{i}" for i in range(12))
    for entity in ENTITIES:
        con.execute(
            f"create or replace table found as select r.r, {values} from rows r asof left join events e on r.{entity} = e.{entity} and r.at > e.at"
        )
    return {}


def polars_asof(events, rows):
    wide = events.with_columns((pl.col("amount") + i).alias(f"v{i}") for i in range(12))
    for entity in ENTITIES:
        rows.sort("at").join_asof(wide.sort("at"), on="at", by=entity, strategy="backward", allow_exact_matches=False)
    return {}


def main():
    kind = sys.argv[1]
    if kind.startswith("duckdb"):
        con = duckdb.connect(config={"threads": int(THREADS)})
        for name, file in (("events", EVENTS), ("rows", ROWS)):
            con.execute(f"create table {name} as select * from read_parquet('{file}')")
        arguments = (con,)
    else:
        arguments = (pl.read_parquet(EVENTS), pl.read_parquet(ROWS))
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    sums = globals()[kind](*arguments)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "loaded_mb": loaded, "sums": sums}))


main()
