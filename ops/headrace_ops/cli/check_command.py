"""``headrace check``: load the definitions and validate them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table

if TYPE_CHECKING:
    import headrace as hr


@click.command(
    "check", epilog=example("headrace check -p examples/flights", "15 definitions, 40 features: all is well")
)
@project_option
@click.option(
    "--schema", metavar="EVENT", help="Print the Avro schema of an event instead, for a producer of your own."
)
@json_option
def command(project: str | None, schema: str | None) -> None:
    """Load the definitions and validate them, without any service.

    A definition that breaks a rule is named with its file, its line, the rule and what to write; the exit code is then 1.
    """
    declared = load(project).project
    if schema is not None:
        click.echo(json.dumps(declared.event(schema).avro_schema, indent=2))
        return

    def people() -> None:
        table(("feature view", "entity", "event", "features"), _rows(declared))
        table(
            ("model", "request", "inputs", "label"),
            [(model.name, model.request.name, len(model.inputs), model.label.name) for model in declared.models],
        )
        kinds = (declared.events, declared.entities, declared.views, declared.labels, declared.models)
        features = sum(len(view.feature_names) for view in declared.views)
        console().print(f"{sum(map(len, kinds))} definitions, {features} features: all is well")

    show(_json(declared), people)


def _rows(declared: hr.Project) -> list[tuple[str, str, str, int]]:
    return [(view.name, view.entity.name, view.event.name, len(view.feature_names)) for view in declared.views]


def _json(declared: hr.Project) -> dict[str, object]:
    return {
        "project": declared.name,
        "fingerprint": declared.fingerprint,
        "events": [event.name for event in declared.events],
        "entities": [entity.name for entity in declared.entities],
        "views": {view.name: list(view.feature_names) for view in declared.views},
        "labels": [label.name for label in declared.labels],
        "models": {model.name: [column.name for column in model.inputs] for model in declared.models},
    }
