"""The runbook knows everything that the pipelines can say: each line of the journal, each exit code, each refusal with its test.

Whoever adds one adds its row to docs/runbook.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from headrace import errors
from headrace_streams import errors as streams_errors
from tests.docs.blocks import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
PIPELINES = sorted((ROOT / "streams" / "headrace_streams").glob("*.py"))
RAISING = [*PIPELINES, ROOT / "schemas" / "headrace_schemas" / "stores" / "log.py"]
ERRORS = {
    name
    for module in (errors, streams_errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, errors.HeadraceError)
}


def section(title: str) -> str:
    text = RUNBOOK.read_text(encoding="utf-8")
    return re.split(r"^## ", text.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[1:]]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module, with the function that it stands in."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    yield function.name, node


def test_every_line_of_the_journal_is_explained() -> None:
    said = {
        str(call.args[0].value)
        for path in PIPELINES
        for _, call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "note"
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert len(said) > 15
    explained = {row[0].strip("`") for row in rows("What the journal says")}
    assert said - explained == set(), "docs/runbook.md, 'What the journal says', lacks a row for these"
    assert explained - said == set(), "docs/runbook.md explains what nobody says any more"


def test_every_exit_code_is_explained() -> None:
    codes = {str(value) for name, value in vars(streams_errors).items() if name.isupper() and isinstance(value, int)}
    assert {row[0] for row in rows("What ended, and with which exit code")} == codes


def test_every_refusal_is_explained_and_has_a_test_that_provokes_it() -> None:
    raised = {
        f"{path.stem}.{function}"
        for path in RAISING
        for function, call in calls(path)
        if isinstance(call.func, ast.Name) and call.func.id in ERRORS
    }
    assert len(raised) > 25
    table = rows("Refusals")
    explained = {place for row in table for place in re.findall(r"`([\w.]+)`", row[2])}
    assert raised - explained == set(), (
        "docs/runbook.md, 'Refusals', lacks these; add a row, and a test that provokes it"
    )
    assert explained - raised == set(), "docs/runbook.md names places that raise nothing any more"
    for row in table:
        path, _, name = row[3].strip("`").partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), row[3]
