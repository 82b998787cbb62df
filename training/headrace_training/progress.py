"""Progress: what long jobs tell whoever watches them. What may not live here: terminals."""

from __future__ import annotations

import threading
from typing import Protocol


class Progress(Protocol):
    """Called now and then, from any thread, with what is being done, how much of it is done, and how much there is."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def silent(_what: str, _done: int, _total: int, /) -> None:
    """Tell nobody."""


class Counter:
    """Adds up what several threads have done.

    >>> counter = Counter(lambda what, done, total: print(what, done, total), "reading", 10)
    >>> counter.add(4)
    reading 4 10
    """

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total = progress, what, total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """More is done."""
        with self._lock:
            self._done += count
            self._progress(self._what, self._done, self._total)
