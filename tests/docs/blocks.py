"""The fenced code blocks of a document, and a shell that runs them one after the other.

```python              executed, all of a file in one namespace
```python features.py  written to that file
```bash                run, where the block before left off (directory, variables)
```bash background     started, and stopped at the end
```bash dev            run beside a running `headrace dev`
```text                not code
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if path.is_file())
_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    tag: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


class Shell:
    """A shell session in a directory; blocks see what earlier ones left."""

    def __init__(self, directory: Path, notes: Path) -> None:
        self._directory, self._notes = directory, notes
        notes.mkdir(parents=True, exist_ok=True)
        (notes / "cwd").write_text(str(directory), encoding="utf-8")
        (notes / "exports").write_text("", encoding="utf-8")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self.environ = {**kept, "PATH": path}
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def cwd(self) -> Path:
        return Path((self._notes / "cwd").read_text(encoding="utf-8").strip())

    def run(self, text: str, *, timeout_s: float = 90) -> str:
        """Run a block; its standard output. A failing block fails the test with what it printed."""
        script = f'. "{self._notes}/exports"\n{text}\npwd > "{self._notes}/cwd"\nexport -p > "{self._notes}/exports"\n'
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=self.cwd,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode} of\n{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, text: str) -> None:
        """Run a Python program in this session."""
        file = self._notes / "block.py"
        file.write_text(text, encoding="utf-8")
        self.run(f'python "{file}"')

    def start(self, text: str, *, until: str, patience_s: float = 150) -> None:
        """Start a command in the background and wait until a file is there."""
        log = (self._notes / "background.log").open("wb")
        child = subprocess.Popen(
            ["bash", "-c", f"exec {text.strip()}"], cwd=self.cwd, env=self.environ, stdout=log, stderr=log
        )
        log.close()
        self._children.append(child)
        deadline = time.monotonic() + patience_s
        while not (self.cwd / until).exists():
            said = (self._notes / "background.log").read_text(encoding="utf-8")
            assert child.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def close(self) -> None:
        """Ctrl-C for what runs in the background; it must end well."""
        for child in self._children:
            child.send_signal(signal.SIGINT)
        codes = [child.wait(30) for child in self._children]
        assert codes == [0] * len(codes), (self._notes / "background.log").read_text(encoding="utf-8")
