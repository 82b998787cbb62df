"""On-demand transforms: functions of request fields and looked-up features, computed at request time and in training alike.

A transform is the same code in both places, and it must give the same bits there: it sees arrays (one row or a million), each
row by itself. numpy's own exp or log differ between its vector and scalar code, and a sum mixes rows; both are refused when
the transform is declared. What may not live here: how inputs are gathered (``assembly``).
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import DefinitionError, Location, caller
from headrace.events import FieldRef
from headrace.fingerprints import canonical_function, digest, function_tree, used_names
from headrace.frozen import Definition, FrozenMap
from headrace.views import LookupFeature

#: A function of arrays of equal length that gives one float64 array of that length.
Transform: TypeAlias = Callable[..., npt.NDArray[Any]]
Input: TypeAlias = FieldRef | LookupFeature

#: numpy functions whose last bit depends on the processor and on a value's place in the array, and what to write instead.
_INEXACT = {
    "exp": "hr.exp",
    "exp2": "hr.pow(2.0, x)",
    "expm1": "hr.expm1",
    "log": "hr.log",
    "log1p": "hr.log1p",
    "log2": "hr.log(x) / 0.6931471805599453",
    "log10": "hr.log(x) / 2.302585092994046",
    "power": "hr.pow",
    "float_power": "hr.pow",
    "sin": "hr.sin",
    "cos": "hr.cos",
    "tan": "hr.sin(x) / hr.cos(x)",
    "tanh": "hr.tanh",
    "hypot": "hr.sqrt(x * x + y * y)",
    "cbrt": "hr.pow(x, 1.0 / 3.0)",
    "arcsin": "",
    "arccos": "",
    "arctan": "",
    "arctan2": "",
    "sinh": "",
    "cosh": "",
}
#: Functions and methods that mix rows: their result would depend on what else is in the batch.
_MIXING = frozenset(
    [
        "sum",
        "nansum",
        "prod",
        "mean",
        "nanmean",
        "average",
        "median",
        "nanmedian",
        "std",
        "nanstd",
        "var",
        "nanvar",
        "cumsum",
        "cumprod",
        "diff",
        "sort",
        "argsort",
        "roll",
        "percentile",
        "quantile",
        "ptp",
        "argmax",
        "argmin",
        "shuffle",
        "permutation",
    ]
)
#: Builtins that work for one row and fail, or mix rows, for many.
_SCALAR = {
    "min": "minimum",
    "max": "maximum",
    "pow": "pow",
    "sum": "",
    "sorted": "",
    "float": "",
    "int": "",
    "bool": "",
}
_NUMERICAL = ("numpy", "math", "scipy")
_SAFE_POWERS = (0, 1, 2, 0.5, -1)


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class OnDemand(Definition):
    """A transform with its inputs; made by ``hr.on_demand``.

    Attributes:
        name: the function's name; models see the transform by it.
        inputs: argument of the function → request field or looked-up feature.
        function: the function; calling the transform calls it.
        description: the function's docstring.
        location: the user's line.
    """

    kind: ClassVar[str] = "on-demand transform"

    name: str
    inputs: Mapping[str, Input]
    function: Transform
    description: str
    location: Location

    def __init__(self, function: Transform, inputs: Mapping[str, Input], location: Location) -> None:
        self._set(name=getattr(function, "__name__", repr(function)), location=location, function=function)
        if not isinstance(function, types.FunctionType) or self.name == "<lambda>":
            raise self.broken(
                "a transform is a function written with def, because its name names the feature",
                f"{function!r} was given",
                "write @hr.on_demand(inputs={…}) above def some_name(…):",
            )
        self._check_name()
        self._set(inputs=FrozenMap(inputs), description=inspect.getdoc(function) or "")
        self._check_inputs()
        self._check_body(function)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex characters over the inputs and the function's meaning."""
        return digest(self.canonical())

    def canonical(self) -> dict[str, object]:
        """Name, inputs, and the function's syntax tree with the constants and functions that it uses."""
        return {
            "name": self.name,
            "inputs": {name: _canonical_input(source) for name, source in self.inputs.items()},
            "function": canonical_function(self.function),
        }

    def __call__(self, *args: npt.ArrayLike, **kwargs: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The function's values, as a test would ask for them."""
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        arrays = {name: np.atleast_1d(np.asarray(value)) for name, value in bound.arguments.items()}
        return np.asarray(self.function(**arrays), dtype=np.float64)

    def _check_inputs(self) -> None:
        parameters = list(inspect.signature(self.function).parameters)
        if sorted(parameters) != sorted(self.inputs) or not parameters:
            raise self.broken(
                "inputs names each argument of the function once",
                f"the function takes ({', '.join(parameters)}) and inputs names ({', '.join(self.inputs)})",
                "give every argument an input of its name",
            )
        for name, source in self.inputs.items():
            if not isinstance(source, FieldRef | LookupFeature):
                raise self.broken(
                    "an input is a request field or a looked-up feature",
                    f"input {name!r} is {source!r}",
                    "write event['field'] or view.lookup(…)['feature']",
                )

    def _check_body(self, function: types.FunctionType) -> None:
        try:
            tree = function_tree(function)
        except DefinitionError as error:
            raise error.located(self.subject, self.location) from None
        names = used_names(function)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                self._check_attribute(node, names)
            elif isinstance(node, ast.Name) and node.id in _SCALAR and node.id not in names:
                raise self.broken(
                    "a transform computes arrays, each row by itself",
                    f"it uses {node.id}(…), which works on one value",
                    f"write hr.{_SCALAR[node.id]}" if _SCALAR[node.id] else "use array arithmetic and hr.where(…)",
                )
            elif isinstance(node, ast.Name) and _is_numerical(names.get(node.id)):
                self._check_function(getattr(names[node.id], "__name__", ""), node.id)
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _is_safe_power(node.right):
                raise self.broken(
                    "a transform gives the same bits for one row and for many",
                    f"it uses {ast.unparse(node)}",
                    "write hr.pow(x, y)",
                )

    def _check_attribute(self, node: ast.Attribute, names: Mapping[str, object]) -> None:
        owner = names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(owner, types.ModuleType):
            if owner.__name__.split(".")[0] in _NUMERICAL:
                self._check_function(node.attr, ast.unparse(node))
        elif node.attr in _MIXING:
            self._check_function(node.attr, ast.unparse(node))

    def _check_function(self, name: str, written: str) -> None:
        if name in _INEXACT:
            raise self.broken(
                "a transform gives the same bits for one row and for many, on every machine",
                f"it uses {written}, which does not",
                f"write {_INEXACT[name]}"
                if _INEXACT[name]
                else "use + - * / and the functions hr.exp, hr.log, hr.sin …",
            )
        if name in _MIXING:
            raise self.broken(
                "a transform computes each row by itself",
                f"it uses {written}, which mixes rows",
                "use arithmetic between the arguments; for sums over events declare an aggregation",
            )


def on_demand(*, inputs: Mapping[str, Input]) -> Callable[[Transform], OnDemand]:
    """Declare a transform: a function of arrays that gives one float64 array of the same length.

    Args:
        inputs: for each argument of the function a request field (``event["amount"]``) or a looked-up feature
            (``view.lookup(card="card")["mean_1h"]``). Numbers come as float64 with NaN for null, never-null integers and
            times (in microseconds) as int64, never-null booleans as bool, texts as object arrays.

    Raises:
        DefinitionError: the arguments and inputs differ, or the function uses what is not the same for one row and for many.

    A result that is infinite counts as null.

    >>> import headrace as hr
    >>> paid = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp(), "amount": hr.float64()}, time="at")
    >>> @hr.on_demand(inputs={"amount": paid["amount"]})
    ... def cents(amount):
    ...     return amount * 100.0 % 100.0
    >>> cents([12.25, 3.0])
    array([25.,  0.])
    """
    location = caller()

    def declare(function: Transform) -> OnDemand:
        return OnDemand(function, inputs, location)

    return declare


def _canonical_input(source: Input) -> object:
    if isinstance(source, FieldRef):
        return {"event": source.event.name, "field": source.name}
    lookup = source.lookup
    return {"view": lookup.view.name, "keys": dict(lookup.keys), "feature": source.feature}


def _is_numerical(value: object) -> bool:
    return isinstance(value, np.ufunc) or str(getattr(value, "__module__", "")).split(".")[0] in _NUMERICAL


def _is_safe_power(exponent: ast.expr) -> bool:
    # numpy computes these powers by multiplication, square root or division, which are exact to the last bit.
    try:
        return ast.literal_eval(exponent) in _SAFE_POWERS
    except (ValueError, TypeError):
        return False
