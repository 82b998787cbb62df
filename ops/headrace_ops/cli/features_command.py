"""``headrace features``: what a prediction would see of an entity now."""

from __future__ import annotations

import time

import click

from headrace_ops.cli.group import EXIT_USE, failure
from headrace_ops.cli.options import Moment, Pair, example, json_option, load, project_option
from headrace_ops.cli.output import show, table


@click.command(
    "features",
    epilog=example("headrace features origin_departures airport=JFK --at 2013-12-30T12:00:00Z -p examples/flights"),
)
@click.argument("view")
@click.argument("keys", nargs=-1, required=True, type=Pair(), metavar="KEY=VALUE...")
@project_option
@click.option("--at", "at_us", type=Moment(), help="The moment of reading; by default now.")
@json_option
def command(project: str | None, view: str, keys: tuple[tuple[str, object], ...], at_us: int | None) -> None:
    """Read the state of one entity of VIEW from the online store, and show its features.

    Reads at moments earlier than the newest event of the entity show what that state holds, not what was known then.
    """
    from headrace_ops.reading import read_features

    loaded = load(project)
    declared = loaded.project.view(view)
    moment = at_us if at_us is not None else time.time_ns() // 1_000
    wanted = set(declared.entity.keys)
    given = dict(keys)
    if set(given) != wanted:
        needed = " ".join(f"{name}=…" for name in declared.entity.keys)
        raise failure(
            f"view {view!r} is of entity {declared.entity.name!r}: required {needed}, got {sorted(given)}", EXIT_USE
        )
    found = read_features(loaded, declared, given, moment)
    show(found.to_json(), lambda: table(("feature", "value"), list(found.values.items()), title=found.title))
