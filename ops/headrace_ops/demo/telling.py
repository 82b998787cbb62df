"""Telling a story on a terminal: one line per step with its time, a bar while it runs, plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_REPORT_S = 5.0


class Step(Protocol):
    """One step of a story."""

    def tell(self, what: str, done: int, total: int) -> None:
        """How far a part of the step is."""

    def say(self, text: str) -> None:
        """What came out; shown when the step ends."""


class Narrator:
    """Prints steps to standard error, so that standard output stays for the answer.

    Args:
        quiet: print nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet, soft_wrap=True)
        self._bars = self._console.is_terminal and not quiet
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step; its line is printed when it ends, or with a cross when it fails."""
        began = time.monotonic()
        line = _Bars(self._console, title) if self._bars else _Lines(self._console, title)
        with line:
            try:
                yield line
            except BaseException:
                line.close()
                self._console.print(f"[red]✗[/] {escape(title)}")
                raise
        said = f" [dim]·[/] {escape(line.said)}" if line.said else ""
        self._console.print(f"[green]✓[/] {escape(title)}{said} [dim]({time.monotonic() - began:.1f} s)[/]")


class _Lines:
    """Without a terminal: a line at the start, and now and then one."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title, self.said = console, title, ""
        self._last = time.monotonic()

    def __enter__(self) -> _Lines:
        self._console.print(f"… {escape(self._title)}")
        sys.stderr.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""

    def tell(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _REPORT_S:
            self._last = time.monotonic()
            self._console.print(f"  {escape(what)} {done:,} of {total:,}")

    def say(self, text: str) -> None:
        self.said = text


class _Bars:
    """On a terminal: a bar for each part of the step, gone when the step ends."""

    def __init__(self, console: Console, title: str) -> None:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._title, self.said = title, ""

    def __enter__(self) -> _Bars:
        self._bars.start()
        self._tasks[""] = self._bars.add_task(escape(self._title), total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bars.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        if "" in self._tasks:
            self._bars.update(self._tasks.pop(""), visible=False)
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(escape(what), total=max(total, 1))
        self._bars.update(self._tasks[what], completed=done, total=max(total, 1))

    def say(self, text: str) -> None:
        self.said = text
