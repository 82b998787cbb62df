"""The development house: everything running until Ctrl-C, with what a second terminal needs to talk to it.

Another terminal reads ``.headrace/dev/env``: the addresses, the namespace and the project of the newest `dev`. What may not
live here: the steps of bringing a project to life (`seeding.py`).
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import NotFound
from headrace_ops.demo.telling import Narrator
from headrace_ops.examples import History, load_history
from headrace_ops.house import HOME, House, Run
from headrace_ops.seeding import load_events, settle, train_model
from headrace_ops.service import Service
from headrace_ops.waiting import Commits
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores.registry import Registry

_POLL_S = 0.5


def run_dev(
    root: Path,
    narrator: Narrator,
    *,
    history: bool,
    days: float | None,
    port: int | None,
    ready: Callable[[House, LoadedProject], None],
) -> None:
    """Bring a project to life and keep it so until SIGINT or SIGTERM.

    Args:
        root: the project's directory.
        narrator: who tells what happens.
        history: produce what the project's ``data.py`` brings, and train its models.
        days: only the last days of it.
        port: the service's port; by default the project's, or any free one if that is taken.
        ready: called when everything runs.

    Raises:
        ServiceUnavailable, ProcessError: a part does not come up or dies.
    """
    settings = load_project(root, {}).settings
    run = Run.new("dev", settings.name, port=port if port is not None else settings.port)
    with _terminated_as_interrupted(), House(root, run) as house:
        try:
            loaded = _rise(house, narrator, history=history, days=days)
            ready(house, loaded)
            while True:
                house.check()
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return


def _rise(house: House, narrator: Narrator, *, history: bool, days: float | None) -> LoadedProject:
    with narrator.step("start the broker, the store and the pipelines") as step:
        loaded = settle(house)
        step.say(f"Kafka {loaded.settings.kafka}, {loaded.settings.redis}")
    brought = load_history(loaded) if history else None
    if brought is not None:
        _seed(house, loaded, brought if days is None else brought.last(days, loaded.project), narrator)
    with narrator.step("start the service") as step:
        house.start_service()
        _await_service(house, loaded)
        step.say(house.url)
    with narrator.step("wait for the feature pipeline"), Commits(loaded, house.check) as commits:
        commits.await_begun()
    write_env(house, house.run.directory.parent / "env")
    return loaded


def write_env(house: House, file: Path) -> None:
    """Write what a second terminal needs: ``. .headrace/dev/env``."""
    variables = house.variables | {"HEADRACE_PROJECT": str(house.root)}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(file)


def env_file() -> str:
    """Where `write_env` writes, as a person in the working directory types it."""
    return f"{HOME}/dev/env"


def _seed(house: House, loaded: LoadedProject, history: History, narrator: Narrator) -> None:
    with narrator.step("produce the project's events and fold them into features and log") as step:
        seeded = load_events(loaded, history.frames, house, step.tell)
        step.say(f"{seeded.events:,} events")
    for model in loaded.project.models:
        with narrator.step(f"train {model.name}") as step:
            trained = train_model(loaded, model, history.live_from_us, step.tell)
            step.say(f"version {trained.bundle.version}")


def _await_service(house: House, loaded: LoadedProject) -> None:
    registry = Registry(loaded.settings.registry_path)
    with Service(house.url) as service:
        for model in loaded.project.models:
            try:
                registry.resolve(model.name)
            except NotFound:
                service.await_answer(check=house.check)
            else:
                service.await_ready(model.name)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
