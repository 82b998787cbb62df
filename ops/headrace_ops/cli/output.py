"""What a command prints: JSON for programs, tables and lines for people. Progress goes to stderr, answers to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


def wants_json() -> bool:
    """Whether the running command was given ``--json``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("headrace.json"))


def show(data: object, people: Callable[[], None]) -> None:
    """Print the answer: `data` as JSON if that was asked for, else what `people` prints."""
    if wants_json():
        click.echo(json.dumps(data, ensure_ascii=False, indent=2, default=str))
    else:
        people()


def console(*, stderr: bool = False) -> Console:
    """A console for the standard output, or for standard error, as it is now."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table; columns whose values are all numbers are set to the right."""
    from rich import box
    from rich.table import Table

    lines = [[_cell(value) for value in row] for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(lines) and all(_is_number(line[index]) for line in lines)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*line)
    console().print(drawn)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar per step on stderr; silent with ``--json`` or where stderr is not a terminal's."""
    if wants_json() or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return escape(str(value))


def _is_number(text: str) -> bool:
    return text == "–" or text.replace(",", "").replace(".", "", 1).lstrip("-").replace("e", "", 1).isdigit()
