"""Knowing when events are committed: in the features of every view, and in the log.

sent        partition → the offset behind the last record that a broker acknowledged
committed   every view of an event has reached it          (the workers' own progress)
logged      the event's table has reached it               (the table's own watermark)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Self

import headrace as hr
from headrace.errors import ServiceUnavailable
from headrace_ops.statuses import lag
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log

Ends = Mapping[int, int]
_QUICK_S = 0.0005
_SLOW_S = 0.1


class Commits:
    """What the feature pipeline has committed.

    Args:
        loaded: the project.
        check: called while waiting, to notice children that died.
    """

    def __init__(self, loaded: LoadedProject, check: Callable[[], object]) -> None:
        self._client = online.connect(loaded.settings.redis)
        self._namespace, self._check = loaded.settings.namespace, check
        self._views = {event.name: loaded.project.views_of(event) for event in loaded.project.events}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def lag(self, event: hr.Event, ends: Ends) -> int:
        """How many records of an event are missing in the view that is furthest behind."""
        reached = (online.progress(self._client, self._namespace, view) for view in self._views[event.name])
        return max((lag(dict(ends), each) for each in reached), default=0)

    def await_begun(self, *, patience_s: float = 180.0) -> None:
        """Wait until every view's worker reads: from then on an event is in the features within milliseconds.

        Raises:
            ServiceUnavailable: they do not within the time; the first start on a machine compiles for some seconds.
            ProcessError: a child died.
        """
        deadline = time.monotonic() + patience_s
        views = [view for views in self._views.values() for view in views]
        while not all(online.progress(self._client, self._namespace, view) for view in views):
            self._check()
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    "the feature pipeline", self._namespace, f"it did not begin to read within {patience_s:g} s"
                )
            time.sleep(_SLOW_S)

    def wait(self, event: hr.Event, ends: Ends, *, patience_s: float = 60.0) -> None:
        """Wait until every view of an event has committed everything below `ends`.

        Raises:
            ServiceUnavailable: it has not within the time.
            ProcessError: a child died.
        """
        deadline, looked = time.monotonic() + patience_s, time.monotonic()
        while (behind := self.lag(event, ends)) > 0:
            now = time.monotonic()
            if now - looked > 1.0:
                self._check()
                looked = now
            if now > deadline:
                raise ServiceUnavailable(
                    "the feature pipeline",
                    self._namespace,
                    f"{behind} events of {event.topic} uncommitted after {patience_s:g} s",
                )
            time.sleep(_QUICK_S)


class Logged:
    """What the log writer has committed."""

    def __init__(self, loaded: LoadedProject) -> None:
        settings = loaded.settings
        self._tables = {
            event.name: event_log(settings, event, kafka.topic_identity(settings.kafka, event.topic).topic_id)
            for event in loaded.project.events
        }

    def lag(self, event: hr.Event, ends: Ends) -> int:
        """How many records of an event are not in its table yet; rejected ones count as in it."""
        return lag(dict(ends), self._tables[event.name].watermark())


def await_all(
    loaded: LoadedProject,
    ends: Mapping[str, Ends],
    commits: Commits,
    *,
    check: Callable[[], object],
    progress: Callable[[int, int], None],
    patience_s: float = 300.0,
) -> None:
    """Wait until features and log hold everything below `ends` (by event), telling how much is done.

    Raises:
        ServiceUnavailable: they do not within the time.
    """
    total = 2 * sum(sum(end.values()) for end in ends.values())
    deadline, logged = time.monotonic() + patience_s, Logged(loaded)
    while True:
        check()
        events = [loaded.project.event(name) for name in ends]
        left = sum(commits.lag(event, ends[event.name]) + logged.lag(event, ends[event.name]) for event in events)
        progress(total - left, total)
        if left == 0:
            return
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                "the pipelines", loaded.settings.namespace, f"{left} events behind after {patience_s:g} s"
            )
        time.sleep(_SLOW_S)


def ends_of(written: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The offsets behind the last written ones.

    >>> ends_of([(0, 41), (1, 7)])
    {0: 42, 1: 8}
    """
    return {partition: offset + 1 for partition, offset in written}
