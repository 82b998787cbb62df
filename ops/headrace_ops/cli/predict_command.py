"""``headrace predict``: ask the running service for a prediction."""

from __future__ import annotations

import json
from typing import Any

import click

from headrace_ops.cli.group import EXIT_USE, failure
from headrace_ops.cli.options import Pair, example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table


@click.command(
    "predict",
    epilog=example(
        "headrace predict late_arrival origin=JFK dest=LAX carrier=B6 tailnum=N593JB \\",
        "    dep_delay=12 distance=2475 scheduled_minutes=375 scheduled_at=2013-12-30T12:00:00Z -p examples/flights",
        """headrace predict late_arrival '{"rows": [{"origin": "JFK", "dest": "LAX", …}]}' -p examples/flights""",
    ),
)
@click.argument("model")
@click.argument("request", nargs=-1, required=True, metavar="FIELD=VALUE... | JSON")
@project_option
@click.option("--url", help="Where the service is; by default [serving] host and port of the project.")
@click.option("--show-features", is_flag=True, help="Show the features that the prediction was made of.")
@json_option
def command(model: str, request: tuple[str, ...], project: str | None, url: str | None, show_features: bool) -> None:
    """Ask the running service for one prediction by MODEL, or for several at once with a JSON body."""
    from headrace_ops.service import Service

    loaded = load(project)
    loaded.project.model(model)
    body = _body(request)
    if show_features:
        body["include"] = ["features"]
    with Service(url or f"http://{loaded.settings.host}:{loaded.settings.port}") as service:
        answer = service.predict(model, body)
    show(answer, lambda: _draw(answer))


def _body(request: tuple[str, ...]) -> dict[str, Any]:
    if len(request) == 1 and request[0].lstrip().startswith("{"):
        try:
            parsed = json.loads(request[0])
        except json.JSONDecodeError as error:
            raise failure(f"the request must be JSON, but {error}", EXIT_USE) from None
        assert isinstance(parsed, dict)
        return parsed
    pair = Pair()
    return dict(pair.convert(field, None, None) for field in request)


def _draw(answer: dict[str, Any]) -> None:
    console().print(f"model {answer.get('model')} version {answer.get('version')}")
    predictions = answer.get("predictions", [])
    table(("prediction", "prediction id"), [(p.get("prediction"), p.get("prediction_id")) for p in predictions])
    for prediction in predictions:
        if "features" in prediction:
            rows = [(name, *_value(value)) for name, value in prediction["features"].items()]
            table(("feature", "value", "age"), rows)


def _value(value: object) -> tuple[object, object]:
    if isinstance(value, dict):
        age = value.get("age_s")
        return value.get("value"), None if age is None else f"{age:,.0f} s"
    return value, None
