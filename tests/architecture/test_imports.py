"""Imports run one way, and what is not needed is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

ENGINES = [
    "bytewax", "confluent_kafka", "redis", "fastapi", "starlette", "uvicorn", "pydantic", "onnx", "onnxruntime", "polars",
    "pyarrow", "deltalake", "fastavro", "sklearn", "scipy", "skl2onnx", "pandas", "matplotlib", "httpx",
]  # fmt: skip
COMPILER = ["numba", "llvmlite"]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that are loaded once the statement has run in a fresh interpreter."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_import_contracts_are_kept(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--cache-dir", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("module", [*ENGINES, *COMPILER])
def test_the_probe_sees_a_module_that_is_loaded(module: str) -> None:
    """Without this, a misspelt name would make the tests below pass for ever."""
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_importing_the_core_loads_neither_an_engine_nor_the_compiler() -> None:
    assert loaded_by("import headrace") & {*ENGINES, *COMPILER, "click", "rich", "asyncio"} == set()


def test_importing_a_project_loads_neither_an_engine_nor_the_compiler() -> None:
    statement = "from headrace_schemas.loading import load_project"
    assert loaded_by(statement) & {*ENGINES, *COMPILER, "click", "rich"} == set()


def test_the_command_lines_help_loads_no_engine() -> None:
    statement = "from headrace_ops.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint()"
    assert loaded_by(statement) & {*ENGINES, *COMPILER} == set()


@pytest.mark.parametrize("room", ["headrace_streams", "headrace_training", "headrace_serving", "headrace_ops"])
def test_importing_a_rooms_name_loads_no_engine(room: str) -> None:
    """The engines load with the module that needs them, so that a missing extra is told by that part."""
    assert loaded_by(f"import {room}") & set(ENGINES) == set()
