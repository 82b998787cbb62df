"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from headrace_schemas.loading import LoadedProject

    MomentType = click.ParamType[int]
    PairType = click.ParamType[tuple[str, object]]
else:  # older clicks have no generic type at run time
    MomentType = PairType = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])


def project_option(command: _Command) -> _Command:
    """``-p/--project``: the parameter `project` is a directory or a package's name, or None."""
    return click.option(
        "-p",
        "--project",
        envvar="HEADRACE_PROJECT",
        metavar="PROJECT",
        help="Project directory or package; by default the working directory. [HEADRACE_PROJECT]",
    )(command)


def json_option(command: _Command) -> _Command:
    """``--json``: the answer as one JSON document on stdout. Commands do not see it; `output.show` does."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta["headrace.json"] = value

    return click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=remember, help="Answer in JSON."
    )(command)


def load(project: str | None) -> LoadedProject:
    """Load the project that ``-p`` named."""
    from headrace_schemas.loading import load_project

    return load_project(project)


class Moment(MomentType):
    """A moment in time: ISO 8601 with its zone, or a day, which begins at midnight UTC. The value is microseconds.

    >>> Moment().convert("2013-12-01", None, None) == Moment().convert("2013-12-01T01:00:00+01:00", None, None)
    True
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"required a time such as 2013-12-01 or 2013-12-01T06:30:00Z, got {value!r}", param, ctx)
        if moment.tzinfo is None:
            if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
                self.fail(f"required a time with its zone, got {value!r}; write {value}Z for UTC", param, ctx)
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000)


class Pair(PairType):
    """``name=value``; a value that reads as JSON (a number, true, null, a quoted string) is that, any other is a string.

    >>> Pair().convert("distance=1400", None, None), Pair().convert("origin=JFK", None, None)
    (('distance', 1400), ('origin', 'JFK'))
    """

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, object]:
        import json

        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"required name=value, got {value!r}", param, ctx)
        try:
            return name, json.loads(text)
        except json.JSONDecodeError:
            return name, text


def example(*lines: str) -> str:
    """The epilog of a command: its example, printed as written."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
