"""``headrace demo``: a year of real flights, end to end."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, project_option
from headrace_ops.cli.output import console, show, wants_json


@click.command("demo", epilog=example("headrace demo", "headrace demo --example fraud --days 0.5"))
@click.option(
    "--example", "name", default="flights", show_default=True, help="Which example project: flights or fraud."
)
@project_option
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Play only so many days live.")
@json_option
def command(name: str, project: str | None, days: float | None) -> None:
    """Tell the whole story on real data: stream, features, training, service, live traffic, audit.

    Everything runs on this machine, in child processes that end with this one; what it leaves lies in .headrace/demo/.
    Exit code 1 if the audit finds a difference.
    """
    from headrace_ops.demo.story import tell_story, write_report
    from headrace_ops.demo.summary import print_summary, summarise
    from headrace_ops.demo.telling import Narrator
    from headrace_ops.examples import example_path
    from headrace_schemas.loading import load_project

    root = load_project(project, {}).root if project else example_path(name)
    outcome = tell_story(root, Narrator(quiet=wants_json()), days=days)
    data = summarise(outcome)
    write_report(outcome, data)
    show(data, lambda: print_summary(outcome, console()))
    sys.exit(0 if outcome.ok else EXIT_NO)
