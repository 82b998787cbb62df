"""The aggregations, one module each, found by discovery: a new module with an `Algebra` is enrolled by existing.

The kernel keeps their accumulators, `oracle.py` runs their naive definitions, and `laws.py` holds one against the other.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType, ModuleType

from headrace.aggregations.algebra import Accumulator, Algebra, Finalizer, Observation, Reading

__all__ = ["Accumulator", "Algebra", "Finalizer", "Observation", "Reading", "algebras"]


@cache
def algebras() -> Mapping[str, type[Algebra]]:
    """All aggregations by name.

    >>> sorted(algebras())
    ['count', 'first', 'last', 'max', 'mean', 'min', 'std', 'sum', 'time_since_last', 'var']
    """
    return MappingProxyType({algebra.name: algebra for algebra in _discover()})


def _discover() -> Iterator[type[Algebra]]:
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Algebra) and _is_defined_in(module, value):
                yield value


def _is_defined_in(module: ModuleType, algebra: type[Algebra]) -> bool:
    return algebra is not Algebra and algebra.__module__ == module.__name__
