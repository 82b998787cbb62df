"""`make bench`: every benchmark of this folder, one after the other, and one table of all their rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from ops.benchmarks.report import Row, machine, options, table

BENCHMARKS = ("kernel", "decode", "stream", "exactly_once", "serving", "dataset", "peers")
LESS = {"peers": ["--rounds", "1", "--seconds", "10"]}  # `make bench-peers` takes the time that it needs


def main() -> int:
    chosen = options("Measure Headrace against floors and peers in one run; bounded to some minutes.")
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in BENCHMARKS:
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
    if failed:
        print(f"\nbenchmarks that failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
