"""``headrace init``: a new project from a template."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_ops.cli.options import example, json_option
from headrace_ops.cli.output import console, show


@click.command("init", epilog=example("headrace init shop", "cd shop && headrace check"))
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def command(directory: Path) -> None:
    """Make DIRECTORY with a headrace.toml and a features.py to begin with: one event, one entity, one feature view.

    Files that are there already are never overwritten.
    """
    from headrace_ops.templates import write_project

    written = write_project(directory)

    def people() -> None:
        for file in written:
            console().print(f"wrote {file}")
        console().print(f"next: cd {directory} && headrace check && headrace dev")

    show({"directory": str(directory), "files": [str(file) for file in written]}, people)
