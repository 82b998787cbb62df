"""``python -m tests.recovery.chaos``: break everything for a while, and see that nothing is lost and nothing counted twice.

Each run prints its seed, and ``--seed`` repeats it: the same records, the same faults in the same order.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.recovery.chaos.driver import Report, run
from tests.recovery.chaos.setups import KINDS, Missing


def main() -> int:
    """Run what was asked for; 0 if nothing was lost, doubled or wrong, else 1."""
    options = _parse()
    seeds = [options.seed] if options.seed is not None else random.SystemRandom().sample(range(1_000_000), options.runs)
    reports: list[Report] = []
    for kind in options.on:
        for seed in seeds:
            print(f"{kind}, seed {seed}: {options.faults} faults", flush=True)
            directory = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
            try:
                report = run(
                    kind, seed, options.faults, directory, most_s=options.minutes * 60.0, only=options.only, tell=_tell
                )
            except Missing as missing:
                print(f"  skipped: {missing}", flush=True)
                continue
            reports.append(report)
            print("\n".join(report.lines()), flush=True)
            if report.comparison.well and not options.keep:
                shutil.rmtree(directory, ignore_errors=True)
            else:
                print(f"  journals are kept in {directory / 'project'}", flush=True)
    _total(reports)
    return 0 if reports and all(report.comparison.well for report in reports) else 1


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}{line}", flush=True)


def _total(reports: list[Report]) -> None:
    print(
        "\n| services | seed | faults | struck | groups | events | values | states | log rows | dead letters | lost | doubled | wrong |"
    )
    print("|---|" + "---:|" * 12)
    for r in reports:
        c = r.comparison
        print(
            f"| {r.kind} | {r.seed} | {r.faults.total():,} | {r.struck.total():,} | {r.starts:,} | {c.events:,} | {c.values:,} "
            f"| {c.states:,} | {c.rows:,} | {c.dead:,} | {c.lost} | {c.doubled} | {len(c.wrong)} |"
        )
    by_name: dict[str, list[int]] = {}
    for report in reports:
        for name, count in report.faults.items():
            total = by_name.setdefault(name, [0, 0])
            total[0] += count
            total[1] += report.struck[name]
    print("\n| fault | came | struck work in flight |\n|---|---:|---:|")
    for name, (came, struck) in sorted(by_name.items()):
        print(f"| {name} | {came:,} | {struck:,} |")
    print(f"| all | {sum(c for c, _ in by_name.values()):,} | {sum(s for _, s in by_name.values()):,} |")
    lost, doubled = sum(r.comparison.lost for r in reports), sum(r.comparison.doubled for r in reports)
    print(f"\n{lost} lost, {doubled} doubled")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.recovery.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--on", nargs="+", choices=KINDS, default=list(KINDS), help="services; default: all")
    parser.add_argument("--faults", type=int, default=60, help="of each run; default: 60")
    parser.add_argument(
        "--runs", type=int, default=1, help="runs on each kind of services, each with a seed of its own"
    )
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="the longest that one run makes faults; default: 30"
    )
    parser.add_argument("--only", default="", help="only faults whose name has this text in it")
    parser.add_argument("--keep", action="store_true", help="keep the journals of runs in which nothing was wrong, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
