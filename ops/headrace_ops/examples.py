"""Where the example projects lie, and what a project's ``data.py`` brings along.

In a clone they are in ``examples/``; in an installed wheel they travel as ``headrace_ops/examples/``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import polars as pl

import headrace as hr
from headrace.errors import ConfigError, NotFound
from headrace_ops.frames import conform
from headrace_schemas.loading import LoadedProject

_HERE = Path(__file__).parent
_PLACES = (_HERE / "examples", _HERE.parents[1] / "examples")


def example_path(name: str) -> Path:
    """The directory of an example project.

    Raises:
        NotFound: there is none of that name.
    """
    known = {
        path.name: path
        for place in reversed(_PLACES)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if (path / "headrace.toml").is_file()
    }
    if name not in known:
        raise NotFound("example project", name, known)
    return known[name]


@dataclass(frozen=True, slots=True)
class History:
    """The events that a project brings along.

    Attributes:
        frames: by event, in event-time order, as `conform` makes them.
        live_from_us: from here on events are played as live traffic; None if the project does not say.
    """

    frames: Mapping[str, pl.DataFrame]
    live_from_us: int | None

    @property
    def events(self) -> int:
        """How many events there are."""
        return sum(frame.height for frame in self.frames.values())

    def last(self, days: float, project: hr.Project) -> History:
        """The events of the last days only."""
        times = {name: project.event(name).time for name in self.frames}
        newest = max(int(cast(int, frame[times[name]].max())) for name, frame in self.frames.items() if frame.height)
        start = newest - round(days * 86_400_000_000)
        return History(
            {n: frame.filter(pl.col(times[n]) >= start) for n, frame in self.frames.items()}, self.live_from_us
        )


def load_history(loaded: LoadedProject) -> History | None:
    """What the project's ``data.py`` brings along: ``events()`` and, if it likes, ``LIVE_FROM``; None without that file.

    Raises:
        ConfigError: the file has no ``events()``, its frames do not fit the events, or its data package is not installed.
    """
    file = loaded.root / "data.py"
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"_headrace_data_{loaded.project.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, "events", None)
    if not callable(make):
        raise ConfigError(
            f"{file}: required a function events() that gives a frame for each event, but there is none; write it"
        )
    try:
        frames = cast(Callable[[], Mapping[str, pl.DataFrame]], make)()
    except ModuleNotFoundError as error:
        raise ConfigError(f"{file}: {error}") from error
    conformed = {
        name: conform(frame, loaded.project.event(name), source=f"{file}, events()[{name!r}]")
        for name, frame in frames.items()
    }
    live_from = getattr(module, "LIVE_FROM", None)
    if live_from is not None and not (isinstance(live_from, datetime) and live_from.tzinfo):
        raise ConfigError(
            f"{file}: LIVE_FROM must be a datetime with a zone, but it is {live_from!r}; write tzinfo=UTC"
        )
    return History(conformed, None if live_from is None else round(live_from.timestamp() * 1_000_000))
