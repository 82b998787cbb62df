"""The sources as data: which module imports what, found by parsing, without importing anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROOMS = {
    "headrace": ROOT / "headrace",
    "headrace_schemas": ROOT / "schemas" / "headrace_schemas",
    "headrace_streams": ROOT / "streams" / "headrace_streams",
    "headrace_training": ROOT / "training" / "headrace_training",
    "headrace_serving": ROOT / "serving" / "headrace_serving",
    "headrace_ops": ROOT / "ops" / "headrace_ops",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and the line that imports it."""

    module: str
    line: int
    lazy: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of the product: dotted name → file."""
    found = {}
    for name, folder in ROOMS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join([name, *parts]).removesuffix(".__init__")] = file
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports, at its top or (lazily) inside functions; what only a type checker sees is left out."""
    tree = ast.parse(modules()[module].read_text())
    return tuple(sorted(set(_imports(tree.body, lazy=False)), key=lambda found: (found.line, found.module)))


def loads(room: str, module: str) -> list[Import]:
    """What a module imports when a room uses it.

    In its own modules the room answers for every import. In those of the rooms below, an import inside a function is
    left out: it serves the callers of that function (a reader's codec beside a writer's), who have to answer for it.
    """
    own = module == room or module.startswith(f"{room}.")
    return [found for found in imports(module) if own or not found.lazy]


def reachable(room: str) -> dict[str, tuple[str, ...]]:
    """Every module of the product that is imported when all of a room is → the way there."""
    ways = {name: (name,) for name in modules() if name == room or name.startswith(f"{room}.")}
    todo = list(ways)
    while todo:
        module = todo.pop()
        for found in loads(room, module):
            for name in _with_packages(found.module):
                if name in modules() and name not in ways:
                    ways[name] = (*ways[module], name)
                    todo.append(name)
    return ways


def third_party(room: str, module: str) -> list[Import]:
    """What of it is neither the product's own nor the standard library's."""
    known = sys.stdlib_module_names | set(ROOMS)
    return [found for found in loads(room, module) if found.module.partition(".")[0] not in known]


def _with_packages(module: str) -> Iterator[str]:
    """A module and the packages that are imported before it."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _imports(body: list[ast.stmt], *, lazy: bool) -> Iterator[Import]:
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _imports(statement.orelse, lazy=lazy)
        elif isinstance(statement, ast.Import):
            yield from (Import(alias.name, statement.lineno, lazy) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "relative imports are banned by ruff"
            assert statement.module is not None
            yield Import(statement.module, statement.lineno, lazy)
            for alias in statement.names:  # `from package import module`
                if f"{statement.module}.{alias.name}" in modules():
                    yield Import(f"{statement.module}.{alias.name}", statement.lineno, lazy)
        else:
            inside = lazy or isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(statement, field, []), lazy=inside)
            for block in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                yield from _imports(block.body, lazy=inside)
