"""Every code block of the README and of docs/ is executed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT, Shell, blocks

LANGUAGES = {"python", "bash", "text"}
GUIDE = ROOT / "docs" / "guide"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    home = tmp_path / "home"
    home.mkdir()
    session = Shell(home, tmp_path / "notes")
    yield session
    session.close()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {}
    for block in blocks(document):
        assert block.language in LANGUAGES, f"{document}:{block.line}: a block is one of {LANGUAGES}"
        if block.language == "python" and not block.tag:
            code = compile("\n" * block.line + block.text, str(document), "exec")
            exec(code, namespace)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_view_works_as_written(shell: Shell) -> None:
    printed = ""
    for block in blocks(GUIDE / "first-view.md"):
        if block.language == "python":
            (shell.cwd / block.tag).write_text(block.text, encoding="utf-8")
        elif block.tag == "background":
            shell.start(block.text, until=".headrace/dev/env")
        elif block.language == "bash":
            printed = shell.run(block.text)
    assert re.search(r"orders_10m\s+2\b", printed), printed
    assert re.search(r"amount_1h\s+100\b", printed), printed
    assert re.search(r"dear_share\s+0\.5\b", printed), printed
    later = shell.run("headrace features customer_orders customer=ada --at 2026-01-05T10:15:00Z --json")
    assert json.loads(later)["features"]["orders_10m"] == 0
    shell.run("headrace produce orders orders.ndjson --wait 30")
    again = shell.run("headrace features customer_orders customer=ada --at 2026-01-05T10:05:00Z --json")
    assert json.loads(again)["features"] == {"orders_10m": 2, "orders_1h": 2, "amount_1h": 100, "dear_share": 0.5}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_readme_works_as_written_and_the_values_change(shell: Shell) -> None:
    # The year's last twenty days start quicker than the whole year, and are the same at its end.
    shell.start("headrace dev --days 20", until=".headrace/dev/env", patience_s=240)
    steps = [block for block in blocks(ROOT / "README.md") if block.tag == "dev"]
    first = next(index for index, block in enumerate(steps) if block.language == "python")
    before = [shell.run(block.text) for block in steps[:first]]
    shell.python(steps[first].text)
    shell.run("sleep 12")  # the log writer commits within a few seconds
    asked_again = [shell.run(block.text) for block in steps[1:first]]
    shell.run("sleep 12")
    after = [shell.run(block.text) for block in steps[first + 1 :]]
    assert _features(before[1])["departures_30m"] == 0
    assert _features(before[1])["delay_30m"] is None
    assert _features(asked_again[0])["departures_30m"] == 3
    assert _features(asked_again[0])["delay_30m"] == 96
    assert _prediction(asked_again[1]) != _prediction(before[2])
    assert re.search(r"departures_30m\s+3\b", after[0]), after[0]
    assert "no skew" in after[-1]
    for block in blocks(GUIDE / "bad-input.md"):
        if block.tag == "dev":
            shell.run(block.text)


def _features(answer: str) -> dict[str, float | None]:
    values: dict[str, float | None] = json.loads(answer)["entities"][0]["features"]
    return values


def _prediction(answer: str) -> float:
    return float(json.loads(answer)["predictions"][0]["prediction"])
