"""The folders are the ones of the design, and the project's files agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.architecture.sources import ROOMS, ROOT, modules

FOLDERS = {"docs", "examples", "headrace", "ops", "schemas", "serving", "streams", "tests", "training"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def versioned() -> list[Path]:
    """The files of the repository, also those that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


FILES = versioned()


def test_the_top_level_folders_are_fixed() -> None:
    found = {file.relative_to(ROOT).parts[0] for file in FILES if len(file.relative_to(ROOT).parts) > 1}
    assert {name for name in found if not name.startswith(".")} <= FOLDERS


def test_a_top_level_folder_is_no_package_but_for_the_core() -> None:
    """A `schemas/__init__.py` would collide with whatever else is called `schemas` in a user's environment."""
    assert [folder.name for folder in sorted(ROOT.iterdir()) if (folder / "__init__.py").exists()] == ["headrace"]


def test_there_is_no_package_under_tests() -> None:
    """A `tests/headrace/__init__.py` would shadow the core."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_typed_package_whose_docstring_says_what_it_is(room: str) -> None:
    assert (ROOMS[room] / "py.typed").exists()
    assert (import_module(room).__doc__ or "").strip()


def test_a_product_folder_holds_one_package() -> None:
    for room, folder in ROOMS.items():
        if room != "headrace":
            packages = [file.parent.name for file in folder.parent.glob("*/__init__.py")]
            assert packages == [room]


def test_every_package_has_an_init_file() -> None:
    """A folder without one is a namespace package, which the wheel and the type checker treat differently."""
    for file in modules().values():
        assert (file.parent / "__init__.py").exists(), file.parent


def test_the_wheel_holds_every_room_and_the_editable_install_finds_them() -> None:
    build = PROJECT["tool"]["hatch"]["build"]
    for folder in ROOMS.values():
        assert str(folder.relative_to(ROOT)) in build["targets"]["wheel"]["only-include"]
        assert str(folder.parent.relative_to(ROOT)) in build["dev-mode-dirs"]


def test_the_checkers_know_every_room() -> None:
    assert set(PROJECT["tool"]["mypy"]["packages"]) == set(ROOMS)
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == set(ROOMS)


def test_every_program_that_is_installed_exists() -> None:
    for program, target in PROJECT["project"]["scripts"].items():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name)), program


def test_the_python_versions_agree() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert "(3, 11) <= sys.version_info < (3, 13)" in (ROOT / "Makefile").read_text()


def test_documented_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        text = (ROOT / name).read_text()
        mentioned = set(re.findall(r"(?:`|^)make (?:--no-print-directory )?([a-z-]+)", text, re.MULTILINE))
        assert mentioned <= targets, f"{name} mentions make {mentioned - targets}"


def test_every_public_make_target_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE) for name in line.split()}
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == explained


# Places of one person's machine or one company's network, which mean nothing to anybody else.
PRIVATE = {
    "a path of one machine": re.compile(r"(?<![\w.*])/(?:home|root|Users|mnt|work|srv)/[\w.]"),
    "a package index of its own": re.compile(r"(?:extra-)?index-url|trusted-host|https?://[^\s'\"]+/simple\b"),
    "a key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"),
}
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".json", ".cfg", ".ini", ".xml", ".avsc", ".txt", ""}


@pytest.mark.parametrize("kind", PRIVATE)
def test_the_repository_names_nothing_private(kind: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for file in FILES
        if file.suffix in TEXT and file != Path(__file__)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if PRIVATE[kind].search(line)
    ]
    assert not found, f"{kind}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("a path of one machine", "see /home/ann/notes"),
        ("a package index of its own", "pip install --extra-index-url x"),
        ("a key", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_the_search_for_private_things_finds_them(kind: str, line: str) -> None:
    assert PRIVATE[kind].search(line)
    assert not PRIVATE[kind].search("kafka = 127.0.0.1:9092 in ./home/x, ~/work")
