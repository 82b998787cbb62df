"""``headrace doctor``: what is missing or misconfigured, and how to mend it."""

from __future__ import annotations

import sys

import click

from headrace_ops.cli.group import EXIT_NO, EXIT_SERVICE
from headrace_ops.cli.options import example, json_option, project_option
from headrace_ops.cli.output import console, show


@click.command("doctor", epilog=example("headrace doctor -p examples/flights"))
@project_option
@json_option
def command(project: str | None) -> None:
    """Look at the interpreter, the installed extras, the project, its directories, its broker and its store.

    Exit code 0 if everything is well, 3 if a service is missing, 1 if anything else is.
    """
    from headrace_ops.doctor import Verdict, examine

    findings = examine(project)

    def people() -> None:
        marks = {Verdict.WELL: "[green]✓[/]", Verdict.NOTE: "[yellow]·[/]", Verdict.ILL: "[red]✗[/]"}
        out = console()
        from rich.markup import escape

        for finding in findings:
            out.print(f"{marks[finding.verdict]} {escape(finding.what)}: {escape(finding.found)}")
            if finding.remedy:
                out.print(f"    → {escape(finding.remedy)}")

    ill = [finding for finding in findings if finding.verdict is Verdict.ILL]
    show({"well": not ill, "findings": [finding.to_json() for finding in findings]}, people)
    sys.exit((EXIT_SERVICE if any(finding.service for finding in ill) else EXIT_NO) if ill else 0)
