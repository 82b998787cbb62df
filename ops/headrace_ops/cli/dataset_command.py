"""``headrace dataset``: a point-in-time correct dataset, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from headrace_ops.cli.options import Moment, example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show

if TYPE_CHECKING:
    from headrace_training.datasets import Dataset, Mode


@click.command(
    "dataset",
    epilog=example(
        "headrace dataset late_arrival --until 2013-12-29 --out december.parquet -p examples/flights",
        "headrace dataset origin_departures --spine moments.csv --out features.parquet -p examples/flights",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="MODEL | VIEW...")
@project_option
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Parquet or CSV file to write."
)
@click.option(
    "--spine", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Rows to use: keys and times."
)
@click.option(
    "--time", default="at", show_default=True, help="With views: the column of the spine that holds the moments."
)
@click.option("--from", "from_us", type=Moment(), help="Request events from this moment on.")
@click.option("--until", "until_us", type=Moment(), help="Request events before this moment.")
@click.option(
    "--mode",
    type=click.Choice(["event-time", "as-available", "as-served"]),
    default="event-time",
    show_default=True,
    help="What a row may know.",
)
@click.option("--lag", default="0s", show_default=True, help="How long after its time an event becomes knowable.")
@click.option("--labels/--no-labels", default=True, show_default=True, help="With a model: join its label.")
@json_option
def command(
    names: tuple[str, ...],
    project: str | None,
    out: Path,
    spine: Path | None,
    time: str,
    from_us: int | None,
    until_us: int | None,
    mode: str,
    lag: str,
    labels: bool,
) -> None:
    """Build the dataset of a MODEL, or the features of VIEWs for the keys and moments of a spine.

    The columns of the spine come first, then one column per feature, named as served. A manifest is written beside the file.
    """
    from headrace.durations import parse_us
    from headrace_ops.datasets import spine_frame, write
    from headrace_training.datasets import build_dataset, features_for_spine
    from headrace_training.lookups import Effort

    loaded = load(project)
    models = {model.name for model in loaded.project.models}
    with progress() as advance:
        effort = Effort(progress=advance)
        if len(names) == 1 and names[0] in models:
            dataset = build_dataset(
                loaded,
                names[0],
                from_us=from_us,
                until_us=until_us,
                spine=None if spine is None else spine_frame(spine, {}),
                mode=cast("Mode", mode),
                lag_us=parse_us(lag),
                labels=labels,
                effort=effort,
            )
        else:
            views = [loaded.project.view(name) for name in names]
            if spine is None:
                raise click.UsageError(
                    f"the features of views are built for a spine; name its file: --spine FILE with {time!r}"
                )
            keys = {name: key.type for view in views for name, key in view.entity.keys.items()}
            frame = spine_frame(spine, keys, time=time)
            dataset = features_for_spine(loaded, views, frame, time=time, lag_us=parse_us(lag), effort=effort)
    written = write(dataset.frame, dataset.manifest, out)
    show(written.to_json(), lambda: _draw(dataset, out, written.manifest))


def _draw(dataset: Dataset, out: Path, manifest: Path) -> None:
    line = f"{dataset.frame.height:,} rows × {dataset.frame.width} columns in {out}; how it was made: {manifest}"
    counts = ", ".join(f"{reason} {count:,}" for reason, count in dataset.manifest.counts.items())
    console().print(f"{line}\n{counts}")
