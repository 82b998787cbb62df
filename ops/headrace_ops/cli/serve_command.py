"""``headrace serve``: run the inference service."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.options import example, load, project_option


@click.command("serve", epilog=example("headrace serve -p examples/flights --port 8000"))
@project_option
@click.option("--host", help="Address to listen on; by default [serving] host.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; by default [serving] port.")
def command(project: str | None, host: str | None, port: int | None) -> None:
    """Serve the project's champion models until SIGTERM or Ctrl-C."""
    from headrace_serving.server import run_server

    sys.exit(run_server(load(project), host, port))
