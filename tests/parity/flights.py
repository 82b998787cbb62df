"""The flights example under test: a private copy of the project, its data, and running pipelines around it.

A copy, because its topics get names of their own: tests share a broker. The definitions are otherwise the example's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
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
    """

    def __init__(self, services: Services, directory: Path, name: str, *, partitions: int = 2) -> None:
        self.name = name
        root = directory / "project"
        shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__"))
        features = root / "features.py"
        features.write_text(features.read_text().replace('topic="flights.', f'topic="{name}.'))
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self.children):
            child.stop(grace_s=10.0)
        self.client.close()

    # --- pipelines ----------------------------------------------------------------------------------------------------

    def start(self, role: str, **environ: str) -> Child:
        """Start the stream worker (``stream``) or the log writer (``log``)."""
        child = spawn_module(
            f"{self.name} {role}",
            "headrace_streams",
            ["--project", str(self.loaded.root), "--role", role],
            log=self.directory / f"{role}.log",
            env={**self.environ, **environ},
        )
        self.children.append(child)
        return child

    def produce(self, produced: Iterable[Produced]) -> None:
        """Put records on their topics, by flight id or report id over the partitions, and wait until the broker has them."""
        for i, (name, _, row) in enumerate(produced):
            event = self.project.event(name)
            value = self._codecs[name].encode(row)
            key = str(row[str(event.id)]).encode()
            self._producer.produce(event.topic, value, key, on_delivery=self._delivered(name))
            if not i % 1000:
                self._producer.poll(0)
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


def _watermark(table: Any) -> Mapping[int, int]:
    found: Mapping[int, int] = table.watermark()
    return found


def entity_keys(view: hr.FeatureView, produced: Iterable[Produced]) -> list[tuple[Any, ...]]:
    """The distinct keys of the records that the view folds, sorted."""
    return sorted(
        {tuple(row[field] for field in view.key_fields) for name, _, row in produced if name == view.event.name}
    )


def timestamps(event: hr.Event) -> list[str]:
    """The event's fields that hold a time."""
    return [name for name, field in event.fields.items() if field.type is FieldType.TIMESTAMP]
