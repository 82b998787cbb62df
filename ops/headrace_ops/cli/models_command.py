"""``headrace models``: what the registry holds."""

from __future__ import annotations

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table


@click.command("models", epilog=example("headrace models -p examples/flights"))
@project_option
@json_option
def command(project: str | None) -> None:
    """List the registered models with their versions, aliases and metrics, and what a crash left half-written."""
    from headrace_schemas.stores.registry import Registry

    registry = Registry(load(project).settings.registry_path)
    listings, leftovers = registry.list(), registry.leftovers()
    data = {
        "models": [
            {
                "model": found.model,
                "version": found.version,
                "aliases": list(found.aliases),
                "created_at": found.manifest.created_at,
                "metrics": dict(found.manifest.metrics),
                "path": str(found.path),
            }
            for found in listings
        ],
        "half_written": [str(path) for path in leftovers],
    }

    def people() -> None:
        rows = [(f.model, f.version, ", ".join(f.aliases), f.manifest.created_at, f.path) for f in listings]
        if rows:
            table(("model", "version", "aliases", "created", "path"), rows)
        else:
            console().print("no model is registered yet; run `headrace train MODEL`")
        for path in leftovers:
            console().print(f"half-written and never visible to the service: {path}; it may be removed")

    show(data, people)
