"""``headrace dev``: the embedded stack, all pipelines and the service, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace_ops.cli.options import example, project_option
from headrace_ops.cli.output import console

if TYPE_CHECKING:
    from headrace_ops.house import House
    from headrace_schemas.loading import LoadedProject


@click.command(
    "dev", epilog=example("headrace dev                      # the flights", "headrace dev -p my_project --empty")
)
@project_option
@click.option(
    "--days", type=click.FloatRange(0, min_open=True), help="Only the last days of those events: a quicker start."
)
@click.option("--empty", is_flag=True, help="Do not produce the events that the project brings in its data.py.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The service's port; by default the project's, if it is free."
)
def command(project: str | None, empty: bool, days: float | None, port: int | None) -> None:
    """Run a project on this machine, with a broker and a store of its own, until Ctrl-C. Without a project: the flights.

    Events that the project brings are produced first, and its models are trained. Everything starts afresh each time: the
    embedded broker keeps nothing. After editing the definitions, press Ctrl-C and run it again.
    """
    from pathlib import Path

    from headrace_ops.demo.telling import Narrator
    from headrace_ops.dev import run_dev
    from headrace_ops.examples import example_path
    from headrace_schemas.loading import load_project

    if project is None and not Path("headrace.toml").is_file():
        root = example_path("flights")
    else:
        root = load_project(project, {}).root
    run_dev(root, Narrator(), history=not empty, days=days, port=port, ready=_greet)
    console().print("\nstopped: all children have ended")


def _greet(house: House, loaded: LoadedProject) -> None:
    from headrace_ops.dev import env_file

    out = console()
    settings = loaded.settings
    out.print(f"\n[bold]{loaded.project.name} is up[/]  Ctrl-C stops everything")
    out.print(f"  service  {house.url}/docs")
    out.print(f"  Kafka    {settings.kafka}    topics {', '.join(event.topic for event in loaded.project.events)}")
    out.print(f"  Redis    {settings.redis}    namespace {settings.namespace}")
    out.print(f"  logs     {house.run.directory / 'logs'}")
    out.print("\nin another terminal:")
    out.print(f"  . {env_file()}")
    out.print("  headrace status")
    for model in loaded.project.models[:1]:
        out.print(f"  curl -s {house.url}/v1/models")
        out.print(f"  headrace predict {model.name} --help")
