"""Expressions over the fields of one event: filters of aggregations and views, and values of labels.

``hr.col("dep_delay") > 15`` builds a tree of frozen nodes. One evaluator, over numpy columns, serves the stream, training and
serving. Nulls follow SQL: a comparison with null is unknown, ``&`` and ``|`` are Kleene's, and a filter keeps only what is
true. Arithmetic is in float64; dividing by zero gives null.

A column holds its nulls in the way of ``Columns``: NaN in a float64 column, None in a string column; an int64 or bool column
has none. Operators make nodes and nodes are operands of operators, so both are in this one file. What may not live here:
aggregations (``features``) and anything that looks across rows.
"""

from __future__ import annotations

import datetime
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import DefinitionError
from headrace.fields import INT64_MAX, FieldType
from headrace.frozen import is_a
from headrace.suggestions import did_you_mean

if TYPE_CHECKING:
    from headrace.events import Event

#: One array per field, all of one length, in the convention above.
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
#: What may stand beside an expression in an operation.
Operand: TypeAlias = "Expression | str | int | float | bool | datetime.datetime"

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_NONE = np.array(None, dtype=object)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Evaluated(NamedTuple):
    """Data of one node and where it is null; ``null`` is None where nothing can be. Conditions hold False where null."""

    data: npt.NDArray[Any]
    null: npt.NDArray[np.bool_] | None


class Expression:
    """A node. Combine with comparisons, ``& | ~``, ``+ - * /``, ``is_null``, ``is_not_null`` and ``is_in``."""

    __slots__ = ()

    # --- what the rest of the core asks -----------------------------------------------------------------------------

    def fields(self) -> frozenset[str]:
        """The names of the event's fields that the value depends on."""
        raise NotImplementedError

    def canonical(self) -> object:
        """The meaning as JSON-able data; compare expressions by it, since ``==`` builds a node."""
        raise NotImplementedError

    def type_in(self, event: Event) -> FieldType:
        """The type of the value for records of this event.

        Raises:
            DefinitionError: an unknown field, or types that do not go together.
        """
        raise NotImplementedError

    def evaluated(self, columns: Columns) -> Evaluated:
        """Data and nulls, one per row."""
        raise NotImplementedError

    def evaluate(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Which rows a filter keeps: true where the condition is true, false where it is false or null.

        >>> import numpy as np
        >>> (col("delay") > 15).evaluate({"delay": np.array([20.0, 3.0, np.nan])})
        array([ True, False, False])
        """
        return _condition(self.evaluated(columns)).data

    def values(self, columns: Columns) -> npt.NDArray[np.float64]:
        """The value of each row as float64, NaN where null; a condition gives 1.0 and 0.0.

        >>> import numpy as np
        >>> (col("delay") > 15).values({"delay": np.array([20.0, 3.0, np.nan])})
        array([ 1.,  0., nan])
        """
        data, null = self.evaluated(columns)
        result = data.astype(np.float64)
        if null is not None:
            result[null] = np.nan
        return result

    # --- what users write -------------------------------------------------------------------------------------------

    def is_null(self) -> Expression:
        """True where the value is absent."""
        return IsNull(self)

    def is_not_null(self) -> Expression:
        """True where the value is there."""
        return Not(IsNull(self))

    def is_in(self, values: Iterable[str | int | float]) -> Expression:
        """True where the value equals one of these; null where it is null.

        >>> import numpy as np
        >>> col("origin").is_in(["JFK", "LGA"]).evaluate({"origin": np.array(["JFK", "EWR", None], dtype=object)})
        array([ True, False, False])
        """
        if isinstance(values, str):
            raise DefinitionError(
                required="is_in takes a list", got=f"{values!r} was given", remedy=f"write is_in([{values!r}])"
            )
        return IsIn(self, tuple(values))

    def __eq__(self, other: Operand) -> Expression:  # type: ignore[override]
        return Compare("==", self, as_expression(other))

    def __ne__(self, other: Operand) -> Expression:  # type: ignore[override]
        return Compare("!=", self, as_expression(other))

    def __lt__(self, other: Operand) -> Expression:
        return Compare("<", self, as_expression(other))

    def __le__(self, other: Operand) -> Expression:
        return Compare("<=", self, as_expression(other))

    def __gt__(self, other: Operand) -> Expression:
        return Compare(">", self, as_expression(other))

    def __ge__(self, other: Operand) -> Expression:
        return Compare(">=", self, as_expression(other))

    __hash__ = object.__hash__

    def __and__(self, other: Operand) -> Expression:
        return Logical("and", self, as_expression(other))

    def __rand__(self, other: Operand) -> Expression:
        return Logical("and", as_expression(other), self)

    def __or__(self, other: Operand) -> Expression:
        return Logical("or", self, as_expression(other))

    def __ror__(self, other: Operand) -> Expression:
        return Logical("or", as_expression(other), self)

    def __invert__(self) -> Expression:
        return Not(self)

    def __add__(self, other: Operand) -> Expression:
        return Arithmetic("+", self, as_expression(other))

    def __radd__(self, other: Operand) -> Expression:
        return Arithmetic("+", as_expression(other), self)

    def __sub__(self, other: Operand) -> Expression:
        return Arithmetic("-", self, as_expression(other))

    def __rsub__(self, other: Operand) -> Expression:
        return Arithmetic("-", as_expression(other), self)

    def __mul__(self, other: Operand) -> Expression:
        return Arithmetic("*", self, as_expression(other))

    def __rmul__(self, other: Operand) -> Expression:
        return Arithmetic("*", as_expression(other), self)

    def __truediv__(self, other: Operand) -> Expression:
        return Arithmetic("/", self, as_expression(other))

    def __rtruediv__(self, other: Operand) -> Expression:
        return Arithmetic("/", as_expression(other), self)

    def __neg__(self) -> Expression:
        return Arithmetic("-", Literal(0), self)

    def __bool__(self) -> bool:
        raise DefinitionError(
            required="conditions are combined with & | ~, each side in parentheses",
            got=f"{self} was used with and, or, not, if, or as part of a chained comparison",
            remedy="write (a > 1) & (a < 3), not a > 1 and a < 3",
        )


def col(name: str) -> Expression:
    """The value of a field.

    Args:
        name: a field of the event of the view or label in which the expression is used.

    >>> print((col("dep_delay") > 15) & col("origin").is_in(["JFK"]))
    ((dep_delay > 15) and origin in ('JFK',))
    """
    if not name or not is_a(name, str):
        raise DefinitionError(
            required="col takes the name of a field", got=f"{name!r} was given", remedy='write hr.col("amount")'
        )
    return Column(name)


def as_expression(value: Operand) -> Expression:
    """The operand itself if it is an expression, else a literal."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime.datetime):
        return Literal(_microseconds(value), FieldType.TIMESTAMP)
    if isinstance(value, bool | str):
        return Literal(value)
    if isinstance(value, int) and abs(value) <= INT64_MAX:
        return Literal(value)
    if isinstance(value, float) and math.isfinite(value):
        return Literal(value)
    raise DefinitionError(
        required="an expression is made of columns, texts, finite numbers, booleans and datetimes",
        got=f"{value!r} was given",
        remedy='use hr.col("…").is_null() to ask for null, and hr.col("…").is_in([…]) for several values',
    )


def _microseconds(moment: datetime.datetime) -> int:
    if moment.tzinfo is None:
        raise DefinitionError(
            required="a datetime names its zone",
            got=f"{moment!r} was given",
            remedy="write datetime(2013, 1, 1, tzinfo=datetime.UTC)",
        )
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


# --- nodes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Column(Expression):
    """The value of one field."""

    name: str

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))

    def canonical(self) -> object:
        return {"col": self.name}

    def type_in(self, event: Event) -> FieldType:
        field = event.fields.get(self.name)
        if field is None:
            raise DefinitionError(
                required=f"an expression uses fields of event {event.name!r}",
                got=f"it has no field {self.name!r}",
                remedy=did_you_mean(self.name, event.fields),
            )
        return field.type

    def evaluated(self, columns: Columns) -> Evaluated:
        data = columns[self.name]
        if data.dtype.kind == "f":
            return Evaluated(data, np.isnan(data))
        if data.dtype.kind == "O":
            return Evaluated(data, nulls(data))
        return Evaluated(data, None)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Literal(Expression):
    """A constant; a moment is held in microseconds."""

    value: str | int | float | bool
    type: FieldType | None = None

    def fields(self) -> frozenset[str]:
        return frozenset()

    def canonical(self) -> object:
        # 15 and 15.0 mean the same; True and 1 do not.
        if isinstance(self.value, float) and self.value.is_integer():
            return {"literal": int(self.value)}
        return {"literal": self.value}

    def type_in(self, event: Event) -> FieldType:
        if self.type is not None:
            return self.type
        if isinstance(self.value, bool):
            return FieldType.BOOLEAN
        if isinstance(self.value, str):
            return FieldType.STRING
        return FieldType.INT64 if isinstance(self.value, int) else FieldType.FLOAT64

    def evaluated(self, columns: Columns) -> Evaluated:
        rows = len(next(iter(columns.values()))) if columns else 0
        dtype = object if isinstance(self.value, str) else None
        return Evaluated(np.full(rows, self.value, dtype=dtype), None)

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair(Expression):
    """An operator between two expressions."""

    op: str
    left: Expression
    right: Expression

    def fields(self) -> frozenset[str]:
        return self.left.fields() | self.right.fields()

    def canonical(self) -> object:
        return {"op": self.op, "args": [self.left.canonical(), self.right.canonical()]}

    def __str__(self) -> str:
        return f"({self.left} {self.op} {self.right})"


@dataclass(frozen=True, slots=True, eq=False)
class Compare(_Pair):
    """``== != < <= > >=`` of two values of one kind."""

    def type_in(self, event: Event) -> FieldType:
        left, right = self.left.type_in(event), self.right.type_in(event)
        if left is not right and not (left.numeric and right.numeric):
            raise DefinitionError(
                required="both sides of a comparison are of one type",
                got=f"in {self} they are {left.value} and {right.value}",
                remedy="compare a string with text in quotes, a timestamp with a datetime, a number with a number",
            )
        if self.op not in ("==", "!=") and left in (FieldType.STRING, FieldType.BOOLEAN):
            raise DefinitionError(
                required="numbers and timestamps have an order",
                got=f"in {self} values of type {left.value} are compared with {self.op}",
                remedy="use ==, != or is_in([…])",
            )
        return FieldType.BOOLEAN

    def evaluated(self, columns: Columns) -> Evaluated:
        left, right = _operand(self.left, columns), _operand(self.right, columns)
        null = _union(left.null, right.null)
        truth = np.asarray(_COMPARISONS[self.op](left.data, right.data), dtype=np.bool_)
        return Evaluated(truth if null is None else truth & ~null, null)


@dataclass(frozen=True, slots=True, eq=False)
class Arithmetic(_Pair):
    """``+ - * /`` of two numbers, in float64."""

    def type_in(self, event: Event) -> FieldType:
        for side in (self.left, self.right):
            if not (found := side.type_in(event)).numeric:
                raise DefinitionError(
                    required="arithmetic is between numbers",
                    got=f"in {self} {side} is of type {found.value}",
                    remedy="use fields of type int64 or float64; differences of times belong into an on-demand transform",
                )
        return FieldType.FLOAT64

    def evaluated(self, columns: Columns) -> Evaluated:
        left, right = self.left.evaluated(columns), self.right.evaluated(columns)
        a, b = left.data.astype(np.float64, copy=False), right.data.astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            data = _ARITHMETIC[self.op](a, b)
        null = np.isnan(data)
        if self.op == "/":
            null |= b == 0.0
        return Evaluated(data, null)


@dataclass(frozen=True, slots=True, eq=False)
class Logical(_Pair):
    """``&`` and ``|`` of two conditions, by Kleene's tables."""

    def type_in(self, event: Event) -> FieldType:
        _require_condition(self.left, event)
        _require_condition(self.right, event)
        return FieldType.BOOLEAN

    def evaluated(self, columns: Columns) -> Evaluated:
        a, a_null = _condition(self.left.evaluated(columns))
        b, b_null = _condition(self.right.evaluated(columns))
        null = _union(a_null, b_null)
        data = a & b if self.op == "and" else a | b
        if null is None:
            return Evaluated(data, None)
        if self.op == "or":
            return Evaluated(data, null & ~data)
        # "and" is false, not null, as soon as one side is known to be false.
        false_a = ~a if a_null is None else ~a & ~a_null
        false_b = ~b if b_null is None else ~b & ~b_null
        return Evaluated(data, null & ~false_a & ~false_b)


@dataclass(frozen=True, slots=True, eq=False)
class Not(Expression):
    """``~`` of a condition; null stays null."""

    of: Expression

    def fields(self) -> frozenset[str]:
        return self.of.fields()

    def canonical(self) -> object:
        return {"op": "not", "args": [self.of.canonical()]}

    def type_in(self, event: Event) -> FieldType:
        _require_condition(self.of, event)
        return FieldType.BOOLEAN

    def evaluated(self, columns: Columns) -> Evaluated:
        data, null = _condition(self.of.evaluated(columns))
        return Evaluated(~data if null is None else ~data & ~null, null)

    def __str__(self) -> str:
        return f"not {self.of}"


@dataclass(frozen=True, slots=True, eq=False)
class IsNull(Expression):
    """Whether a value is absent; itself never null."""

    of: Expression

    def fields(self) -> frozenset[str]:
        return self.of.fields()

    def canonical(self) -> object:
        return {"op": "is_null", "args": [self.of.canonical()]}

    def type_in(self, event: Event) -> FieldType:
        self.of.type_in(event)
        return FieldType.BOOLEAN

    def evaluated(self, columns: Columns) -> Evaluated:
        data, null = self.of.evaluated(columns)
        return Evaluated(np.zeros(len(data), dtype=np.bool_) if null is None else null, None)

    def __str__(self) -> str:
        return f"{self.of} is null"


@dataclass(frozen=True, slots=True, eq=False)
class IsIn(Expression):
    """Whether a value equals one of a list."""

    of: Expression
    choices: tuple[str | int | float, ...]

    def __post_init__(self) -> None:
        for choice in self.choices:
            as_expression(choice)

    def fields(self) -> frozenset[str]:
        return self.of.fields()

    def canonical(self) -> object:
        # A set: neither order nor repetition is meaning.
        choices = {repr(literal): literal for literal in (_literal(choice).canonical() for choice in self.choices)}
        return {"op": "is_in", "args": [self.of.canonical()], "choices": [choices[key] for key in sorted(choices)]}

    def type_in(self, event: Event) -> FieldType:
        for choice in self.choices:
            Compare("==", self.of, _literal(choice)).type_in(event)
        self.of.type_in(event)
        return FieldType.BOOLEAN

    def evaluated(self, columns: Columns) -> Evaluated:
        data, null = self.of.evaluated(columns)
        if data.dtype.kind == "O":
            choices = frozenset(self.choices)
            truth = np.fromiter((value in choices for value in data), dtype=np.bool_, count=len(data))
        else:
            truth = np.zeros(len(data), dtype=np.bool_)
            for choice in self.choices:
                truth |= data == _literal(choice).value
        return Evaluated(truth if null is None else truth & ~null, null)

    def __str__(self) -> str:
        return f"{self.of} in {self.choices!r}"


def nulls(texts: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where an object array holds None."""
    mask: npt.NDArray[np.bool_] = np.equal(texts, _NONE, dtype=object).astype(np.bool_)
    return mask


# --- helpers of the evaluator ----------------------------------------------------------------------------------------


def _literal(value: Operand) -> Literal:
    literal = as_expression(value)
    assert isinstance(literal, Literal)
    return literal


def _operand(node: Expression, columns: Columns) -> Evaluated:
    # A literal is compared as a scalar: no array of copies, and an int64 column stays exact.
    if isinstance(node, Literal):
        return Evaluated(node.value, None)  # type: ignore[arg-type]
    return node.evaluated(columns)


def _condition(value: Evaluated) -> Evaluated:
    """A boolean column of numbers (nullable ones are float64) as truth and null."""
    data, null = value
    if data.dtype.kind == "b":
        return value
    truth = data == 1.0
    return Evaluated(truth if null is None else truth & ~null, null)


def _union(a: npt.NDArray[np.bool_] | None, b: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    if a is None:
        return b
    return a if b is None else a | b


def _require_condition(node: Expression, event: Event) -> None:
    if (found := node.type_in(event)) is not FieldType.BOOLEAN:
        raise DefinitionError(
            required="& | ~ and filters take conditions",
            got=f"{node} is of type {found.value}",
            remedy="compare it, as in (hr.col('amount') > 0), each side of & and | in parentheses",
        )


def check_condition(node: object, event: Event) -> None:
    """A filter is a condition over fields of its event.

    Raises:
        DefinitionError: it is something else, or uses unknown fields or mixed types.
    """
    if not isinstance(node, Expression):
        raise DefinitionError(
            required="a filter is a condition",
            got=f"where={node!r} was given",
            remedy="write where=hr.col('amount') > 0",
        )
    _require_condition(node, event)
