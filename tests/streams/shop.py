"""A small project for the pipeline's tests: payments, two views of them, and what their features must be.

Every event that is produced is kept with its partition and offset, so the naive oracle can say what any reader must see.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headrace.oracle import naive
from headrace_schemas.codecs import EventCodec
from headrace_schemas.keys import encode_key
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log
from headrace_streams.claims import Claimant
from headrace_streams.journal import Journal
from headrace_streams.log_writer import run_log_writer
from headrace_streams.patience import Patience
from headrace_streams.run import StreamOptions, run_stream
from tests.services import Services

START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
QUICK = StreamOptions(watch_s=0.3, patience=Patience(claim_s=1.0))

VIEWS = """
spending = hr.FeatureView("spending", entity=card, event=paid, features={
    "payments": hr.count().over("10m", "1h"), "total": hr.sum("amount").over("1h"), "last": hr.last("amount").lifetime()})
"""
MORE_VIEWS = """
sales = hr.FeatureView("sales", entity=place, event=paid, features={
    "payments": hr.count().over("10m"), "mean": hr.mean("amount", where=hr.col("amount") > 20).over("1h")})
"""
_FEATURES = """
import headrace as hr
paid = hr.Event("paid", fields={{"id": hr.string(), "card": hr.string(), "shop": hr.int64(), "town": hr.string(),
    "amount": hr.float64(nullable=True), "at": hr.timestamp()}}, time="at", id="id", topic="{prefix}paid", format="{format}",
    future_tolerance=None)
card = hr.Entity("card", keys={{"card": hr.string()}})
place = hr.Entity("place", keys={{"town": hr.string(), "shop": hr.int64()}})
"""


class Shop:
    """One project on some services.

    Args:
        services: where it runs.
        prefix: of its topics and keys; nobody else's.
        root: its directory.
        views: the text of its views.
        partitions: of its topic.
        settings: more lines for headrace.toml.
    """

    def __init__(
        self, services: Services, prefix: str, root: Path, views: str = VIEWS + MORE_VIEWS, *,
        partitions: int = 3, form: str = "avro", settings: str = "", seed: int = 1,
    ) -> None:  # fmt: skip
        self.services, self.prefix, self.root, self._form = services, prefix, root, form
        self.random = random.Random(seed)
        self.events: list[dict[str, Any]] = []
        (root / "headrace.toml").write_text(
            f'[project]\nname = "shop"\nnamespace = "{prefix}n"\n[kafka]\nbootstrap_servers = "{services.kafka}"\n'
            f'[redis]\nurl = "{services.redis}"\n{settings}'
        )
        self.loaded = self.declare(views)
        self.topic = f"{prefix}paid"
        kafka.ensure_topics(services.kafka, {self.topic: partitions})
        self.partitions = partitions
        self.client = online.connect(services.redis)
        self._producer = kafka.producer(services.kafka)

    def declare(self, views: str) -> LoadedProject:
        """Write the definitions and load them."""
        text = _FEATURES.format(prefix=self.prefix, format=self._form) + views
        (self.root / "features.py").write_text(text)
        self.loaded = load_project(self.root, environ={})
        return self.loaded

    def declare_again(self) -> None:
        """Load the project again, after its settings were edited."""
        self.loaded = load_project(self.root, environ={})

    # --- events --------------------------------------------------------------------------------------------------------

    def produce(self, count: int, *, late_us: int = 20 * MINUTE_US) -> None:
        """Send payments, out of order by up to `late_us`, and remember where they lie."""
        codec = EventCodec(self.loaded.project.event("paid"), self.loaded.project.views)
        for _ in range(count):
            event = {
                "id": f"p{len(self.events)}",
                "card": f"card {min(int(self.random.paretovariate(0.7)), 40)}",
                "shop": self.random.randrange(4),
                "town": self.random.choice(["Linz", "Graz"]),
                "amount": None if self.random.random() < 0.1 else round(self.random.random() * 100, 2),
                "at": START_US + len(self.events) * 200_000 + self.random.randrange(late_us),
            }
            self.events.append(event)
            self._send(event, codec.encode(event))
        assert self._producer.flush(20) == 0

    def _send(self, event: dict[str, Any], value: bytes) -> None:
        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            event["_partition"], event["_offset"] = message.partition(), message.offset()

        partition = self.random.randrange(self.partitions)
        self._producer.produce(self.topic, value=value, partition=partition, on_delivery=delivered)
        self._producer.poll(0)

    def produce_raw(self, *values: bytes) -> None:
        """Send anything."""
        for value in values:
            self._producer.produce(self.topic, value=value, partition=0)
        assert self._producer.flush(20) == 0

    # --- the pipeline --------------------------------------------------------------------------------------------------

    @contextmanager
    def streaming(self, options: StreamOptions = QUICK, *, take_over: bool = False) -> Iterator[Run]:
        """The feature pipeline in a thread; stopped at the end, if it is still running."""
        run = Run(self.loaded, options, take_over=take_over)
        try:
            yield run
        finally:
            run.stop()
        if run.error is not None and not run.expected:
            raise run.error

    @contextmanager
    def logging(self) -> Iterator[None]:
        """The log writer in a thread."""
        stop, failed = threading.Event(), []

        def run() -> None:
            try:
                run_log_writer(self.loaded, stop=stop, journal=Journal("log", io.StringIO()))
            except Exception as error:  # noqa: BLE001  (raised below)
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
        if failed:
            raise failed[0]

    def wait_for_log(self, timeout_s: float = 30.0) -> None:
        """Until the log covers everything that is on the topic."""
        end, deadline = kafka.end_offsets(self.services.kafka, self.topic), time.monotonic() + timeout_s
        log = event_log(self.loaded.settings, self.loaded.project.event("paid"))
        while log.watermark() != end:
            assert time.monotonic() < deadline, f"{end} wanted, {log.watermark()} reached"
            time.sleep(0.02)

    @contextmanager
    def supervised(self, role: str = "stream") -> Iterator[Group]:
        """The feature pipeline or the log writer as `python -m headrace_streams --supervise` runs it."""
        with (self.root / f"{role}.err").open("wb+") as diary:
            command = [
                sys.executable,
                "-m",
                "headrace_streams",
                "--project",
                str(self.root),
                "--role",
                role,
                "--supervise",
            ]
            group = Group(subprocess.Popen(command, stderr=diary), Path(diary.name))
            try:
                yield group
            finally:
                group.stop()

    def wait(self, run: Run | None = None, timeout_s: float = 60.0) -> None:
        """Until every view has committed everything that is on the topic."""
        end = kafka.end_offsets(self.services.kafka, self.topic)
        deadline = time.monotonic() + timeout_s
        while True:
            reached = [online.progress(self.client, self.namespace, view) for view in self.loaded.project.views]
            if all(positions == end for positions in reached):
                return
            if run is not None and run.error is not None:
                raise run.error
            assert time.monotonic() < deadline, f"{end} wanted, {reached} reached"
            time.sleep(0.01)

    @property
    def namespace(self) -> str:
        return self.loaded.settings.namespace

    # --- what must be --------------------------------------------------------------------------------------------------

    def check(self) -> int:
        """Compare every feature of every entity, at three moments, with the oracle; how many values were compared."""
        reader = online.OnlineReader(self.client, self.namespace)
        newest = max(event["at"] for event in self.events)
        compared = 0
        for view in self.loaded.project.views:
            keys = sorted({tuple(event[field] for field in view.key_fields) for event in self.events})
            of_key = {key: [e for e in self.events if tuple(e[f] for f in view.key_fields) == key] for key in keys}
            for at_us in (newest + 1, newest + 7 * MINUTE_US, newest + 59 * MINUTE_US):
                read = reader.features(view, [encode_key(key) for key in keys], at_us)
                for key, row in zip(keys, read, strict=True):
                    expected = naive(view, of_key[key], dict(zip(view.entity.keys, key, strict=True)), at_us)
                    compared += self._same(view.name, key, view.feature_names, row, expected)
        return compared

    def _same(
        self, view: str, key: object, names: tuple[str, ...], row: np.ndarray, expected: Mapping[str, float | None]
    ) -> int:
        wanted = [np.nan if expected[name] is None else expected[name] for name in names]
        assert np.array_equal(row, np.array(wanted, float), equal_nan=True), (view, key, names, row, wanted)
        return len(names)

    def states(self) -> dict[bytes, bytes]:
        """Every state in Redis of this project."""
        names = sorted(self.client.scan_iter(match=f"{{{self.namespace}:*}}s*", count=1000))
        return {name: self.client.get(name) for name in names}


class Run:
    """A pipeline in a thread."""

    def __init__(self, loaded: LoadedProject, options: StreamOptions, *, take_over: bool) -> None:
        self.diary = io.StringIO()
        self.error: Exception | None = None
        self.expected = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(loaded, options, take_over))
        self._thread.start()

    def _run(self, loaded: LoadedProject, options: StreamOptions, take_over: bool) -> None:
        try:
            run_stream(
                loaded, claimant=Claimant(take_over=take_over), options=options, stop=self._stop,
                journal=Journal("stream", self.diary),
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def fails(self, timeout_s: float = 30.0) -> Exception:
        """Wait for it to end by an error, and take that as expected."""
        self._thread.join(timeout_s)
        self.expected = True
        assert self.error is not None, "it is still running, or ended without an error"
        return self.error

    def noted(self, event: str) -> list[dict[str, Any]]:
        """What it wrote into its journal."""
        lines = [json.loads(line) for line in self.diary.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, event: str, timeout_s: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not (found := self.noted(event)):
            assert self.error is None, self.error
            assert time.monotonic() < deadline, f"no {event!r} in {self.diary.getvalue()}"
            time.sleep(0.01)
        return found[0]


class Group:
    """A supervised pipeline in processes of its own."""

    def __init__(self, process: subprocess.Popen[bytes], diary: Path) -> None:
        self._process, self._diary = process, diary

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Stop it as an operator would."""
        self._process.terminate()
        return self._process.wait(60)

    def noted(self, event: str) -> list[dict[str, Any]]:
        """What the supervisor and its workers wrote into their journals."""
        lines = [line for line in self._diary.read_text().splitlines() if line.startswith("{")]
        return [note for note in map(json.loads, lines) if note["event"] == event]

    def pids(self) -> list[int]:
        """The processes of the newest group."""
        started = self.noted("started")
        return list(started[-1]["pids"]) if started else []
