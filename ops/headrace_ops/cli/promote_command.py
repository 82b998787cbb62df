"""``headrace promote``: let a registered model through the gate."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show


@click.command("promote", epilog=example("headrace promote late_arrival 3f2a90c1b7de -p examples/flights"))
@click.argument("model")
@click.argument("version")
@project_option
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@click.option("--force", is_flag=True, help="Without comparison; the way back after a bad promotion.")
@json_option
def command(model: str, version: str, project: str | None, alias: str, force: bool) -> None:
    """Compare VERSION of MODEL with the champion on the same rows, and let ALIAS point to it if it is no worse.

    The service follows within seconds. Exit code 1 if the gate refused.
    """
    from headrace_training.lookups import Effort
    from headrace_training.promoting import promote

    with progress() as advance:
        decision = promote(load(project), model, version, alias=alias, force=force, effort=Effort(progress=advance))
    came = "is now" if decision.promoted else "stays as it was; it is not"
    show(
        decision.to_json(),
        lambda: console().print(f"{alias} of {model} {came} {decision.challenger}: {decision.reason}"),
    )
    sys.exit(0 if decision.promoted else EXIT_NO)
