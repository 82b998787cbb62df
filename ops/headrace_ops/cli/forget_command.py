"""``headrace forget``: delete an entity from the online store and the log, for good."""

from __future__ import annotations

import click

from headrace_ops.cli.group import EXIT_SERVICE, EXIT_USE, failure
from headrace_ops.cli.options import Pair, example, json_option, load, project_option
from headrace_ops.cli.output import console, show


@click.command("forget", epilog=example("headrace forget airport airport=JFK -p examples/flights"))
@click.argument("entity")
@click.argument("keys", nargs=-1, required=True, type=Pair(), metavar="KEY=VALUE...")
@project_option
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for it.",
)
@json_option
def command(project: str | None, entity: str, keys: tuple[tuple[str, object], ...], wait: float) -> None:
    """Delete one ENTITY: its states, its events in the log and its logged predictions. What it does from now on counts anew.

    It is written on a list that every reader honours for ever, also after a rewind; the running pipelines carry it out. With exit code 3
    they had not done so within the time; they will when they run.
    """
    from headrace_ops.forgetting import await_gone, entity_of, forget

    loaded = load(project)
    declared = entity_of(loaded, entity)
    given = dict(keys)
    if set(given) != set(declared.keys):
        needed = " ".join(f"{name}=…" for name in declared.keys)
        raise failure(f"entity {entity!r}: required {needed}, got {sorted(given)}", EXIT_USE)
    deletion = forget(loaded, declared, given)
    left = await_gone(loaded, deletion, wait)
    answer = {"entity": entity, "position": deletion.entry.position, "gone": not left, "left": left}
    told = "forgotten: no state and no row of it is left" if not left else "on the list, not carried out yet:"
    show(answer, lambda: console().print("\n  ".join([told, *left])))
    if left:
        raise SystemExit(EXIT_SERVICE)
