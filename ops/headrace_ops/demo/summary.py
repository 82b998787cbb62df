"""The summary of a demo: one screenful for people, the same facts as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace_ops.demo.story import Outcome
from headrace_training.evaluating import Evaluation


def summarise(outcome: Outcome) -> dict[str, object]:
    """The facts, as JSON-able data."""
    played, report, trained = outcome.played, outcome.audit, outcome.trained
    return {
        "ok": outcome.ok,
        "seconds": round(outcome.seconds, 1),
        "history": {
            "events": outcome.history.events,
            "produced_per_s": round(outcome.history.events / outcome.history.produced_s),
            "committed_per_s": round(outcome.history.events / outcome.history.committed_s),
        },
        "dataset": {"rows": len(trained.dataset), "counts": dict(trained.dataset.manifest.counts)},
        "model": {
            "name": outcome.model.name,
            "version": trained.bundle.version,
            "inputs": len(outcome.model.inputs),
            "holdout": trained.evaluation.to_json(),
            "live": None if outcome.judged is None else outcome.judged.to_json(),
            "onnx_max_difference": trained.exported.max_difference,
        },
        "live": {
            "events": played.events,
            "minutes": played.minutes,
            "seconds": round(played.seconds, 1),
            "latency_ms": quantiles(played.latencies_ms),
            "freshness_ms": quantiles(played.freshness_ms),
        },
        "parity": {
            "answered": len(played.predictions),
            "logged": report.logged,
            "audited": report.audited,
            "values": report.values,
            "differences": report.differences,
        },
        "dead_letters": outcome.dead_letters,
        "run": str(outcome.run.directory),
        "pictures": [str(picture) for picture in outcome.pictures],
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile.

    >>> quantiles([1.0, 2.0, 3.0])
    {'p50': 2.0, 'p99': 2.98}
    """
    if not values:
        return {}
    return {name: round(float(np.quantile(values, q)), 2) for name, q in (("p50", 0.5), ("p99", 0.99))}


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print the screenful."""
    trained, played, report = outcome.trained, outcome.played, outcome.audit
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, title_justify="left", title_style="bold")
    table.title = f"{outcome.model.name}: from events to audited predictions in {outcome.seconds:.0f} s"
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    history = outcome.history
    table.add_row(
        "events",
        f"{history.events:,} of the past, produced at {history.events / history.produced_s:,.0f}/s, in features and log at "
        f"{history.events / history.committed_s:,.0f}/s; then {played.events:,} live over {played.minutes:,} minutes; "
        f"{outcome.dead_letters} dead letter{'' if outcome.dead_letters == 1 else 's'}",
    )
    left_out = ", ".join(
        f"{reason} {count:,}" for reason, count in trained.dataset.manifest.counts.items() if reason != "rows"
    )
    table.add_row(
        "dataset",
        f"{len(trained.dataset):,} rows × {len(outcome.model.inputs)} inputs, point-in-time correct ({left_out})",
    )
    table.add_row("model on hold-out", _quality(trained.evaluation))
    if outcome.judged is not None:
        table.add_row("model live", _quality(outcome.judged))
    table.add_row("ONNX = Python", f"largest difference on the hold-out {trained.exported.max_difference:.1g}")
    table.add_row("latency", _speed(played.latencies_ms, "a prediction over HTTP, as its client saw it"))
    table.add_row("freshness", _speed(played.freshness_ms, "from sending an event until a prediction reads it"))
    colour = "green" if outcome.ok else "red"
    table.add_row(
        "parity",
        f"[{colour}]answered {len(played.predictions):,} = logged {report.logged:,} = audited {report.audited:,}; "
        f"{report.values:,} values compared bit for bit, {report.differences} differences[/]",
    )
    console.print(table)
    for line in _artifacts(outcome):
        console.print(line)


def _quality(found: Evaluation) -> str:
    """The metrics that a reader knows, each with its interval and what the base rate alone would give."""
    parts = []
    for name in ("auc", "log_loss", "brier", "rmse", "mae"):
        if name in found.metrics:
            value = found.metrics[name]
            base = found.baseline.get(name)
            alone = "" if base is None else f", base rate alone {base:.3f}"
            parts.append(f"{name.replace('_', ' ')} {value.value:.3f} [{value.low:.3f} … {value.high:.3f}{alone}]")
    return escape(f"{'; '.join(parts[:2])} ({found.rows:,} rows, {found.confidence:.0%} intervals)")


def _speed(values: Sequence[float], what: str) -> str:
    if not values:
        return "not measured"
    found = quantiles(values)
    return f"p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms: {what} ({len(values):,} measured)"


def _artifacts(outcome: Outcome) -> list[str]:
    directory, project = escape(_short(outcome.run.directory)), escape(_short(outcome.root))
    pictures = ", ".join(picture.name for picture in outcome.pictures)
    lies = f"log/ (Delta tables), registry/{outcome.model.name}/, logs/, {pictures}, summary.json"
    dev = f"headrace dev -p {project}"
    return [
        f"[dim]where it lies[/]     {directory}/  {lies}",
        f"[dim]try next[/]          {dev}   # the same, kept running: ask it with curl, send it events (README)",
        f"                  edit {project}/features.py, then {dev} again",
    ]


def _short(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
