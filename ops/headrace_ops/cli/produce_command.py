"""``headrace produce``: send the rows of a file as events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show


@click.command(
    "produce",
    epilog=example(
        "headrace produce departures new.ndjson -p examples/flights",
        "headrace produce departures december.parquet --speed 3600   # an hour in a second",
    ),
)
@click.argument("event")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@project_option
@click.option("--key", metavar="FIELD", help="Field that routes records to partitions; by default the event's id.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events per second at most.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="How many times faster than event time.")
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Return when the features hold the events.",
)
@json_option
def command(
    project: str | None,
    event: str,
    file: Path,
    key: str | None,
    rate: float | None,
    speed: float | None,
    wait: float | None,
) -> None:
    """Send each row of FILE (Parquet, CSV or NDJSON) as one EVENT, in the order of the file, in the event's own format.

    The columns must be the event's fields. Times are ISO 8601 with a zone, or microseconds since 1970. With ``--wait``, every view
    of the event holds what was sent when the command returns; if that takes longer, it fails, and the events stay on their topic.
    """
    if rate is not None and speed is not None:
        raise click.UsageError("--rate and --speed exclude each other; give one of them")
    from headrace_ops.frames import conform, read_file
    from headrace_ops.producing import EventProducer, replay
    from headrace_ops.waiting import Commits, ends_of
    from headrace_schemas.stores.kafka import topic_identity
    from headrace_schemas.stores.schema_registry import registry_of

    loaded = load(project)
    declared = loaded.project.event(event)
    frame = conform(read_file(file), declared, source=str(file))
    topic_identity(loaded.settings.kafka, declared.topic)
    settings: dict[str, Any] = {"key": key, "bulk": rate is None and speed is None, "reports": wait is not None}
    settings["schemas"] = registry_of(loaded.settings)
    with progress() as advance, EventProducer(loaded.settings.kafka, declared, **settings) as producer:
        sent = replay(producer, frame, rate=rate, speed=speed, progress=advance)
    answer = {"event": event, "topic": declared.topic, "events": sent.events, "seconds": sent.seconds}
    told = f"{sent.events:,} events to {declared.topic} in {sent.seconds:.1f} s ({sent.rate:,.0f}/s)"
    if wait is not None:
        began = time.monotonic()
        with Commits(loaded, lambda: None) as commits:
            commits.wait(declared, ends_of(producer.written.items()), patience_s=wait)
        answer["folded_s"] = time.monotonic() - began
        told += f"; in the features {1000 * (time.monotonic() - began):.0f} ms later"
    show(answer, lambda: console().print(told))
