"""One run: services, pipeline, payments, faults in a seeded order, and in the end everything held against the expectation.

    struck   work was in flight when it came: records were acknowledged by the broker, readable (behind no open transaction), and not
             committed (or not logged) yet

What may not live here: the faults themselves, what must come out.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace_schemas.stores.log import event_log
from headrace_streams.errors import IDENTITY
from tests.recovery.chaos.expectation import Comparison, compare
from tests.recovery.chaos.faults import FAULTS, Fault, Stage
from tests.recovery.chaos.payments import Payments, write_project
from tests.recovery.chaos.pipeline import Pipeline
from tests.recovery.chaos.reader import Reader
from tests.recovery.chaos.setups import APACHE, Setup

WORKERS, PARTITIONS = 2, 2
_BURST = 400
_IN_FLIGHT_S = 3.0  # how long work in flight is waited for before a fault comes all the same
_AT_ONCE = 0.35  # how often the next fault comes while the pipeline still mends the last one
_DISK_MB = 160


@dataclass(slots=True)
class Report:
    """What a run did and found.

    Attributes:
        kind, seed: of the run.
        faults: how many came, by name.
        struck: how many of them struck work in flight, by name.
        ends: supervisors that ended and were started again.
        starts: worker groups that were started.
        hydrated: rows that each worker read from the log, where the topic had forgotten them.
        transactions: how many payments were written in, by how they ended.
        comparison: what came out.
        seconds: it took.
    """

    kind: str
    seed: int
    services: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    hydrated: list[int] = field(default_factory=list)
    transactions: Counter[str] = field(default_factory=Counter)
    comparison: Comparison = field(default_factory=Comparison)
    seconds: float = 0.0

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.kind} ({self.services}), seed {self.seed}, {self.seconds:.0f} s"
        for name, count in sorted(self.faults.items()):
            yield f"  {self.struck[name]:3} of {count:3} struck work in flight   {name}"
        total = f"{self.struck.total()} of {self.faults.total()} faults struck"
        yield f"  {total}; {self.starts} worker groups; supervisors that ended: {dict(self.ends) or 'none'}"
        ended = ", ".join(f"{count:,} {how}" for how, count in sorted(self.transactions.items()))
        yield f"  transactions: {ended or 'none'}; read from the log {len(self.hydrated)} times, {sum(self.hydrated):,} rows"
        found = self.comparison
        yield f"  {found.events:,} events: {found.rows:,} in the log, {found.dead:,} dead letters"
        for view, account in found.accounts.items():
            yield f"  {view}: " + ", ".join(f"{count:,} {name}" for name, count in sorted(account.items()))
        yield (
            f"  compared: {found.values:,} values with the naive oracle, {found.states:,} canonical states; "
            f"lost {found.lost}, doubled {found.doubled}, otherwise wrong {len(found.wrong)}"
        )
        yield from (f"    {wrong}" for wrong in found.wrong[:10])


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """A disk of its own for the log, so that it can be full; None where none may be mounted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "headrace-chaos", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def run(
    kind: str, seed: int, faults: int, directory: Path, *, rate: int = 800, most_s: float = 1800.0,
    only: str = "", tell: Callable[[str], None] = print,
) -> Report:  # fmt: skip
    """One run of so many faults.

    Args:
        kind: of services.
        seed: decides records, faults and moments.
        faults: how many.
        directory: everything on disk.
        rate: payments a second.
        most_s: no new fault comes after that long.
        only: a part of the names of the faults that may come.
        tell: takes lines of progress.
    """
    report, began = Report(kind, seed), time.monotonic()
    name = f"chaos-{seed}-{secrets.token_hex(3)}"
    loaded = write_project(directory / "project", f"{name}.paid", name)
    with Setup(kind, directory / "services") as setup, small_disk(directory / "disk") as disk:
        report.services = setup.described
        payments = Payments(setup.kafka, loaded, PARTITIONS, seed, rate, transactions=kind in APACHE)
        log_path = (disk or directory) / "log"
        pipeline = Pipeline(directory / "project", setup.kafka, setup.redis, log_path, WORKERS)
        stage = Stage(setup, pipeline, payments, Reader(setup.kafka, loaded), random.Random(seed), disk)
        try:
            payments.start()
            pipeline.start("stream")
            pipeline.start("log")
            pipeline.until(lambda: bool(pipeline.notes("stream", "claimed")), "the first claim")
            drawn = draw(stage, faults, only)
            _strike_all(stage, drawn, report, began + most_s, tell)
            records = payments.stop()
            tell(f"  {records:,} records produced; waiting for the pipeline to come to its end")
            pipeline.wait_committed(payments.ends())
            pipeline.wait_logged(payments.ends())
        finally:
            pipeline.stop()
        report.starts = len(pipeline.notes("stream", "started", newest=False)) if pipeline.children else 0
        report.hydrated = [note["rows"] for note in pipeline.notes("stream", "hydrated", newest=False)]
        report.ends, report.transactions = pipeline.ends, payments.account.transactions
        read = stage.reader.read()
        report.comparison = compare(setup.kafka, setup.redis, pipeline.loaded, read, payments.account)
        if any(end.endswith(f" {IDENTITY}") for end in pipeline.ends):
            report.comparison.wrong.append("a supervisor took the topic for another one and ended for good")
    report.seconds = time.monotonic() - began
    return report


def _strike_all(stage: Stage, faults: list[Fault], report: Report, until_s: float, tell: Callable[[str], None]) -> None:
    for number, fault in enumerate(faults, 1):
        if time.monotonic() > until_s:
            tell(f"  the time is over after {number - 1} faults")
            return
        fault.prepare(stage)
        stage.payments.burst(_BURST)
        lag = _work_in_flight(stage, fault)
        at = time.monotonic()
        fault.strike(stage)
        report.faults[fault.name] += 1
        report.struck[fault.name] += bool(lag)
        told = "the store did not tell" if lag is None else f"lag {lag:,}"
        calm = stage.chance.random() >= _AT_ONCE
        if calm:
            stage.pipeline.wait_committed(stage.payments.ends())
        again = f", fresh again after {time.monotonic() - at:.1f} s" if calm else ", and the next one at once"
        tell(f"  {number:3} {fault.name} ({told}){again}")


def draw(stage: Stage, faults: int, only: str = "") -> list[Fault]:
    """So many faults in a seeded order: every kind at least once where there is room, none more often than it may come."""
    possible = [
        f for f in FAULTS if stage.setup.kind in f.kinds and (f.name != "the log's disk full" or stage.log_disk)
    ]
    possible = [fault for fault in possible if only in fault.name]
    drawn = stage.chance.sample(possible, min(len(possible), faults))
    while len(drawn) < faults:
        one = stage.chance.choice(possible)
        if only or drawn.count(one) < one.most:
            drawn.append(one)
    stage.chance.shuffle(drawn)
    return drawn


def _work_in_flight(stage: Stage, fault: Fault) -> int | None:
    """Wait until there is some; how much, 0 if none came, None where nobody can tell."""
    deadline = time.monotonic() + _IN_FLIGHT_S
    log = event_log(stage.pipeline.loaded.settings, stage.pipeline.loaded.project.event("paid"))
    while True:
        stage.pipeline.keep()
        ends = stage.payments.ends()
        if fault.role == "log":
            reached = log.watermark()
            lag: int | None = sum(max(0, end - reached.get(p, 0)) for p, end in ends.items())
        else:
            lag = stage.pipeline.lag(ends)
        if lag or time.monotonic() > deadline:
            return lag
        time.sleep(0.001)
