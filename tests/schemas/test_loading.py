"""Loading projects: from directories and packages, afresh each time, with errors that name the user's line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace as hr
from headrace.errors import ConfigError, DefinitionError
from headrace_schemas.loading import load_project

PAID = """
import headrace as hr
paid = hr.Event("{name}", fields={{"card": hr.string(), "at": hr.timestamp(), "amount": hr.float64()}}, time="at")
"""


@pytest.fixture(autouse=True)
def _path_and_modules_as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("_headrace_project_", "shop", "helpers_of_", "definitions_of_")):
            del sys.modules[name]


def make(root: Path, definitions: str = PAID.format(name="paid"), settings: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "headrace.toml").write_text(settings, encoding="utf-8")
    (root / "features.py").write_text(definitions, encoding="utf-8")
    return root


def test_a_directory_is_loaded_with_its_settings(tmp_path: Path) -> None:
    root = make(tmp_path / "shop", settings='[kafka]\nbootstrap_servers = "k:1"\n')
    loaded = load_project(root, environ={})
    assert isinstance(loaded.project, hr.Project)
    assert loaded.project.name == "shop"
    assert loaded.project.event("paid").topic == "paid"
    assert (loaded.root, loaded.settings.kafka) == (root, "k:1")


def test_the_working_directory_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path / "shop"))
    assert load_project(environ={}).project.name == "shop"


def test_the_settings_file_names_its_project(tmp_path: Path) -> None:
    assert load_project(make(tmp_path / "shop") / "headrace.toml", environ={}).project.name == "shop"


def test_an_edited_file_is_seen(tmp_path: Path) -> None:
    root = make(tmp_path / "shop")
    load_project(root, environ={})
    make(root, PAID.format(name="refunded_later"))
    assert load_project(root, environ={}).project.event("refunded_later").name == "refunded_later"


def test_two_projects_with_the_same_file_names_stay_apart(tmp_path: Path) -> None:
    roots = [make(tmp_path / name, "from .parts import paid\n") for name in ("one", "two")]
    for root in roots:
        (root / "parts.py").write_text(PAID.format(name=f"paid_{root.name}"), encoding="utf-8")
    projects = [load_project(root, environ={}).project for root in roots]
    assert projects[0].event("paid_one").name == "paid_one"
    assert projects[1].event("paid_two").name == "paid_two"


def test_a_plain_import_from_the_directory_works(tmp_path: Path) -> None:
    root = make(tmp_path / "shop", "from helpers_of_shop import paid\n")
    (root / "helpers_of_shop.py").write_text(PAID.format(name="paid"), encoding="utf-8")
    assert load_project(root, environ={}).project.event("paid").name == "paid"


def test_definitions_may_be_a_module(tmp_path: Path) -> None:
    root = make(tmp_path / "shop", settings='[project]\ndefinitions = "definitions_of_shop"\n')
    (root / "definitions_of_shop.py").write_text(PAID.format(name="paid"), encoding="utf-8")
    assert load_project(root, environ={}).project.event("paid").name == "paid"


def test_an_installed_package_is_named_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "shop_package" / "inner")
    (tmp_path / "shop_package" / "__init__.py").touch()
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_project("shop_package.inner", environ={})
    assert loaded.root == root
    assert loaded.project.event("paid") is importlib.import_module("shop_package.inner.features").paid


def test_a_project_in_the_definitions_is_taken_as_it_is(tmp_path: Path) -> None:
    root = make(tmp_path / "shop", PAID.format(name="paid") + 'project = hr.Project("named", events=[paid])\n')
    assert load_project(root, environ={}).project.name == "named"


def test_two_projects_in_the_definitions_are_refused(tmp_path: Path) -> None:
    twice = PAID.format(name="paid") + 'a = hr.Project("a", events=[paid])\nb = hr.Project("b", events=[paid])\n'
    with pytest.raises(ConfigError, match=r"at most one hr\.Project, but there are 2; keep one"):
        load_project(make(tmp_path / "shop", twice), environ={})


def test_a_project_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"project '.*nowhere': it must be a directory .*`headrace init`"):
        load_project(tmp_path / "nowhere", environ={})
    with pytest.raises(ConfigError, match="project 'no_such_package'"):
        load_project("no_such_package", environ={})


def test_a_missing_definitions_file_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "shop", settings='[project]\ndefinitions = "featurse.py"\n')
    with pytest.raises(
        ConfigError, match=r"definitions must be a file .* but there is no .*featurse\.py; write that file"
    ):
        load_project(root, environ={})


@pytest.mark.parametrize(
    ("definitions", "line", "message"),
    [
        ("import headrace\nx = (\n", 2, "SyntaxError"),
        (
            "import headrace\n\nimport no_such_module_at_all\n",
            3,
            "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        ),
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError"),
    ],
)
def test_definitions_that_do_not_run_name_their_line(tmp_path: Path, definitions: str, line: int, message: str) -> None:
    root = make(tmp_path / "shop", definitions)
    with pytest.raises(ConfigError) as caught:
        load_project(root, environ={})
    assert f"{root / 'features.py'}:{line}" in str(caught.value)
    assert message in str(caught.value)


def test_a_definition_error_comes_through_as_it_is(tmp_path: Path) -> None:
    wrong = 'import headrace as hr\npaid = hr.Event("paid", fields={"card": hr.string()}, time="at")\n'
    with pytest.raises(DefinitionError, match=r"features\.py:2"):
        load_project(make(tmp_path / "shop", wrong), environ={})
