"""Windows: what more windows of one view cost the stream, from one window of seven days to twenty down to ten minutes.

The same events for all, one worker on the first core, the embedded services on the other. The reference is one window.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

from headrace.layout import Layout
from headrace_schemas.loading import load_project
from ops.benchmarks.report import Row, options, publish, row
from ops.benchmarks.stream import produce, services, stream

PROJECT = Path(__file__).parent / "windowed"
COUNTS = (1, 4, 10, 20)
FLAT = 0.9


def main() -> int:
    """Measure."""
    chosen = options(__doc__ or "")
    events, rounds = (600_000, 1) if chosen.quick else (3_000_000, 3)
    rates: dict[int, list[float]] = {count: [] for count in COUNTS}
    levels: dict[int, int] = {}
    with services() as environ:
        produce(load_project(PROJECT, environ), events, "zipf")
        for _ in range(rounds):
            for count in COUNTS:
                os.environ["BENCH_WINDOWS"] = str(count)
                loaded = load_project(PROJECT, environ)
                levels[count] = len(Layout.of(loaded.project.views[0]).levels)
                rates[count].append(stream(loaded, {**environ, "BENCH_WINDOWS": str(count)}, events))
    rows: list[Row] = []
    for count in COUNTS:
        told = f"stream, zipf keys, one view of {count} window{'s' * (count > 1)} × 4 aggregations on {levels[count]} sizes of tiles"
        of_one = median(rates[count]) / median(rates[1])
        rows.append(row(told, rates[count], "events/s", reference=("one window", rates[1])))
        print(f"{told}: {of_one:.2f} × the rate of one window", file=sys.stderr)
    publish(rows, chosen, [f"{events:,} events over 14 days of event time; flat would be {FLAT} to {2 - FLAT:.1f}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
