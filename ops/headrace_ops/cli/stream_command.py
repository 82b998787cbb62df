"""``headrace stream``: run the feature pipeline and the log writer."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.options import example, project_option


@click.command(
    "stream",
    epilog=example("headrace stream -p examples/flights", "headrace stream --role log   # the log writer alone"),
)
@project_option
@click.option(
    "--role",
    type=click.Choice(["all", "stream", "log"]),
    default="all",
    show_default=True,
    help="The feature pipeline, the log writer, or both.",
)
def command(project: str | None, role: str) -> None:
    """Fold the project's topics into features and append them to the log, until SIGTERM or Ctrl-C.

    Both are child processes that end with this one. A worker that dies is started again and goes on where its commits end.
    """
    from headrace_ops.pipelines import run_pipelines

    sys.exit(run_pipelines(project, ("stream", "log") if role == "all" else (role,)))
