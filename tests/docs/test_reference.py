"""The reference page: made from the docstrings, complete, with nothing that its maker could not read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import headrace as hr

ROOT = Path(__file__).parents[2]


def test_the_reference_page_has_every_public_name_with_what_it_takes(tmp_path: Path) -> None:
    recipe = re.search(
        r"^reference:.*\n\t@\$\(BIN\)/python -m pdoc (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert recipe, "make reference runs pdoc"
    options = recipe[1].replace("build/reference", str(tmp_path)).split()
    command = [sys.executable, "-W", "error", "-m", "pdoc", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "headrace.html").read_text()
    missing = [name for name in hr.__all__ if f'id="{name}"' not in page]
    assert missing == []
    view = page[page.index('id="FeatureView"') :]
    assert "how many recent event ids" in view[: view.index('id="FeatureView.', 1)]
