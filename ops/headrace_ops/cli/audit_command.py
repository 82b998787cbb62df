"""``headrace audit``: recompute what was served, and compare it bit for bit."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show


@click.command(
    "audit", epilog=example("headrace audit -p examples/flights", "headrace audit --model late_arrival --json")
)
@project_option
@click.option("--model", help="Only this model's predictions.")
@json_option
def command(project: str | None, model: str | None) -> None:
    """Recompute the features of every logged prediction from the log of events, at the offsets that it was served from.

    Exit code 1 if a single bit differs, or if a logged prediction could not be recomputed.
    """
    from headrace_training.auditing import audit
    from headrace_training.lookups import Effort

    with progress() as advance:
        report = audit(load(project), model, effort=Effort(progress=advance))
    show(report.to_json(), lambda: console().print(str(report)))
    sys.exit(0 if report.ok else EXIT_NO)
