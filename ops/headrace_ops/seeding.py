"""Bringing a project to life: its stack, its topics, its pipelines, its history, its models. The common part of dev and demo.

stack ─► apply ─► pipelines ─► history ─► all committed ─► train
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

import headrace as hr
from headrace_ops.house import House
from headrace_ops.plans import apply, plan
from headrace_ops.producing import EventProducer, replay
from headrace_ops.waiting import Commits, await_all
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import kafka
from headrace_schemas.stores.schema_registry import registry_of

if TYPE_CHECKING:
    from headrace_training.training import TrainResult

Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""

Ends = dict[str, dict[int, int]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading a history took.

    Attributes:
        events: how many events.
        produced_s: until the broker had them all.
        committed_s: until features and log had them all, counted from the start as well.
        ends: the offsets behind them, by event.
    """

    events: int
    produced_s: float
    committed_s: float
    ends: Ends


def settle(house: House) -> LoadedProject:
    """Start the stack, create topics, register views, start the pipelines."""
    loaded = house.start_stack()
    apply(loaded, plan(loaded))
    house.start_pipelines()
    return loaded


def load_events(loaded: LoadedProject, frames: Mapping[str, pl.DataFrame], house: House, tell: Tell) -> Loaded:
    """Produce frames and wait until they are committed, in the features and in the log.

    Raises:
        ServiceUnavailable: a part does not answer in time.
        ProcessError: a child died.
    """
    began, done = time.monotonic(), 0
    total = sum(frame.height for frame in frames.values())
    for name, frame in frames.items():
        event, schemas = loaded.project.event(name), registry_of(loaded.settings)
        with EventProducer(loaded.settings.kafka, event, bulk=True, schemas=schemas) as producer:

            def advance(what: str, sent: int, of: int, before: int = done) -> None:
                del what, of
                tell("produce", before + sent, total)

            done += replay(producer, frame, progress=advance).events
        house.check()
    produced_s = time.monotonic() - began
    ends = {name: kafka.end_offsets(loaded.settings.kafka, loaded.project.event(name).topic) for name in frames}
    with Commits(loaded, house.check) as commits:
        await_all(loaded, ends, commits, check=house.check, progress=lambda so_far, of: tell("commit", so_far, of))
    return Loaded(total, produced_s, time.monotonic() - began, ends)


def train_model(loaded: LoadedProject, model: hr.Model, until_us: int | None, tell: Tell) -> TrainResult:
    """Train one model on what lies before a moment, and make it the champion if it passes the gate."""
    from headrace_training.lookups import Effort
    from headrace_training.training import train

    return train(loaded, model, created_at=datetime.now(UTC), until_us=until_us, effort=Effort(progress=tell))
