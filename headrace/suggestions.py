"""The one place where "did you mean …?" is built."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 12


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like the given one, if any does.

    >>> closest("orgin", ["origin", "dest"])
    'origin'
    >>> closest("weather", ["origin", "dest"]) is None
    True
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that helps someone who wrote a name that does not exist.

    >>> did_you_mean("orgin", ["origin", "dest"])
    "did you mean 'origin'? known: origin, dest"
    >>> did_you_mean("weather", [])
    'none is declared'
    """
    names = list(known)
    if not names:
        return "none is declared"
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    match = closest(name, names)
    return f"did you mean {match!r}? known: {shown}" if match else f"known: {shown}"
