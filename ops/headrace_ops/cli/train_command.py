"""``headrace train``: fit, evaluate and register a model."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast

import click

from headrace.errors import ConfigError
from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import Moment, example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show, table

if TYPE_CHECKING:
    from headrace_schemas.loading import LoadedProject
    from headrace_training.training import TrainResult


@click.command("train", epilog=example("headrace train late_arrival --until 2013-12-29 -p examples/flights"))
@click.argument("model", required=False)
@project_option
@click.option("--from", "from_us", type=Moment(), help="Request events from this moment on.")
@click.option("--until", "until_us", type=Moment(), help="Request events before this moment.")
@click.option("--evaluate-from", "evaluate_from_us", type=Moment(), help="Judge on rows from this moment on.")
@click.option(
    "--holdout",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, True, True),
    help="Or on this latest share.",
)
@click.option("--lag", default="0s", show_default=True, help="How long after its time an event becomes knowable.")
@click.option(
    "--promote",
    type=click.Choice(["gate", "always", "never"]),
    default="gate",
    show_default=True,
    help="Whether the model becomes the champion.",
)
@json_option
def command(
    model: str | None,
    project: str | None,
    from_us: int | None,
    until_us: int | None,
    evaluate_from_us: int | None,
    holdout: float,
    lag: str,
    promote: str,
) -> None:
    """Build MODEL's dataset (by default of the project's only model) from the log, fit it, judge it on the latest rows, export it to ONNX and register the bundle.

    Exit code 1 if the gate did not let it become the champion; the bundle is registered all the same.
    """
    from headrace.durations import parse_us
    from headrace_training.lookups import Effort
    from headrace_training.training import train

    loaded = load(project)
    chosen = model or _only_model(loaded)
    with progress() as advance:
        result = train(
            loaded,
            chosen,
            created_at=datetime.now(UTC),
            from_us=from_us,
            until_us=until_us,
            evaluate_from_us=evaluate_from_us,
            holdout_share=holdout,
            lag_us=parse_us(lag),
            promote=cast(Literal["gate", "always", "never"], promote),
            effort=Effort(progress=advance),
        )
    show(result.to_json(), lambda: _draw(result))
    refused = result.decision is not None and not result.decision.promoted
    sys.exit(EXIT_NO if refused else 0)


def _only_model(loaded: LoadedProject) -> str:
    names = [model.name for model in loaded.project.models]
    if len(names) != 1:
        raise ConfigError(
            f"train: name the model where a project declares other than one, but {loaded.root} declares "
            f"{', '.join(names) or 'none'}; write `headrace train {names[0] if names else 'MODEL'}`"
        )
    return names[0]


def _draw(result: TrainResult) -> None:
    judged = result.evaluation
    rows = [
        (
            name,
            f"{found.value:.4f}",
            f"{found.low:.4f} … {found.high:.4f}",
            f"{judged.baseline.get(name, float('nan')):.4f}",
        )
        for name, found in judged.metrics.items()
    ]
    table(("metric", "value", f"{judged.confidence:.0%} interval", "base rate alone"), rows)
    out = console()
    out.print(f"{len(result.split.fit):,} rows fitted, {judged.rows:,} later rows judged")
    out.print(f"ONNX against Python on the hold-out: largest difference {result.exported.max_difference:.2g}")
    out.print(f"{result.bundle.model} {result.bundle.version} in {result.bundle.path}")
    if result.decision is not None:
        out.print(("champion: " if result.decision.promoted else "not the champion: ") + result.decision.reason)
