"""``headrace promote``: point an alias of a model to another version."""

from __future__ import annotations

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show


@click.command("promote", epilog=example("headrace promote late_arrival 3f2a90c1b7de -p examples/flights"))
@click.argument("model")
@click.argument("version")
@project_option
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@json_option
def command(model: str, version: str, project: str | None, alias: str) -> None:
    """Let ALIAS of MODEL point to VERSION, by hand and without comparison; the service follows within seconds.

    The way back is the same command with the version that was replaced; the answer names it.
    """
    from headrace.errors import NotFound
    from headrace_schemas.stores.registry import Registry

    loaded = load(project)
    registry = Registry(loaded.settings.registry_path)
    loaded.project.model(model)
    wanted = registry.resolve(model, version)
    try:
        before = registry.resolve(model, alias)
    except NotFound:
        before = None
    registry.set_alias(model, alias, wanted)
    show(
        {"model": model, "alias": alias, "version": wanted, "before": before},
        lambda: console().print(f"{alias} of {model} is {wanted}" + (f"; it was {before}" if before else "")),
    )
