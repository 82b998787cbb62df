"""``headrace apply``: create topics and register feature views."""

from __future__ import annotations

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import show


@click.command("apply", epilog=example("headrace apply -p examples/flights"))
@project_option
@click.option("--partitions", default=4, show_default=True, type=click.IntRange(1), help="Of topics to be created.")
@click.option("--incompatible", is_flag=True, help="Even if records that are there could not be read any more.")
@json_option
def command(project: str | None, partitions: int, *, incompatible: bool) -> None:
    """Create the topics that are missing and make the declared views the registered ones. Applying twice changes nothing.

    Where records that are there, or that others write, could not be read as the events that are declared, nothing is changed and the
    exit code is 1.
    """
    from headrace_ops.cli.plan_command import draw
    from headrace_ops.plans import apply, plan

    loaded = load(project)
    wanted = plan(loaded, partitions=partitions)
    if not wanted.problems or incompatible:
        apply(loaded, wanted)
        show(wanted.to_json(), lambda: draw(wanted))
        return
    show(wanted.to_json(), lambda: draw(wanted))
    raise SystemExit(1)
