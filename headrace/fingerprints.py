"""Fingerprints: short digests of canonical JSON, equal exactly where the meaning is equal.

What enters is decided by each definition's ``canonical()``; how it is written down and hashed is decided here. Functions
enter as their syntax tree without comments, formatting, docstring, annotations and decorators, followed by the constants
and the functions of the same project that they use. What may not live here: knowledge of any one definition.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import inspect
import json
import linecache
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from headrace.errors import DefinitionError

_CONSTANTS = (int, float, str, bytes, bool, type(None), tuple, list, dict, set, frozenset)
# The core counts as a library: a transform that calls hr.exp does not change its meaning with our source.
_LIBRARY_PATHS = tuple(
    {str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Parts of a syntax tree that are not its meaning.
_IGNORED = frozenset(
    ("ctx", "type_comment", "type_params", "kind", "annotation", "returns", "decorator_list", "simple")
)


_telling: ContextVar[tuple[object, ...]] = ContextVar("definitions that are being told", default=())


def canonical_json(value: object) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1, "a": [1.0, None]})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """Sixteen hex characters over the canonical JSON of a value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def canonical_function(function: Callable[..., object]) -> object:
    """The meaning of a function as JSON-able data.

    Args:
        function: a function or lambda whose source can be read, a class, or a callable of a library. Of a library's
            callable only the name enters.

    Raises:
        DefinitionError: the source cannot be read.
    """
    return _canonical_callable(function, _Scope(_home(function), ()))


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whose functions are told by their source, and which have been on the way here."""

    home: str
    seen: tuple[object, ...]


def _canonical_callable(function: Callable[..., object], scope: _Scope) -> object:
    if any(function is other for other in scope.seen):
        return {"recursion": getattr(function, "__qualname__", "")}
    if isinstance(function, functools.partial):
        bound = [_canonical_value(function.args), _canonical_value(function.keywords)]
        return {"partial": _canonical_callable(function.func, scope), "bound": bound}
    if not isinstance(function, types.FunctionType):
        if _is_project_class(function, scope.home):
            return {"class": function.__qualname__, "tree": _canonical_tree(_class_tree(function))}
        return {"library": _qualified_name(function)}
    if _is_library_file(function.__code__.co_filename, scope.home):
        return {"library": _qualified_name(function)}
    scope = _Scope(scope.home, (*scope.seen, function))
    tree = function_tree(function)
    uses = {name: _canonical_use(value, scope) for name, value in sorted(used_names(function).items())}
    return {
        "arguments": _canonical_tree(tree.args),
        "body": _canonical_tree(_body(tree)),
        "uses": {name: use for name, use in uses.items() if use is not None},
    }


def used_names(function: types.FunctionType) -> dict[str, object]:
    """The values of the global and closure names that a function uses, builtins left out."""
    found = inspect.getclosurevars(function)
    names: dict[str, object] = {**found.globals, **found.nonlocals}
    for code in _inner_code(function.__code__):
        names.update({name: function.__globals__[name] for name in code.co_names if name in function.__globals__})
    home = _home(function)
    for name, value in list(names.items()):
        if isinstance(value, types.ModuleType) and not _is_library_file(getattr(value, "__file__", None), home):
            # helpers.scale(x): what the project's own module holds is part of the meaning, not only its name.
            used = {attribute for code in _all_code(function.__code__) for attribute in code.co_names}
            names.update({f"{name}.{a}": getattr(value, a) for a in used if a in vars(value)})
    return {name: value for name, value in names.items() if value is not getattr(builtins, name, builtins)}


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    yield from _inner_code(code)


def _inner_code(code: types.CodeType) -> Iterator[types.CodeType]:
    # getclosurevars does not look into comprehensions, lambdas and inner functions.
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _inner_code(constant)


def _canonical_use(value: object, scope: _Scope) -> object:
    if isinstance(value, _CONSTANTS):
        return {"value": _canonical_value(value)}
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    if callable(canonical := getattr(value, "canonical", None)) and not isinstance(value, type):
        return {"definition": _canonical_definition(value, canonical)}
    if callable(value):
        return _canonical_callable(value, scope)
    return {"type": _qualified_name(type(value)), "repr": _stable_repr(value)}


def _canonical_definition(value: object, canonical: Callable[[], object]) -> object:
    # An estimator may ask its own model for its inputs: a definition inside itself is told by its name.
    if any(value is other for other in _telling.get()):
        return {"recursion": getattr(value, "name", "")}
    token = _telling.set((*_telling.get(), value))
    try:
        return canonical()
    finally:
        _telling.reset(token)


def _canonical_value(value: object) -> object:
    if isinstance(value, dict):
        return [[_canonical_value(key), _canonical_value(item)] for key, item in value.items()]
    if isinstance(value, (tuple, list)):
        return [_canonical_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(item) for item in value)
    return repr(value)


def _stable_repr(value: object) -> str:
    text = repr(value)
    # The default repr holds an address, which changes from run to run; the type must do then.
    return "" if " at 0x" in text else text


def _qualified_name(value: object) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or ''}.{name}"


def _home(function: Callable[..., object]) -> str:
    """The folder of the project that a function belongs to."""
    code = getattr(function, "__code__", None)
    return str(Path(code.co_filename).parent) if isinstance(code, types.CodeType) else ""


def _is_library_file(filename: str | None, home: str) -> bool:
    if filename is None or filename.startswith("<frozen"):
        return True
    # A project may itself be installed among the libraries; what lies in its own folder is its source there too.
    installed = home.startswith(_LIBRARY_PATHS) and home not in _LIBRARY_PATHS
    return filename.startswith(_LIBRARY_PATHS) and not (installed and Path(filename).is_relative_to(home))


def _is_project_class(value: object, home: str) -> TypeGuard[type]:
    return isinstance(value, type) and not _is_library_file(_class_file(value), home)


def _class_file(value: type) -> str | None:
    # A project's module need not be in sys.modules; its methods know their file.
    methods = (member.__code__ for member in vars(value).values() if isinstance(member, types.FunctionType))
    written = next((code.co_filename for code in methods if code.co_filename != "<string>"), None)
    return written or getattr(sys.modules.get(value.__module__), "__file__", None)


def function_tree(function: types.FunctionType) -> ast.FunctionDef | ast.Lambda:
    """The syntax tree of one function or lambda, found in its file by line and, for lambdas, column.

    Raises:
        DefinitionError: the file cannot be read, or has changed since it was imported.
    """
    code = function.__code__
    tree = _file_tree(code.co_filename, function.__globals__)
    nodes = [node for node in ast.walk(tree) if _is_defined_at(node, code)]
    if not nodes:
        raise DefinitionError(
            required=f"the source of function {function.__qualname__!r} can be read, because its fingerprint is made of it",
            got=f"{code.co_filename}:{code.co_firstlineno} does not hold it",
            remedy="define the function in a file (not in a prompt or through exec), and restart after editing it",
        )
    node = nodes[0]
    assert isinstance(node, ast.FunctionDef | ast.Lambda)
    return node


def _is_defined_at(node: ast.AST, code: types.CodeType) -> bool:
    if isinstance(node, ast.FunctionDef):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return node.name == code.co_name and first == code.co_firstlineno
    if isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno:
        # Several lambdas may share a line; the instructions of each lie inside its own body.
        columns = [start for line, _, start, _ in code.co_positions() if line == node.body.lineno and start is not None]
        end = node.body.end_col_offset or 0
        inside = node.body.end_lineno != node.body.lineno or all(column < end for column in columns if column)
        return inside and all(column >= node.body.col_offset for column in columns if column)
    return False


def _class_tree(value: type) -> ast.AST:
    nodes = ast.walk(_file_tree(_class_file(value) or "", {}))
    found = (node for node in nodes if isinstance(node, ast.ClassDef) and node.name == value.__name__)
    return next(found, ast.Constant(value=value.__qualname__))


def _file_tree(filename: str, names: dict[str, object]) -> ast.Module:
    """The syntax tree of a file, empty if it cannot be read."""
    try:
        return ast.parse("".join(linecache.getlines(filename, names)))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _body(node: ast.AST) -> object:
    """What is done, without the docstring."""
    body: object = getattr(node, "body", None)
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        return node.body[1:]
    return body


def _canonical_tree(node: object) -> object:
    """Nested lists of node names and fields; unlike ``ast.dump`` the same in every Python version."""
    if isinstance(node, ast.AST):
        fields = [
            [name, _canonical_tree(_body(node) if name == "body" else value)]
            for name, value in ast.iter_fields(node)
            if name not in _IGNORED and value is not None and value != []
        ]
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_canonical_tree(item) for item in node]
    return repr(node)
