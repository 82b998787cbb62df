"""The demo, step by step: from an empty machine to audited predictions.

1 stack and pipelines   2 history produced        3 committed to features and log     4 model trained
5 service up            6 last days played live   7 every prediction audited          8 summary and pictures
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace.errors import ConfigError, ServiceUnavailable
from headrace_ops.dead_letters import read_box
from headrace_ops.demo.live import MINUTE_US, Played, Player
from headrace_ops.demo.telling import Narrator
from headrace_ops.examples import History, load_history
from headrace_ops.house import House, Run
from headrace_ops.seeding import Loaded, load_events, settle, train_model
from headrace_ops.service import Service
from headrace_ops.waiting import Commits, await_all
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.predictions import prediction_topic
from headrace_schemas.stores import kafka
from headrace_schemas.stores.log import prediction_log

if TYPE_CHECKING:
    from headrace_training.auditing import AuditReport
    from headrace_training.evaluating import Evaluation
    from headrace_training.training import TrainResult

_LOGGED_S = 60.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came out of a demo."""

    run: Run
    root: Path
    model: hr.Model
    history: Loaded
    trained: TrainResult
    played: Played
    judged: Evaluation | None
    audit: AuditReport
    dead_letters: int
    pictures: tuple[Path, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether answered = logged = audited without a difference."""
        return self.audit.ok and len(self.played.predictions) == self.audit.audited


def tell_story(root: Path, narrator: Narrator, *, days: float | None = None, home: Path | None = None) -> Outcome:
    """Run the demo of a project that brings a history and declares a model.

    Args:
        root: the project's directory.
        narrator: who tells.
        days: play only so many days live; by default all from the project's ``LIVE_FROM`` on.
        home: where runs lie; by default ``.headrace`` in the working directory.

    Raises:
        ConfigError: the project brings no history, or no model.
        ServiceUnavailable, ProcessError: a part does not come up or dies.
    """
    name = load_project(root, {}).settings.name
    run = Run.new("demo", name, home=home)
    with House(root, run) as house:
        with narrator.step("start the broker, the store and the pipelines") as step:
            loaded = settle(house)
            step.say(f"Kafka {loaded.settings.kafka}, {loaded.settings.redis}")
        with narrator.step("read the events") as step:
            history, model, live_from_us = _history(loaded)
            past, live = _split(loaded, history, live_from_us, days)
            step.say(f"{history.events:,} events of {len(history.frames)} kinds")
        with narrator.step("produce the past and fold it into features and log") as step:
            seeded = load_events(loaded, past, house, step.tell)
            rate = seeded.events / seeded.committed_s
            step.say(f"{seeded.events:,} events, {rate:,.0f}/s from produced to committed")
        with narrator.step(f"build the dataset, fit {model.name}, judge it, export ONNX") as step:
            trained = train_model(loaded, model, live_from_us, step.tell)
            step.say(f"{len(trained.dataset):,} rows, version {trained.bundle.version}")
        with narrator.step("start the service") as step:
            house.start_service()
            with Service(house.url) as service:
                service.await_ready(model.name)
            step.say(house.url)
        with narrator.step("play the last days live") as step:
            played = _play(house, loaded, model, seeded, live, step.tell)
            step.say(f"{played.events:,} events, {len(played.predictions):,} predictions")
        with narrator.step("audit every prediction against the log") as step:
            report = _audit(loaded, model, len(played.predictions), step.tell)
            step.say(f"{report.values:,} values compared, {report.differences} differences")
        judged = _judge(loaded, model, trained, played)
        pictures = _pictures(run, model, played, loaded)
        letters = len(read_box(loaded.settings).letters)
        return Outcome(
            run, root, model, seeded, trained, played, judged, report, letters, pictures, narrator.elapsed_s
        )  # fmt: skip


def _history(loaded: LoadedProject) -> tuple[History, hr.Model, int]:
    history = load_history(loaded)
    if history is None or history.live_from_us is None or not loaded.project.models:
        raise ConfigError(
            f"{loaded.root}: a demo needs a model, and a data.py with events() and LIVE_FROM; "
            f"take one of the examples: flights, fraud"
        )
    return history, loaded.project.models[0], history.live_from_us


def _split(
    loaded: LoadedProject, history: History, live_from_us: int, days: float | None
) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Past and live events, by a moment that is the beginning of a minute."""
    start = live_from_us // MINUTE_US * MINUTE_US
    end = None if days is None else start + round(days * 1440) * MINUTE_US
    past, live = {}, {}
    for name, frame in history.frames.items():
        at = pl.col(loaded.project.event(name).time)
        past[name] = frame.filter(at < start)
        live[name] = frame.filter((at >= start) & (at < end)) if end is not None else frame.filter(at >= start)
    return past, live


def _play(
    house: House,
    loaded: LoadedProject,
    model: hr.Model,
    seeded: Loaded,
    live: dict[str, pl.DataFrame],
    tell: Callable[[str, int, int], None],
) -> Played:
    commits = Commits(loaded, house.check)
    player = Player(loaded, model, house.url, seeded.ends, commits)
    try:
        played = player.play(live, lambda done, total: tell("events", done, total))
        await_all(
            loaded, player.ends, commits, check=house.check, progress=lambda done, total: tell("commit", done, total)
        )
        _await_logged(loaded, len(played.predictions))
        return played
    finally:
        player.close()
        commits.close()


def _await_logged(loaded: LoadedProject, answered: int) -> None:
    """Wait until the log writer has everything of the predictions' topic; more or less than answered is the audit's to say."""
    settings = loaded.settings
    topic = prediction_topic(settings.namespace)
    identity = kafka.topic_identity(settings.kafka, topic)
    table = prediction_log(settings, identity.topic_id)
    deadline = time.monotonic() + _LOGGED_S
    while sum(table.watermark().values()) < max(answered, sum(kafka.end_offsets(settings.kafka, topic).values())):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                "the log writer", settings.namespace, f"predictions unlogged after {_LOGGED_S:g} s"
            )
        time.sleep(0.1)


def _audit(loaded: LoadedProject, model: hr.Model, answered: int, tell: Callable[[str, int, int], None]) -> AuditReport:
    from headrace_training.auditing import audit
    from headrace_training.lookups import Effort

    return audit(loaded, model, answered=answered, effort=Effort(progress=tell))


def _judge(loaded: LoadedProject, model: hr.Model, trained: TrainResult, played: Played) -> Evaluation | None:
    """How good the live predictions were, now that their outcomes are known."""
    from headrace_training.evaluating import evaluate

    truth, predicted, at_us = outcomes(loaded, model, played)
    if model.task == "binary" and len(np.unique(truth)) < 2:
        return None
    return evaluate(model.task, truth, predicted, base=trained.evaluation.base, at_us=at_us)


def outcomes(loaded: LoadedProject, model: hr.Model, played: Played) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Truth, prediction and time of the live predictions whose outcome came (or whose absence has a meaning)."""
    from headrace_schemas.codecs import frame_columns
    from headrace_schemas.stores.log import event_log

    label = model.label
    log = event_log(loaded.settings, label.event).scan().collect()
    value = np.asarray(label.value.values(frame_columns(log, label.event, sorted(label.value.fields()))), np.float64)
    request_keys, outcome_keys = zip(*label.join.items(), strict=True)
    known = dict(zip(log.select(outcome_keys).iter_rows(), value.tolist(), strict=True))
    missing = None if label.missing == "drop" else float(label.missing)
    found = [known.get(tuple(request[key] for key in request_keys), missing) for request in played.asked]
    kept = [index for index, outcome in enumerate(found) if outcome is not None]
    return (
        np.array([found[index] for index in kept], np.float64),
        np.array(played.predictions, np.float64)[kept],
        np.array([played.asked[index][model.request.time] for index in kept], np.int64),
    )


def _pictures(run: Run, model: hr.Model, played: Played, loaded: LoadedProject) -> tuple[Path, ...]:
    from headrace_ops.demo.pictures import draw_quality, draw_speed

    quality, speed = run.directory / "quality.png", run.directory / "speed.png"
    made = []
    truth, predicted, _ = outcomes(loaded, model, played)
    if model.task == "binary" and truth.any():
        draw_quality(
            quality, truth, predicted,
            title=f"{len(truth):,} live predictions of {model.name}, and their outcomes", outcome=model.label.name,
        )  # fmt: skip
        made.append(quality)
    if played.latencies_ms and played.freshness_ms:
        draw_speed(speed, played.latencies_ms, played.freshness_ms, title="Latency and freshness, as seen in this run")
        made.append(speed)
    return tuple(made)


def write_report(outcome: Outcome, data: dict[str, object]) -> Path:
    """Keep the summary beside the run."""
    file = outcome.run.directory / "summary.json"
    file.write_text(json.dumps(data, indent=2, default=str), encoding="utf-8")
    return file
