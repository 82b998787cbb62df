"""Peers: the same events, keys, windows and aggregations through Headrace, its peers, and the floor, in turn on one core.

Apache Kafka and Redis run on the last core. In each round everybody runs once, alone, in a process of its own; who cannot be
installed is listed as skipped. Values of a sample of cards are compared with a naive computation. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from headrace_schemas.loading import load_project
from ops.benchmarks.peers.contenders import CONTENDERS, HEADRACE, HERE, MSET, Contender, java
from ops.benchmarks.peers.oracle import Oracle
from ops.benchmarks.peers.rig import Course, Run, run, windows
from ops.benchmarks.peers.services import Services, missing, services
from ops.benchmarks.peers.table import Line, as_json, document, insert, picture, rows
from ops.benchmarks.report import machine
from ops.benchmarks.stream import CARDS, CORES, DAYS, payments, produce

PAGE = HERE.parent.parent.parent / "docs" / "benchmarks.md"
KEYS = ("zipf", "uniform")


def main() -> int:
    chosen = _options()
    if why := missing():
        print(f"skipped, all of it: {why}")
        return 0
    if CORES:
        os.sched_setaffinity(0, {CORES[-1]})
    taking_part = [
        each for each in CONTENDERS if not chosen.only or any(part.lower() in each.name.lower() for part in chosen.only)
    ]
    lines: list[Line] = []
    with services() as found:
        for keys in chosen.keys:
            lines += _over(keys, taking_part, found, chosen)
        notes = _notes(chosen, found.versions)
    print(f"\n{document(lines, notes)}")
    _write(lines, notes, chosen)
    wrong = [f"{line.contender.name}, {line.keys} keys: {line.wrong}" for line in lines if line.wrong]
    if wrong:
        print("\nwrong values:\n" + "\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 400,000 events, 10 s each; rougher numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--events", type=int, help="on the topic; 2,000,000 unless said")
    parser.add_argument("--rounds", type=int, help="runs of each contender; 3 unless said")
    parser.add_argument("--seconds", type=float, help="at most, of each run, from its first event; 20 unless said")
    parser.add_argument("--keys", choices=KEYS, nargs="+", default=KEYS, help="how cards are drawn")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose name contains one of these")
    parser.add_argument("--publish", action="store_true", help="put table, JSON and picture into docs/")
    chosen = parser.parse_args()
    chosen.events = chosen.events or (400_000 if chosen.quick else 2_000_000)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    chosen.seconds = chosen.seconds or (10.0 if chosen.quick else 20.0)
    return chosen


def _over(keys: str, taking_part: Sequence[Contender], found: Services, chosen: argparse.Namespace) -> list[Line]:
    """All rounds over one topic."""
    environ = {
        **os.environ,
        "HEADRACE_KAFKA": found.kafka,
        "HEADRACE_REDIS": f"redis://{found.redis}/0",
        **{f"HEADRACE_{part.upper()}_PATH": str(found.scratch / part) for part in ("log", "registry", "run")},
    }
    loaded = load_project(HERE / "project", environ)
    topic = loaded.project.event("payments").topic
    found.clear(topic)
    produce(loaded, chosen.events, keys)
    [view] = loaded.project.views
    oracle = Oracle(payments(chosen.events, keys), windows(view))
    course = Course(found, environ, loaded, oracle, chosen.events, chosen.seconds)
    lines = [_entered(each, keys) for each in taking_part]
    for number in range(chosen.rounds):
        sent: Run | None = None
        for at, line in enumerate(lines):
            if line.skipped:
                continue
            began = time.monotonic()
            _say(f"{keys}, round {number + 1} of {chosen.rounds}: {line.contender.name} …")
            done = _without_source(course, line.contender, sent)
            sent = done if line.contender == HEADRACE and done.complete else sent
            lines[at] = replace(line, runs=(*line.runs, done))
            told = done.failure.splitlines()[-1] if done.failure else f"{done.rate:,.0f} events/s"
            _say(
                f"{keys}, round {number + 1} of {chosen.rounds}: {line.contender.name}: {told} ({time.monotonic() - began:.0f} s)\n"
            )
    return lines


def _entered(contender: Contender, keys: str) -> Line:
    if why := contender.missing():
        return Line(contender, keys, "", skipped=why)
    return Line(contender, keys, contender.version())


def _without_source(course: Course, contender: Contender, sent: Run | None) -> Run:
    if contender == MSET and sent is None:
        return Run(failure="Headrace did not run to its end in this round, so nobody knows what to send")
    return run(contender, course, sent)


def _say(text: str) -> None:
    print(
        f"\r\033[K{text}" if sys.stderr.isatty() else text.rstrip(),
        end="" if sys.stderr.isatty() else "\n",
        file=sys.stderr,
        flush=True,
    )


def _notes(chosen: argparse.Namespace, versions: Sequence[str]) -> list[str]:
    measured = (
        f"Measured on {machine()}; {java()}; {', '.join(versions)} on one core, the contender alone on another. "
        f"{chosen.events:,} events over {DAYS} days of event time, {CARDS:,} cards, {chosen.rounds} rounds, "
        f"at most {chosen.seconds:g} s for each run. Load of the machine by others at the end: {os.getloadavg()[0]:.1f}."
    )
    return [measured]


def _write(lines: Sequence[Line], notes: Sequence[str], chosen: argparse.Namespace) -> None:
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps({"rows": [asdict(each) for each in rows(lines)], "notes": list(notes)}, indent=1)
        )
    if chosen.publish:
        insert(PAGE, document(lines, notes))
        PAGE.with_name("benchmarks-peers.json").write_text(as_json(lines, notes))
        picture(lines, f"4 windows × 4 aggregations from Kafka; {machine()}", PAGE.with_name("benchmarks-peers.svg"))


if __name__ == "__main__":
    sys.exit(main())
