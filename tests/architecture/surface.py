"""The public surface: every name that a user may import from the core, with its signature.

`python -m tests.architecture.surface` (`make surface`) writes `public_surface.txt` anew.
"""

from __future__ import annotations

import enum
import inspect
from pathlib import Path

_INHERITED = (Exception.__init__, enum.Enum.__init__, object.__init__)
FILE = Path(__file__).with_name("public_surface.txt")


def surface() -> str:
    """The names of `headrace.__all__`, one line each; a class with its public methods and fields."""
    import headrace

    lines: list[str] = []
    for name in sorted(headrace.__all__):
        value = getattr(headrace, name)
        lines.append(f"{_kind(value)} {name}{_signature(value)}")
        if inspect.isclass(value):
            lines += [f"    {line}" for line in _members(value)]
    return "\n".join(lines) + "\n"


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "error" if issubclass(value, Exception) else "class"
    if inspect.ismodule(value):
        return "module"
    return "function" if callable(value) else "value"


def _signature(value: object) -> str:
    if not callable(value):
        return f": {type(value).__name__}"
    if inspect.isclass(value) and value.__init__ in _INHERITED:
        return "(…)"  # how it prints differs between versions of Python
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "(…)"
    # Names, kinds and whether there is a default are the contract; how a version of Python prints a type is not.
    texts = [
        str(parameter.replace(annotation=inspect.Parameter.empty, default=_default(parameter)))
        for parameter in parameters
    ]
    marks = _with_marks(list(parameters), texts)
    return f"({', '.join(marks)})"


def _default(parameter: inspect.Parameter) -> object:
    return parameter.empty if parameter.default is parameter.empty else _Ellipsis()


class _Ellipsis:
    def __repr__(self) -> str:
        return "…"


def _with_marks(parameters: list[inspect.Parameter], texts: list[str]) -> list[str]:
    marked: list[str] = []
    starred = False
    for parameter, text in zip(parameters, texts, strict=True):
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            marked.append("*")
            starred = True
        marked.append(text)
    return marked


def _members(value: type) -> list[str]:
    found = [f"member {member.name} = {member.value!r}" for member in value] if issubclass(value, enum.Enum) else []
    for name, member in sorted(vars(value).items()):
        if name.startswith("_"):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            found.append(f"{type(member).__name__} {name}{_signature(member.__func__)}")
        elif isinstance(member, property):
            found.append(f"property {name}")
        elif inspect.isfunction(member):
            found.append(f"method {name}{_signature(member)}")
    return found


if __name__ == "__main__":
    FILE.write_text(surface())
    print(f"wrote {FILE}")
