"""Where the peers of serving and training run: an environment of its own for each.

Everything lies under ``.cache/peers`` and is made once. What cannot be installed is a visible skip with its reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[3] / ".cache" / "peers"


class Missing(Exception):  # noqa: N818  (it is an answer, not a mistake)
    """The contender cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment.

    Args:
        name: of its folder.
        requirements: what is installed into it.
        shows: the package whose version is told.
    """

    name: str
    requirements: tuple[str, ...]
    shows: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return CACHE / self.name / "bin" / "python"

    def make(self) -> str:
        """Install it if it is not there; the version of what it is for.

        Raises:
            Missing: it cannot be installed.
        """
        stamp = CACHE / self.name / ".complete"
        wanted = "\n".join(self.requirements)
        if not stamp.exists() or stamp.read_text() != wanted:
            CACHE.mkdir(parents=True, exist_ok=True)
            _run([sys.executable, "-m", "venv", "--clear", str(CACHE / self.name)])
            uv = Path(sys.executable).with_name("uv")
            installer = (
                [str(uv), "pip", "install", "--python", str(self.python)]
                if uv.exists()
                else [str(self.python), "-m", "pip", "install"]
            )
            _run([*installer, "--quiet", *self.requirements])
            stamp.write_text(wanted)
        asked = f"import importlib.metadata as m; print(m.version({self.shows!r}))"
        return f"{self.shows} {_run([str(self.python), '-c', asked]).strip()}"

    def command(self, script: Path, *arguments: str) -> list[str]:
        """Run a script in it."""
        return [str(self.python), str(script), *arguments]


def pinning() -> list[str]:
    """What starts a command on the first core, with all its children; nothing where there is no `taskset`."""
    found = shutil.which("taskset")
    return [found, "-c", str(min(os.sched_getaffinity(0)))] if found and hasattr(os, "sched_getaffinity") else []


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise Missing(f"`{Path(command[0]).name} … {command[-1][-60:]}` failed: {last[0][:200]}")
    return done.stdout
