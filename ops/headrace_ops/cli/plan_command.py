"""``headrace plan``: what `apply` would do, and what the windows cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table

if TYPE_CHECKING:
    from headrace_ops.plans import Plan


@click.command("plan", epilog=example("headrace plan -p examples/flights --partitions 8"))
@project_option
@click.option("--partitions", default=4, show_default=True, type=click.IntRange(1), help="Of topics to be created.")
@json_option
def command(project: str | None, partitions: int) -> None:
    """Compare the project with its broker and store, and say what apply would do. Nothing is changed.

    A window is exact up to the tile at its far edge: `3h (+3m)` covers at least three hours and less than three minutes more.
    The exit code is 1 where records that are there, or that others write, could not be read as the events that are declared.
    """
    from headrace_ops.plans import plan

    wanted = plan(load(project), partitions=partitions)
    show(wanted.to_json(), lambda: draw(wanted))
    if wanted.problems:
        raise SystemExit(1)


def draw(wanted: Plan) -> None:
    """Print a plan for people."""
    table(("topic", "for", "partitions", "action"), [(t.topic, t.use, t.partitions, t.action) for t in wanted.topics])
    table(("event", "encoding", "action"), [(e.event, e.encoding, e.action) for e in wanted.events])
    rows = [
        (v.view, v.features, ", ".join(f"{window} (+{tile})" for window, tile in v.windows.items()), v.layout, v.action)
        for v in wanted.views
    ]
    table(("feature view", "features", "windows", "layout", "action"), rows)
    out = console()
    for problem in wanted.problems:
        out.print(f"incompatible: {problem}")
    for name in wanted.gone:
        out.print(
            f"view {name} is registered but no longer declared: it will no longer be fed; its states stay in Redis"
        )
    out.print(f"{wanted.changes} changes" if wanted.changes else "no changes: everything is as declared")
    for line in wanted.advice():
        out.print(f"then {line}")
