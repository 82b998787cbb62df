"""``headrace audit``: recompute what was served, and compare it bit for bit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show, table

if TYPE_CHECKING:
    from headrace_training.auditing import AuditReport


@click.command(
    "audit", epilog=example("headrace audit -p examples/flights", "headrace audit --model late_arrival --json")
)
@project_option
@click.option("--model", help="Only this model's predictions.")
@json_option
def command(project: str | None, model: str | None) -> None:
    """Recompute the features of every logged prediction from the log of events, at the offsets that it was served from.

    Exit code 1 if a single bit differs, or if a logged prediction could not be recomputed.
    """
    from headrace_training.auditing import audit
    from headrace_training.lookups import Effort

    with progress() as advance:
        report = audit(load(project), model, effort=Effort(progress=advance))
    show(report.to_json(), lambda: _draw(report))
    sys.exit(0 if report.ok else EXIT_NO)


def _draw(report: AuditReport) -> None:
    rows = [(part.what, part.values, part.differences, part.empty, part.late, part.ahead) for part in report.compared]
    if rows:
        table(("compared", "values", "differences", "no state yet", "late", "ahead"), rows)
    out = console()
    answers = report.outputs
    out.print(
        f"answers of the model: {answers.exact:,} compared bit for bit, {answers.within:,} within a tolerance, "
        f"{answers.differences} differ, {answers.unchecked} of bundles that are gone"
    )
    for difference in report.first:
        out.print(
            f"! prediction {difference.prediction_id}: {difference.what} {difference.name} of {difference.key} was served as "
            f"{difference.served!r}, the log says {difference.recomputed!r}"
        )
    for reason, count in report.skipped.items():
        out.print(f"! {count:,} predictions {reason}")
    out.print(
        f"logged {report.logged:,} · audited {report.audited:,} · {report.values:,} values · {report.differences} differences: "
        + ("no skew" if report.ok else "the audit failed")
    )
