"""Loading a project: its settings and its definitions, from a directory or from an importable package.

The definitions of a directory are executed afresh at every call, under a package name of their own: two projects with a
``features.py`` each live side by side in one process, an edited file is seen, and ``from .helpers import x`` works.
The directory is also appended to ``sys.path``, so that ``import helpers`` works as it does for a script; it comes last and
shadows nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import headrace as hr
from headrace.errors import ConfigError, HeadraceError
from headrace_schemas.settings import FILE_NAME, Settings, load_settings


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project that is ready to run: what it declares, where it runs, where it lies."""

    project: hr.Project
    settings: Settings
    root: Path


def load_project(spec: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> LoadedProject:
    """Load the project that `spec` names.

    Args:
        spec: a directory that holds a ``headrace.toml``, or the dotted name of an installed package that holds one;
            by default the working directory.
        environ: the environment; its ``HEADRACE_…`` variables override the file.

    Raises:
        ConfigError: there is no such project, its settings are wrong, or its definitions cannot be executed.
        DefinitionError: a definition breaks a rule.
    """
    root, package = _locate(spec)
    settings = load_settings(root, environ)
    module = _definitions(root, package, settings)
    found = [value for value in vars(module).values() if isinstance(value, hr.Project)]
    if len(found) > 1:
        raise ConfigError(
            f"{module.__file__}: a project's definitions hold at most one hr.Project, but there are {len(found)}; "
            f"keep one, or none to collect every definition of the module"
        )
    project = found[0] if found else hr.Project.from_namespace(settings.name, vars(module))
    return LoadedProject(project=project, settings=settings, root=root)


def _locate(spec: str | Path | None) -> tuple[Path, str | None]:
    """The project's directory, and the package that it is, if it was named as one."""
    path = Path.cwd() if spec is None else Path(spec)
    if path.is_file() and path.name == FILE_NAME:
        path = path.parent
    if path.is_dir():
        return path.absolute(), None
    name = str(spec)
    if all(part.isidentifier() for part in name.split(".")):
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is not None and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations))).absolute(), name
    raise ConfigError(
        f"project {name!r}: it must be a directory that holds a {FILE_NAME} or an installed package that does, "
        f"but there is neither; check the path, or make a project with `headrace init`"
    )


def _definitions(root: Path, package: str | None, settings: Settings) -> ModuleType:
    if str(root) not in sys.path:
        sys.path.append(str(root))
    target = settings.definitions
    try:
        if not target.endswith(".py"):
            return importlib.import_module(target)
        file = (root / target).resolve()
        if not file.is_file():
            raise ConfigError(
                f"{root / FILE_NAME}: [project] definitions must be a file of the project or a module, "
                f"but there is no {file}; write that file, or correct the name"
            )
        if package is not None and file.parent == root.resolve():
            return importlib.import_module(f"{package}.{file.stem}")
        return _execute(file)
    except HeadraceError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{_blame(error, root, target)}: the definitions must load, but {type(error).__name__}: {error}; mend that line"
        ) from error


def _execute(file: Path) -> ModuleType:
    """Execute a file as a module of a package whose directory is the file's; what it imports relatively is fresh as well."""
    importlib.invalidate_caches()
    linecache.checkcache()  # fingerprints read sources through it; an edited file must not be seen as it was
    package = f"_headrace_project_{hashlib.sha256(str(file.parent).encode()).hexdigest()[:12]}"
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        del sys.modules[name]
    initial = file.parent / "__init__.py"
    spec = importlib.util.spec_from_file_location(package, initial) if initial.is_file() else None
    spec = spec or ModuleSpec(package, loader=None, is_package=True)
    spec.submodule_search_locations = [str(file.parent)]
    parent = importlib.util.module_from_spec(spec)
    sys.modules[package] = parent
    if spec.loader is not None:
        spec.loader.exec_module(parent)
    return importlib.import_module(f"{package}.{file.stem}")


def _blame(error: Exception, root: Path, target: str) -> str:
    """The line of the project that raised: the innermost frame inside its directory."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(root))]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(root / target)
