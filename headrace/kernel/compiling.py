"""How the kernel is compiled: once, generically, cached on disk, without the interpreter's lock and without fast-math.

Two things that numba does not do by itself:

- It would optimise every function together with everything below it, again at each level of calls: minutes for this kernel.
  Here only entries are optimised, each once with all that is linked into it.
- Its cache looks only at the file of the outermost function. Here the stamp of a cached entry is a digest of all modules that
  are compiled into it, so that an upgrade or an edit never runs old machine code.

Both reach into numba and fall back to its own ways where it is arranged differently. What may not live here: the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import numba
from numba import types
from numba.core import config as numba_config

F = TypeVar("F", bound=Callable[..., object])

config: Any = numba_config  # its settings are made from the environment, where no type checker sees them

_PATIENCE_S = 300.0  # a cold machine compiles the whole kernel in less
_LOOK_S = 0.01
_CORE = Path(__file__).parent.parent
_IMPORTED = re.compile(r"^from headrace\.([\w.]+) import", re.MULTILINE)


def inner(function: F) -> F:
    """A function that only compiled functions call; it is linked into them, and inlined where LLVM finds that it pays."""
    return cast("F", _linked(function, attribute=None))


def outlined(function: F) -> F:
    """As `inner`, but never inlined: large functions that are called from several places, or seldom."""
    return cast("F", _linked(function, attribute="noinline"))


def entry(function: F) -> F:
    """A function that Python calls: compiled at its first call, then loaded from the cache."""
    dispatcher = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    # An older or newer numba may arrange its cache differently; then its own stamp has to do.
    file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = _digest(function.__module__.removeprefix("headrace."))
    return cast("F", dispatcher)


@contextmanager
def compiling_alone(what: str) -> Iterator[None]:
    """Let one process of this user compile a thing at a time: those that wait then load what the first one has cached.

    Args:
        what: names the thing; different ones are compiled side by side.

    Pipelines are started together; without this each would spend the same minutes on the same code. It is a courtesy, not a
    need: nobody waits for a process that is stopped, nor for more than `_PATIENCE_S`; where there are no file locks, or no place
    for one, all compile.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            path = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-{what}.lock"
            _wait_for_turn(held.enter_context(path.open("a+")))
        yield


def _wait_for_turn(file: TextIO) -> None:
    import fcntl

    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return
        if time.monotonic() > deadline or _is_stopped(file):
            return
        time.sleep(_LOOK_S)


def _is_stopped(file: TextIO) -> bool:
    """Whether the process that holds the lock is stopped (by a signal or a debugger), as far as this system tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        file.seek(0)
        told = Path(f"/proc/{int(file.read())}/stat").read_text()
        return told.rpartition(")")[2].split()[0] in "Tt"
    return False


def _linked(function: Callable[..., object], attribute: str | None) -> Any:
    # numba's declared types lack the two options.
    njit = cast("Any", numba.njit)
    dispatcher = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    compile_normally, find_template = dispatcher.compile, dispatcher.get_call_template

    def compile_for_linking(signature: object) -> object:
        known = set(dispatcher.overloads)
        with _linkable():
            result = compile_normally(signature)
        if attribute is not None:
            for arguments in set(dispatcher.overloads) - known:
                _add_attribute(dispatcher.overloads[arguments], attribute)
        return result

    def template_of_plain_types(arguments: tuple[Any, ...], keywords: object) -> object:
        # Otherwise there would be one more copy of a function for each literal that is passed to it.
        return find_template(tuple(types.unliteral(argument) for argument in arguments), keywords)

    dispatcher.compile, dispatcher.get_call_template = compile_for_linking, template_of_plain_types
    return dispatcher


@contextmanager
def _linkable() -> Iterator[None]:
    """While this lasts, what numba compiles is neither optimised nor turned into machine code, only kept for linking.

    Machine code would not only be wasted: numba's JIT engine binds equal names to the first definition that it was given, so the
    entries of the process that compiles would call these unoptimised functions instead of their own optimised copies.
    Functions that call each other enter this again; each level puts back what it found.
    """
    from numba.core.registry import cpu_target

    codegen: Any = cpu_target.target_context.codegen()
    saved = config.OPT, codegen._engine, codegen._add_module
    config.OPT, codegen._engine, codegen._add_module = 0, _NoEngine(), _forget
    try:
        yield
    finally:
        config.OPT, codegen._engine, codegen._add_module = saved


def _forget(_: object) -> None:
    """The module is linked into others, never added to the engine."""


class _NoEngine:
    """Stands in for numba's JIT engine: accepts everything and produces nothing."""

    def __init__(self) -> None:
        self._environment = ctypes.c_void_p()

    def is_symbol_defined(self, _: str) -> bool:
        return False

    def finalize_object(self) -> None:
        """Nothing to turn into machine code."""

    def get_global_value_address(self, _: str) -> int:
        # Where numba wants to write a pointer that only machine code of this module would read.
        return ctypes.addressof(self._environment)


def _add_attribute(compiled: Any, attribute: str) -> None:
    module = getattr(compiled.library, "_final_module", None)
    if module is not None:
        module.get_function(compiled.fndesc.llvm_func_name).add_function_attribute(attribute)


@cache
def _digest(module: str) -> str:
    """Over a module and all modules of the core that it imports, directly or not."""
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _CORE / (name.replace(".", "/") + ".py")
        if name not in found and path.exists():
            found[name] = path.read_bytes()
            waiting += _IMPORTED.findall(found[name].decode())
    return hashlib.sha256(b"\0".join(found[name] for name in sorted(found))).hexdigest()
