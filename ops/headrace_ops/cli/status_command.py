"""``headrace status``: what is running, how far it is, what lags."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table


@click.command("status", epilog=example("headrace status -p examples/flights"))
@project_option
@json_option
def command(project: str | None) -> None:
    """Look at topics, feature views, the log, models, the service and open dead letters.

    Exit code 1 if something that is declared does not run.
    """
    from headrace_ops.statuses import status

    found = status(load(project))

    def people() -> None:
        table(("feature view", "topic", "events", "lag"), [(v.view, v.topic, v.events, v.lag) for v in found.views])
        table(("log", "topic", "records", "lag"), [(t.table, t.topic, t.records, t.lag) for t in found.tables])
        table(("model", "champion", "service"), [(m.model, m.champion, m.service) for m in found.models])
        out = console()
        out.print(f"namespace {found.namespace} · service {found.service} · dead letters: {found.dead_letters}")
        for problem in found.problems:
            out.print(f"! {problem}")

    show(found.to_json(), people)
    sys.exit(0 if found.well else EXIT_NO)
