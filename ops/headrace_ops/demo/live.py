"""The last days as live traffic: minute by minute, first the questions, then the events.

    minute 11:58        minute 11:59              minute 12:00
    … events ──▶ all committed? ──▶ ask ──▶ events ──▶ all committed? ──▶ ask ──▶ events …

All requests of one minute ask after every earlier event is committed, and before any event of that minute is produced: a
prediction sees the past and nothing else. Freshness is taken on the way: from just before an event is sent until the state
that a prediction would read includes its offset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import polars as pl

import headrace as hr
from headrace.fields import FieldType
from headrace_ops.producing import EventProducer
from headrace_ops.service import Service
from headrace_ops.waiting import Commits, ends_of
from headrace_schemas.keys import encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import online
from headrace_schemas.stores.schema_registry import registry_of

MINUTE_US = 60_000_000
_CLIENTS = 4
_VISIBLE_S = 10.0

Record = Mapping[str, Any]


@dataclass(slots=True)
class Played:
    """What happened.

    Attributes:
        events: how many were produced.
        minutes: how many minutes had any.
        asked: rows that were sent, in the order of asking.
        predictions: their answers.
        latencies_ms: of each answered request, as its client saw it.
        freshness_ms: of the last event of each minute that had requests.
        seconds: how long it all took.
    """

    events: int = 0
    minutes: int = 0
    asked: list[Record] = field(default_factory=list)
    predictions: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    freshness_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Player:
    """Plays events against a running project.

    Args:
        loaded: the project.
        model: the model that is asked, with each of its request events.
        url: where the service is.
        ends: the offsets behind what was produced before, by event.
        commits: what the feature pipeline has committed.
    """

    def __init__(
        self, loaded: LoadedProject, model: hr.Model, url: str, ends: Mapping[str, Mapping[int, int]], commits: Commits
    ) -> None:
        self._loaded, self._model, self._commits = loaded, model, commits
        self._events = {event.name: event for event in loaded.project.events}
        self._ends = {name: dict(end) for name, end in ends.items()}
        self._producers = {
            name: EventProducer(
                loaded.settings.kafka, event, reports=True, schemas=registry_of(loaded.settings), linger_ms=0
            )
            for name, event in self._events.items()
        }
        self._services = [Service(url) for _ in range(_CLIENTS)]
        self._freshness = _Freshness(loaded)
        times = (name for name, column in model.request.fields.items() if column.type is FieldType.TIMESTAMP)
        self._fields = {asked.name for asked in model.request_fields} | set(times)

    def play(self, frames: Mapping[str, pl.DataFrame], progress: Callable[[int, int], None]) -> Played:
        """Play frames of live events; they hold all events from one minute on."""
        played, began = Played(), time.monotonic()
        total = sum(frame.height for frame in frames.values())
        with ThreadPoolExecutor(_CLIENTS, "headrace-client") as pool:
            for _, group in groupby(_merge(self._events, frames), key=lambda item: item[0] // MINUTE_US):
                minute = [(name, record) for _, name, record in group]
                requests = [record for name, record in minute if name == self._model.request.name]
                if requests:
                    for name, event in self._events.items():
                        self._commits.wait(event, self._ends.get(name, {}))
                    self._ask(pool, requests, played)
                self._produce(minute, played, measured=bool(requests))
                played.minutes += 1
                progress(played.events, total)
        for name, event in self._events.items():
            self._commits.wait(event, self._ends.get(name, {}))
        played.seconds = time.monotonic() - began
        return played

    @property
    def ends(self) -> Mapping[str, Mapping[int, int]]:
        """The offsets behind everything that was produced, by event."""
        return self._ends

    def close(self) -> None:
        """Close all connections."""
        for service in self._services:
            service.close()
        self._freshness.close()

    def _ask(self, pool: ThreadPoolExecutor, requests: list[Record], played: Played) -> None:
        shares = [requests[client::_CLIENTS] for client in range(min(_CLIENTS, len(requests)))]
        for answers in pool.map(self._ask_some, self._services, shares):
            for request, prediction, latency_ms in answers:
                played.asked.append(request)
                played.predictions.append(prediction)
                played.latencies_ms.append(latency_ms)

    def _ask_some(self, service: Service, requests: list[Record]) -> list[tuple[Record, float, float]]:
        answers = []
        for request in requests:
            row = {name: value for name, value in request.items() if name in self._fields and value is not None}
            began = time.perf_counter()
            answer = service.predict(self._model.name, row)
            latency_ms = (time.perf_counter() - began) * 1e3
            answers.append((request, float(answer["predictions"][0]["prediction"]), latency_ms))
        return answers

    def _produce(self, minute: list[tuple[str, Record]], played: Played, *, measured: bool) -> None:
        *rest, (last_name, last) = minute
        for name, record in rest:
            self._producers[name].send(record)
        for name in {name for name, _ in rest}:
            self._flush(name)
        producer = self._producers[last_name]
        sent = time.perf_counter()
        producer.send(last)
        producer.flush()
        partition, offset = producer.last
        self._flush(last_name)
        played.events += len(minute)
        if not measured:
            return
        visible = self._freshness.await_visible(self._events[last_name], last, partition, offset)
        if visible is not None:
            played.freshness_ms.append((visible - sent) * 1e3)

    def _flush(self, name: str) -> None:
        self._producers[name].flush()
        self._ends.setdefault(name, {}).update(ends_of(self._producers[name].written.items()))


class _Freshness:
    """When an event is in the state that a prediction reads."""

    def __init__(self, loaded: LoadedProject) -> None:
        self._client = online.connect(loaded.settings.redis)
        self._reader = online.OnlineReader(self._client, loaded.settings.namespace)
        self._views = {event.name: loaded.project.views_of(event) for event in loaded.project.events}

    def await_visible(self, event: hr.Event, record: Record, partition: int, offset: int) -> float | None:
        """The moment (perf_counter) at which all views of the event show it; None for an event that none folds."""
        from headrace import kernel

        waiting = [(view, encode_key([record[name] for name in view.key_fields])) for view in self._views[event.name]]
        waiting = [(view, key) for view, key in waiting if view.where is None]
        if not waiting:
            return None
        deadline = time.perf_counter() + _VISIBLE_S
        while time.perf_counter() < deadline:
            view, key = waiting[-1]
            state = self._reader.states(view, [key])[0]
            if state and dict(kernel.header(state).offsets).get(partition, -1) >= offset:
                waiting.pop()
                if not waiting:
                    return time.perf_counter()
            else:
                time.sleep(0.0002)
        return None

    def close(self) -> None:
        self._client.close()


def _merge(events: Mapping[str, hr.Event], frames: Mapping[str, pl.DataFrame]) -> Iterator[tuple[int, str, Record]]:
    """All rows as (event time, event, record), in event-time order; equal times in the order of the events' names."""
    from heapq import merge

    def rows(name: str) -> Iterator[tuple[int, str, Record]]:
        at = events[name].time
        for record in frames[name].iter_rows(named=True):
            yield int(record[at]), name, record

    return merge(*(rows(name) for name in sorted(frames)), key=lambda item: item[:2])
