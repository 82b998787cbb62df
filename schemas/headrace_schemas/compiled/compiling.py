"""How the readers are compiled: once, cached on disk, without the interpreter's lock.

Numba's cache looks only at the file of the outermost function, so the stamp of a cached reader is a digest of all files of
this package, and of the core's memory operations: an upgrade or an edit never runs old machine code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from headrace.kernel import memory

F = TypeVar("F", bound=Callable[..., object])


def inner(function: F) -> F:
    """A function that only compiled functions call."""
    return cast("F", numba.njit(nogil=True)(function))


def inlined(function: F) -> F:
    """An `inner` that is written into its callers: half as fast again where it is small and hot, slow to compile elsewhere."""
    return cast("F", numba.njit(nogil=True, inline="always")(function))


def entry(function: F) -> F:
    """A function that Python calls: compiled at its first call, then loaded from the cache."""
    dispatcher: Any = numba.njit(nogil=True, cache=True)(function)
    # An older or newer numba may arrange its cache differently; then its own stamp has to do.
    file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = _digest()
    return cast("F", dispatcher)


@cache
def _digest() -> str:
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(memory.__file__)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
