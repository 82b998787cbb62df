"""Training: point-in-time features of a spine, Headrace beside DuckDB, Polars and Feast, each in a process of its own, on one core.

    windows   3 entities × 12 windowed features (4 aggregations × 6 hours, 24 hours, 7 days) from raw events
    as-of     an easier question: the newest of ready-made values, no windows; DuckDB's ASOF, Polars' join_asof, Feast

Events and rows are loaded before the clock starts where a contender can; Headrace reads its events from the file within it. Times
lie on the tiles' grid, so that windows mean the same to everybody and the sums of all features can be compared.

    python -m ops.benchmarks.peers.training [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from ops.benchmarks.peers.drawing import draw_bars
from ops.benchmarks.peers.environments import Missing, PythonEnvironment, pinning
from ops.benchmarks.report import machine, number, options

HERE = Path(__file__).parent
FRAMES = PythonEnvironment("frames", ("duckdb", "polars", "pyarrow"), "polars")
FEAST = PythonEnvironment("feast", ("feast[redis]",), "feast")
BUCKET = "HEADRACE_BENCH_BUCKET_EVENTS"
MODULE = "ops.benchmarks.peers.training"
MOST_S, MEMORY_SHARE = 400, 0.7


@dataclass(slots=True)
class Measured:
    """What became of a contender."""

    name: str
    question: str
    events: int
    rows: int
    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    differing: int = 0
    missing: int = 0
    skipped: str = ""


def main() -> int:
    """Measure, or be measured."""
    if "--one" in sys.argv:
        return one(Path(sys.argv[-1]))
    chosen = options(__doc__ or "")
    events, rows, rounds = (300_000, 100_000, 1) if chosen.quick else (10_000_000, 1_000_000, 1)
    own = [sys.executable, "-m", MODULE, "--one"]
    contenders: list[tuple[str, str, PythonEnvironment | None, list[str]]] = [
        ("**Headrace**", "windows", None, own),
        ("Polars, rolling", "windows", FRAMES, ["frames_contender.py", "polars_rolling"]),
        ("DuckDB, range windows", "windows", FRAMES, ["frames_contender.py", "duckdb_range"]),
        ("Polars, join_asof", "as-of", FRAMES, ["frames_contender.py", "polars_asof"]),
        ("DuckDB, ASOF join", "as-of", FRAMES, ["frames_contender.py", "duckdb_asof"]),
        ("Feast, get_historical_features", "as-of", FEAST, ["feast_offline_contender.py"]),
    ]
    results = []
    with tempfile.TemporaryDirectory() as directory:
        big, small = Path(directory) / "all", Path(directory) / "tenth"
        write(big, events, rows)
        write(small, events // 10, rows)
        for name, question, environment, program in contenders:
            results.append(run(name, question, environment, program, big, (events, rows), rounds))
        tenth = run("**Headrace**, a log of a tenth", "windows", None, own, small, (events // 10, rows), 1)
        os.environ[BUCKET] = str(events // 10)
        in_tenths = run("**Headrace**, the log in tenths", "windows", None, own, big, (events, rows), 1)
    for measured in results[1:]:
        if measured.question == "windows" and not measured.skipped:
            ours = results[0].sums
            measured.differing = sum(abs(measured.sums[k] - ours[k]) > 1e-6 * max(1.0, abs(ours[k])) for k in ours)
    results += [tenth, in_tenths]
    print(table(results))
    print(f"\nOn {machine()}, one core for each.")
    report = {"machine": machine(), "results": [asdict(m) for m in results]}
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"rows": [], "training": report}, indent=1))
    if not chosen.quick:
        target = HERE.parent / "measured"
        target.mkdir(exist_ok=True)
        (target / "training.json").write_text(json.dumps(report, indent=1) + "\n")
        _draw(target / "training.svg", results, events)
    return 0


def _draw(path: Path, results: Sequence[Measured], events: int) -> None:
    """Those who answer the same question of the same log."""
    bars = [
        (m.name.replace("*", ""), {"rows/s": m.rows / median(m.seconds)})
        for m in results
        if m.seconds and m.question == "windows" and m.events == events
    ]
    draw_bars(path, f"Rows of 36 windowed features per second on one core, from {events:,} events", bars)


def write(directory: Path, events: int, rows: int) -> None:
    """The files that everybody reads; the same rows for every number of events."""
    import polars as pl

    from ops.benchmarks.dataset import generate

    directory.mkdir()
    data = generate(events, rows, aligned=True)
    data.events.write_parquet(directory / "events.parquet")
    data.rows.with_row_index("r").with_columns(pl.col("r").cast(pl.Int64)).write_parquet(directory / "rows.parquet")


def run(
    name: str,
    question: str,
    environment: PythonEnvironment | None,
    program: Sequence[str],
    directory: Path,
    size: tuple[int, int],
    rounds: int,
) -> Measured:
    """A contender in a process of its own, on the first core."""
    measured = Measured(name, question, *size)
    try:
        if environment is None:
            command = [*program, str(directory)]
        else:
            environment.make()
            command = environment.command(HERE / "python" / program[0], *program[1:])
        for _ in range(rounds):
            print(f"{name}", file=sys.stderr, flush=True)
            told = _timed(command, directory)
            measured.seconds.append(told["seconds"])
            measured.peak_mb = max(measured.peak_mb, told["peak_mb"])
            measured.sums = told["sums"]
            measured.missing = told.get("missing", 0)
    except Missing as missing:
        measured.skipped = str(missing)
    return measured


def _timed(command: Sequence[str], directory: Path) -> dict[str, object]:
    environ = {
        **os.environ,
        "PEER_SCRATCH": str(directory),
        "PEER_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "FEAST_USAGE": "False",
    }
    try:
        done = subprocess.run(
            [*pinning(), *command],
            env=environ, capture_output=True, text=True, timeout=MOST_S, check=False, preexec_fn=_bounded,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Missing(f"not done within {MOST_S} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
        raise Missing(f"it failed: {reason[0][-300:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bounded() -> None:
    """Whoever wants more memory than the machine can give fails alone, and not the machine."""
    most = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def one(directory: Path) -> int:
    """Headrace, in a process of its own."""
    import numpy as np
    import polars as pl

    from headrace import kernel
    from headrace_training.buckets import BUCKET_EVENTS
    from headrace_training.lookups import Effort, PackedKeys, Reads, read_past
    from ops.benchmarks.dataset import VIEWS, generate, ours

    kernel.warm()
    ours(generate(1_000, 1_000, aligned=True))
    rows = pl.read_parquet(directory / "rows.parquet")
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    sums = {}
    effort = Effort(threads=1, bucket_events=int(os.environ.get(BUCKET, BUCKET_EVENTS)))
    for view in VIEWS:
        reads = Reads(PackedKeys.of(rows, view.key_fields), rows["at"].to_numpy())
        values = read_past(view, pl.scan_parquet(directory / "events.parquet"), reads, effort=effort)
        for name, column in zip(view.feature_names, values.T, strict=True):
            sums[f"{view.entity.name}.{name}"] = float(np.nansum(column))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "loaded_mb": loaded, "sums": sums}))
    return 0


def table(results: Sequence[Measured]) -> str:
    """Everything that was measured."""
    lines = [
        "| contender | question | events | rows | seconds | rows/s | events + rows, /s | Headrace is | peak memory | sums that differ |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---|",
    ]
    own = median(results[0].seconds) if results[0].seconds else 0.0
    for m in results:
        if m.skipped:
            lines.append(f"| {m.name} | {m.question} | {m.events:,} | {m.rows:,} | skipped: {m.skipped} | | | | | |")
            continue
        seconds = median(m.seconds)
        ratio = "" if "Headrace" in m.name else f"{seconds / own:.1f} ×"
        differ = f"{m.differing} of {len(m.sums)}" if m.sums and "Headrace" not in m.name else ""
        differ = f"{m.missing:,} rows are missing" if m.missing else differ
        lines.append(
            f"| {m.name} | {m.question} | {m.events:,} | {m.rows:,} | {seconds:.1f} | {number(m.rows / seconds)} | "
            f"{number((m.events + m.rows) / seconds)} | {ratio} | {m.peak_mb:,.0f} MB | {differ} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
