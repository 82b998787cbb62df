"""`make bench`: every benchmark of this folder, one after the other, and one table of all their rows.

`make bench-quick` (``--quick``) leaves the peers out and says which ratios fell since they were committed in ``measured/quick.json``;
``--keep`` commits those of this run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from ops.benchmarks.guard import TOLERANCE, commit, committed, fallen
from ops.benchmarks.report import Row, machine, options, table

BENCHMARKS = (
    "kernel",
    "decode",
    "stream",
    "windows",
    "exactly_once",
    "freshness",
    "serving",
    "dataset",
    "size",
    "peers",
    "peers.serving",
    "peers.training",
)
PEERS = ("peers", "peers.serving", "peers.training")
LESS = {"peers": ["--rounds", "1", "--seconds", "10"]}  # `make bench-peers` takes the time that it needs


def main() -> int:
    keep = "--keep" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--keep"]
    chosen = options("Measure Headrace against floors and peers in one run; bounded to some minutes.")
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in BENCHMARKS:
            if chosen.quick and name in PEERS:
                continue
            print(f"\n== {name} ==", flush=True)
            file = Path(scratch) / f"{name}.json"
            command = [sys.executable, "-m", f"ops.benchmarks.{name}", "--json", str(file), *LESS.get(name, [])]
            done = subprocess.run([*command, "--quick"] if chosen.quick else command, check=False)
            if done.returncode != 0:
                failed.append(name)
            elif file.exists():
                rows += [Row(**found) for found in json.loads(file.read_text())["rows"]]
    print(f"\n== all, on {machine()} ==\n\n{table(rows)}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": machine(), "rows": [asdict(found) for found in rows]}, indent=1))
    if keep:
        commit(rows, machine())
    before = committed() if chosen.quick else {}
    fell = fallen(rows, before)
    for line in fell:
        print(f"fell: {line}")
    if chosen.quick and not before:
        print("\nno ratios are committed yet to compare with; keep those of this run with --keep")
    elif chosen.quick and not fell:
        print(f"\nno ratio fell by more than {TOLERANCE:.0%} of what is committed")
    if failed:
        print(f"\nbenchmarks that failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or fell else 0


if __name__ == "__main__":
    sys.exit(main())
