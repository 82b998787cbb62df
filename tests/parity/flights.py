"""The flights example under test: a private copy of the project, its data, and running pipelines around it.

A copy, because its topics get names of their own: tests share a broker. The definitions are otherwise the example's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from confluent_kafka import Producer

import headrace as hr
from headrace.fields import FieldType
from headrace_ops.processes import Child, spawn_module
from headrace_schemas.codecs import EventCodec
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores import kafka, online
from tests.services import Services

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
PATIENCE_S = 90.0
ANY_PARTITION = -1

Produced = tuple[str, int, dict[str, Any]]
"""One record to be produced: name of its event, event time in µs, values by field."""


@cache
def year() -> dict[str, pl.DataFrame]:
    """All events of the year by name; times as microseconds."""
    spec = importlib.util.spec_from_file_location("flights_data", EXAMPLE / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["flights_data"] = module
    spec.loader.exec_module(module)
    return {name: _in_microseconds(frame) for name, frame in module.events().items()}


def _in_microseconds(frame: pl.DataFrame) -> pl.DataFrame:
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).dt.epoch("us"))


def records(project: hr.Project, since_us: int, until_us: int) -> list[Produced]:
    """The events of a span of the year in event-time order, those of one moment in a fixed order."""
    found: list[Produced] = []
    for name, frame in year().items():
        time_field = project.event(name).time
        span = frame.filter((pl.col(time_field) >= since_us) & (pl.col(time_field) < until_us))
        found += [(name, row[time_field], row) for row in span.iter_rows(named=True)]
    found.sort(key=lambda record: record[1])
    return found


class Rig:
    """A project on given services: topics, a producer, and whichever pipelines a test starts.

    Args:
        services: broker and store.
        directory: everything on disk.
        name: namespace and topic prefix of its own.
        partitions: partitions of each event's topic.
        edits: replacements in the text of the example's definitions.
        beside: another rig, whose topics this one reads too; its definitions and what was produced are the same.
    """

    def __init__(
        self,
        services: Services,
        directory: Path,
        name: str,
        *,
        partitions: int = 2,
        edits: Mapping[str, str] | None = None,
        beside: Rig | None = None,
    ) -> None:
        self.name = name
        root = directory / "project"
        _copy_example(root, edits={'topic="flights.': f'topic="{name}.', **(edits or {})}, beside=beside)
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")},
            "HEADRACE_KAFKA": services.kafka,
            "HEADRACE_REDIS": services.redis,
            "HEADRACE_NAMESPACE": name,
            "HEADRACE_LOG_PATH": str(directory / "log"),
            "HEADRACE_REGISTRY_PATH": str(directory / "registry"),
            "HEADRACE_RUN_PATH": str(directory / "run"),
        }
        self.directory = directory
        self.loaded: LoadedProject = load_project(root, self.environ)
        self.project = self.loaded.project
        self.client = online.connect(services.redis)
        self.reader = online.OnlineReader(self.client, name)
        self.children: list[Child] = []
        topics = {event.topic: partitions for event in self.project.events}
        kafka.ensure_topics(services.kafka, topics)
        self.partitions = partitions
        self._producer: Producer = kafka.producer(services.kafka, queue_buffering_max_messages=1_000_000)
        self._codecs = {event.name: EventCodec(event, self.project.views) for event in self.project.events}
        self.ends: dict[str, dict[int, int]] = {event.name: {} for event in self.project.events}
        if beside is not None:
            self.ends = beside.ends

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self.children):
            child.stop(grace_s=10.0)
        self.client.close()

    # --- pipelines ----------------------------------------------------------------------------------------------------

    def start(self, role: str, *options: str, **environ: str) -> Child:
        """Start the stream worker (``stream``) or the log writer (``log``); options go to its command line."""
        child = spawn_module(
            f"{self.name} {role}",
            "headrace_streams",
            ["--project", str(self.loaded.root), "--role", role, *options],
            log=self.directory / f"{role}.log",
            env={**self.environ, **environ},
        )
        self.children.append(child)
        return child

    def produce(self, produced: Iterable[Produced], places: Sequence[int] | None = None) -> None:
        """Put records on their topics and wait until the broker has them.

        Args:
            produced: the records.
            places: the partition of each; by default the key's, which is the flight's or the report's id.
        """
        for i, (name, _, row) in enumerate(produced):
            event = self.project.event(name)
            value = self._codecs[name].encode(row)
            key = str(row[str(event.id)]).encode()
            place = ANY_PARTITION if places is None else places[i]
            self._producer.produce(event.topic, value, key, place, on_delivery=self._delivered(name))
            if not i % 1000:
                self._producer.poll(0)
        self._flush()

    def produce_raw(self, name: str, values: Iterable[bytes]) -> None:
        """Put anything on an event's topic."""
        for value in values:
            self._producer.produce(self.project.event(name).topic, value, on_delivery=self._delivered(name))
        self._flush()

    def _flush(self) -> None:
        left = self._producer.flush(PATIENCE_S)
        assert left == 0, f"{left} records were not taken by the broker"

    def _delivered(self, name: str) -> Any:
        ends = self.ends[name]

        def note(error: object, message: Any) -> None:
            assert error is None, error
            partition = message.partition()
            ends[partition] = max(ends.get(partition, 0), message.offset() + 1)

        return note

    def wait_committed(self, *, alive: Child | None = None) -> None:
        """Wait until every view has committed all that was produced."""
        deadline = time.monotonic() + PATIENCE_S
        for view in self.project.views:
            ends = self.ends[view.event.name]
            while True:
                done = online.progress(self.client, self.name, view)
                if all(done.get(partition, 0) >= end for partition, end in ends.items()):
                    break
                if alive is not None and not alive.alive():
                    raise AssertionError(f"the worker ended with {alive.returncode}:\n{alive.log_tail(40)}")
                if time.monotonic() > deadline:
                    tail = "\n".join(child.log_tail(20) for child in self.children)
                    raise AssertionError(f"view {view.name}: committed {done} of {ends} in time\n{tail}")
                time.sleep(0.002)

    def wait_logged(self) -> None:
        """Wait until the log has all that was produced."""
        from headrace_schemas.stores.log import event_log

        deadline = time.monotonic() + PATIENCE_S
        for event in self.project.events:
            while True:
                done = _watermark(event_log(self.loaded.settings, event))
                if all(done.get(partition, 0) >= end for partition, end in self.ends[event.name].items()):
                    break
                if time.monotonic() > deadline:
                    raise AssertionError(f"log of {event.name}: {done} of {self.ends[event.name]} in time")
                time.sleep(0.1)


def _copy_example(root: Path, edits: Mapping[str, str], beside: Rig | None) -> None:
    if beside is not None:
        shutil.copytree(beside.loaded.root, root, ignore=shutil.ignore_patterns("__pycache__"))
        return
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__"))
    features = root / "features.py"
    text = features.read_text()
    for old, new in edits.items():
        assert old in text, f"the example's definitions have no {old!r}"
        text = text.replace(old, new)
    features.write_text(text)


def _watermark(table: Any) -> Mapping[int, int]:
    found: Mapping[int, int] = table.watermark()
    return found


def entity_keys(view: hr.FeatureView, produced: Iterable[Produced]) -> list[tuple[Any, ...]]:
    """The distinct keys of the records that the view folds, sorted."""
    return sorted(
        {tuple(row[field] for field in view.key_fields) for name, _, row in produced if name == view.event.name}
    )


def journal(rig: Rig, role: str, event: str) -> list[dict[str, Any]]:
    """The lines that a pipeline of the rig wrote about one thing that happens."""
    lines = (rig.directory / f"{role}.log").read_text().splitlines()
    notes = [json.loads(line) for line in lines if line.startswith("{")]
    return [note for note in notes if note.get("event") == event]


def timestamps(event: hr.Event) -> list[str]:
    """The event's fields that hold a time."""
    return [name for name, field in event.fields.items() if field.type is FieldType.TIMESTAMP]
