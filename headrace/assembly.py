"""Assembly: the one place where request fields, looked-up features and on-demand transforms become a model's inputs.

    request columns ─────────────┐
    read(...)[:, lookup_columns] ┼→ transforms ─→ numeric float32 [n, p] · categorical object [n, q]
                                 └──────────────┘

Training and serving both call ``assemble``, on a million rows or on one; every operation is exact per row, so that they cannot
disagree. Which column goes where is resolved once per model. What may not live here: reading stores, running the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import ContractError
from headrace.events import FieldRef
from headrace.expressions import Columns
from headrace.models import Model
from headrace.requests import RequestReader, dtype_of, request_columns, request_reader
from headrace.transforms import OnDemand
from headrace.views import FeatureView

__all__ = [
    "Assembled",
    "RequestReader",
    "assemble",
    "assembled_fields",
    "event_columns_needed",
    "lookup_columns",
    "request_columns",
    "request_reader",
]

#: Positions of columns: a slice where they are contiguous, so that taking them makes no copy.
Positions: TypeAlias = slice | npt.NDArray[np.intp]
Lookups: TypeAlias = Sequence[npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Assembled:
    """The inputs of a model for n rows.

    Attributes:
        numeric: float32 [n, p], C order: the ``"float"`` inputs in the order of ``model.inputs``; NaN is null.
        categorical: object [n, q]: the ``"string"`` inputs in that order; null is "".
        transforms: float64 [n, t]: what the transforms gave, in the order of ``model.transforms``.
    """

    numeric: npt.NDArray[np.float32]
    categorical: npt.NDArray[np.object_]
    transforms: npt.NDArray[np.float64]


def assemble(model: Model, request: Columns, lookups: Lookups) -> Assembled:
    """The inputs of a model.

    Args:
        model: whose inputs.
        request: one column for each of ``model.request_fields``, by the convention of ``expressions``.
        lookups: for each of ``model.lookups`` float64 [n, k], the k features of the lookup in its order.

    Raises:
        ContractError: a transform gave something else than one number per row.

    What is infinite, or too large for float32, becomes null. O(n · (p + q)).
    """
    from headrace.kernel import null_infinite  # numba, which `import headrace` does without

    plan = _plan(model)
    rows = len(lookups[0]) if lookups else len(request[model.request.time])
    with np.errstate(all="ignore"):
        transforms = np.empty((rows, len(plan.transforms)))
        for i, step in enumerate(plan.transforms):
            transforms[:, i] = step.values(request, lookups, rows)
        null_infinite(transforms)
        numeric = np.empty((rows, plan.numeric_width), dtype=np.float32)
        for name, target in plan.numeric_fields:
            numeric[:, target] = request[name]
        for i, source, targets in plan.features:
            numeric[:, targets] = lookups[i][:, source]
        if plan.transforms:
            numeric[:, plan.transform_targets] = transforms
        null_infinite(numeric)
    return Assembled(numeric, plan.categorical(request, rows), transforms)


def lookup_columns(model: Model, i: int) -> Positions:
    """Which columns of a read of view ``model.lookups[i].view`` are the lookup's features."""
    return _plan(model).lookup_columns[i]


def assembled_fields(model: Model) -> frozenset[str]:
    """The request fields whose columns `assemble` looks at, and the event's time."""
    plan = _plan(model)
    used = {name for name, _ in (*plan.numeric_fields, *plan.texts)}
    used |= {name for step in plan.transforms for _, name, _ in step.fields}
    return frozenset(used | {model.request.time})


def event_columns_needed(view: FeatureView) -> tuple[str, ...]:
    """The event fields that folding needs besides the key."""
    return view.columns


# --- the plan of a model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One transform with its arguments located: a request field with its dtype, or a column of a lookup."""

    transform: OnDemand
    call: Callable[..., Any]
    fields: tuple[tuple[str, str, npt.DTypeLike], ...]
    features: tuple[tuple[str, int, int], ...]

    def values(self, request: Columns, lookups: Lookups, rows: int) -> npt.NDArray[np.float64]:
        arguments: dict[str, npt.NDArray[Any]] = {}
        for argument, name, dtype in self.fields:
            arguments[argument] = _read_only(request[name].astype(dtype, copy=False).view())
        for argument, i, column in self.features:
            arguments[argument] = _read_only(lookups[i][:, column])
        try:
            result = self.call(**arguments)
        except Exception as error:
            error.add_note(f"in {self.transform.subject} ({self.transform.location})")
            raise
        if not isinstance(result, np.ndarray) or result.shape != (rows,) or result.dtype.kind not in "fib":
            raise ContractError(
                self.transform.name,
                f"one array of numbers, one for each of {rows} rows, from the transform",
                _shape(result),
            )
        return result


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where each input of a model comes from."""

    numeric_width: int
    numeric_fields: tuple[tuple[str, int], ...]
    features: tuple[tuple[int, Positions, Positions], ...]
    transforms: tuple[_Step, ...]
    transform_targets: Positions
    texts: tuple[tuple[str, bool], ...]
    lookup_columns: tuple[Positions, ...]

    def categorical(self, request: Columns, rows: int) -> npt.NDArray[np.object_]:
        result = np.empty((rows, len(self.texts)), dtype=object)
        for i, (name, nullable) in enumerate(self.texts):
            column = request[name]
            result[:, i] = ["" if text is None else text for text in column] if nullable else column
        return result


@lru_cache(maxsize=256)
def _plan(model: Model) -> _Plan:
    numeric = [item for item in model.inputs if item.dtype == "float"]
    target = {item.name: i for i, item in enumerate(numeric)}
    fields = model.request.fields
    return _Plan(
        numeric_width=len(numeric),
        numeric_fields=tuple((item.name, target[item.name]) for item in numeric if item.kind == "request"),
        features=tuple(_feature_moves(model, target)),
        transforms=tuple(_step(model, transform) for transform in model.transforms),
        transform_targets=_positions([target[transform.name] for transform in model.transforms]),
        texts=tuple((item.name, fields[item.name].nullable) for item in model.inputs if item.dtype == "string"),
        lookup_columns=tuple(
            _positions([lookup.view.feature_names.index(name) for name in lookup.features]) for lookup in model.lookups
        ),
    )


def _feature_moves(model: Model, target: dict[str, int]) -> list[tuple[int, Positions, Positions]]:
    moves = []
    for i, lookup in enumerate(model.lookups):
        # Features that only a transform needs are looked up and are no inputs.
        pairs = [
            (source, target[lookup.visible_name(name)])
            for source, name in enumerate(lookup.features)
            if lookup.visible_name(name) in target
        ]
        if pairs:
            moves.append((i, _positions([pair[0] for pair in pairs]), _positions([pair[1] for pair in pairs])))
    return moves


def _step(model: Model, transform: OnDemand) -> _Step:
    fields, features = [], []
    for argument, source in transform.inputs.items():
        if isinstance(source, FieldRef):
            fields.append((argument, source.name, dtype_of(source.field)))
        else:
            i = model.lookup_of(source.lookup)
            features.append((argument, i, model.lookups[i].features.index(source.feature)))
    return _Step(transform, transform.function, tuple(fields), tuple(features))


def _positions(indices: list[int]) -> Positions:
    if indices and indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return np.array(indices, dtype=np.intp)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # A transform that writes into its arguments would change the features that are logged and used beside it.
    array.flags.writeable = False
    return array


def _shape(result: object) -> str:
    if isinstance(result, np.ndarray):
        return f"an array of shape {result.shape} and type {result.dtype}"
    return f"{type(result).__name__}"
