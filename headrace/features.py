"""Feature expressions: aggregations over windows, and arithmetic over them.

    hr.mean("dep_delay")              Aggregation     what is computed
    .over("30m", "3h")                Windowed        over which windows; several windows become several features
    .at(0)                            Aggregate       one aggregation over one window: a leaf
    late / all                        Binary          arithmetic over nodes

Null (no value) spreads through arithmetic, and a division by zero is null; ``default`` replaces it. What may not live here:
how an aggregation works (`aggregations/`) and how a node is evaluated (`layout.py` compiles it, the kernel runs it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from headrace.durations import format_us, parse_us
from headrace.errors import DefinitionError
from headrace.windows import Window

if TYPE_CHECKING:
    from headrace.expressions import Expression

BinaryOp: TypeAlias = Literal["+", "-", "*", "/", "default"]
Params: TypeAlias = tuple[tuple[str, int], ...]


class Node:
    """A part of a feature's definition that has a value for an entity at a moment.

    Nodes take part in ``+ - * /`` with nodes and numbers, and in unary minus. They compare by identity; use `canonical()`
    to compare what they mean.
    """

    __slots__ = ()

    def aggregates(self) -> tuple[Aggregate, ...]:
        """The leaves that aggregate events, from left to right."""
        raise NotImplementedError

    def canonical(self) -> object:
        """What the node means, as JSON-able data."""
        raise NotImplementedError

    def or_else(self, value: float) -> Node:
        """This node, or `value` where it is null.

        >>> ratio = count().over("1h") / count().over("7d")
        >>> ratio.or_else(0.0).canonical()["op"]
        'default'
        """
        return Binary("default", self.node(), as_node(value))

    def node(self) -> Node:
        """The node itself; a `Windowed` of one window gives its only one."""
        return self

    def __add__(self, other: Node | float) -> Binary:
        return _binary("+", self, other)

    def __radd__(self, other: float) -> Binary:
        return _binary("+", other, self)

    def __sub__(self, other: Node | float) -> Binary:
        return _binary("-", self, other)

    def __rsub__(self, other: float) -> Binary:
        return _binary("-", other, self)

    def __mul__(self, other: Node | float) -> Binary:
        return _binary("*", self, other)

    def __rmul__(self, other: float) -> Binary:
        return _binary("*", other, self)

    def __truediv__(self, other: Node | float) -> Binary:
        return _binary("/", self, other)

    def __rtruediv__(self, other: float) -> Binary:
        return _binary("/", other, self)

    def __neg__(self) -> Unary:
        return Unary("-", self.node())


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate(Node):
    """One aggregation over one window: the leaf of every feature.

    Args:
        op: the aggregation's name, such as ``"mean"``.
        field: the event field that it aggregates; None for those that need none.
        where: a filter on the event; None aggregates every event of the view.
        window_us: the window's length; None aggregates the whole lifetime.
        default: replaces null; None keeps null.
        params: further named integers of the aggregation, such as ``ddof``.
    """

    op: str
    field: str | None
    where: Expression | None
    window_us: int | None
    default: float | None = None
    params: Params = ()

    def aggregates(self) -> tuple[Aggregate, ...]:
        return (self,)

    def canonical(self) -> dict[str, object]:
        return {
            "op": self.op,
            "field": self.field,
            "where": None if self.where is None else self.where.canonical(),
            "window_us": self.window_us,
            "default": self.default,
            "params": [list(param) for param in self.params],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Node):
    """A number in a feature's definition."""

    value: float

    def aggregates(self) -> tuple[Aggregate, ...]:
        return ()

    def canonical(self) -> dict[str, object]:
        return {"constant": self.value}


@dataclass(frozen=True, slots=True, eq=False)
class Unary(Node):
    """Minus a node."""

    op: Literal["-"]
    operand: Node

    def aggregates(self) -> tuple[Aggregate, ...]:
        return self.operand.aggregates()

    def canonical(self) -> dict[str, object]:
        return {"op": self.op, "operand": self.operand.canonical()}


@dataclass(frozen=True, slots=True, eq=False)
class Binary(Node):
    """Two nodes and an operation; ``default`` takes the right one where the left one is null."""

    op: BinaryOp
    left: Node
    right: Node

    def aggregates(self) -> tuple[Aggregate, ...]:
        return self.left.aggregates() + self.right.aggregates()

    def canonical(self) -> dict[str, object]:
        return {"op": self.op, "left": self.left.canonical(), "right": self.right.canonical()}


@dataclass(frozen=True, slots=True, eq=False)
class Windowed(Node):
    """An aggregation over one or several windows; with one window it is also a node for arithmetic."""

    aggregation: Aggregation
    windows: tuple[Window, ...]

    def at(self, index: int) -> Aggregate:
        """The leaf of one of the windows."""
        return self.aggregation.leaf(self.windows[index].us)

    def node(self) -> Aggregate:
        if len(self.windows) != 1:
            written = ", ".join(repr(window.text) for window in self.windows)
            raise DefinitionError(
                required="arithmetic takes an aggregation over exactly one window",
                got=f"{self.aggregation.op} is over {len(self.windows)}: {written}",
                remedy="write one expression for each window",
            )
        return self.at(0)

    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(self.at(index) for index in range(len(self.windows)))

    def canonical(self) -> object:
        return [self.at(index).canonical() for index in range(len(self.windows))]


@dataclass(frozen=True, slots=True, eq=False)
class Aggregation:
    """An aggregation that still lacks its windows; see `Aggregate` for the arguments."""

    op: str
    field: str | None = None
    where: Expression | None = None
    default: float | None = None
    params: Params = ()

    def __post_init__(self) -> None:
        if self.field is not None and not _is_name(self.field):
            raise DefinitionError(
                required=f"hr.{self.op} takes the name of an event field",
                got=f"{self.field!r} was given",
                remedy=f"write hr.{self.op}('amount') with the field's name in quotes",
            )
        if self.default is not None and not _is_finite(self.default):
            raise DefinitionError(
                required=f"the default of hr.{self.op} is a finite number",
                got=f"{self.default!r} was given",
                remedy="leave it out for null, or write a number such as default=0.0",
            )

    def over(self, *windows: str | timedelta) -> Windowed:
        """This aggregation over some windows, each ending when it is read.

        Raises:
            DefinitionError: no window, a window of nothing, or one that is given twice.

        >>> [window.us for window in mean("amount").over("10m", "1h").windows]
        [600000000, 3600000000]
        """
        parsed = tuple(_window(window) for window in windows)
        if not parsed or any(window.us == 0 for window in parsed):
            raise DefinitionError(
                required="over() takes at least one window, longer than nothing",
                got=f"over({', '.join(repr(window) for window in windows)}) was written",
                remedy="write .over('30m', '3h'), or .lifetime() for all events of an entity",
            )
        lengths = [window.us for window in parsed]
        for window in parsed:
            if lengths.count(window.us) > 1:
                raise DefinitionError(
                    required="the windows of one aggregation differ",
                    got=f"window {window.text!r} is given twice",
                    remedy="leave one of them out",
                )
        return Windowed(self, parsed)

    def lifetime(self) -> Aggregate:
        """This aggregation over all events of an entity, however old."""
        return self.leaf(None)

    def _refuse(self, _: object) -> Node:
        raise _unwindowed(self)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse

    def leaf(self, window_us: int | None) -> Aggregate:
        """The aggregation over one window, or over the lifetime."""
        return Aggregate(self.op, self.field, self.where, window_us, self.default, self.params)


def as_node(value: Node | Aggregation | float) -> Node:
    """A node of an operand: nodes stay, numbers become constants.

    Raises:
        DefinitionError: anything else, such as an aggregation without a window.
    """
    if isinstance(value, Node):
        return value.node()
    if isinstance(value, Aggregation):
        raise _unwindowed(value)
    if _is_finite(value):
        return Constant(float(value))
    raise DefinitionError(
        required="feature arithmetic takes windowed aggregations and finite numbers",
        got=f"{value!r} was used",
        remedy="use a number or a feature",
    )


def _unwindowed(aggregation: Aggregation) -> DefinitionError:
    return DefinitionError(
        required="feature arithmetic takes windowed aggregations and finite numbers",
        got=f"hr.{aggregation.op}(...) without a window was used",
        remedy="write .over('1h') or .lifetime() behind the aggregation",
    )


def _binary(op: BinaryOp, left: Node | float, right: Node | float) -> Binary:
    return Binary(op, as_node(left), as_node(right))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _window(value: str | timedelta) -> Window:
    us = parse_us(value)
    return Window(us, value.strip() if isinstance(value, str) else format_us(us))


def count(*, where: Expression | None = None) -> Aggregation:
    """How many events; 0 for an empty window.

    Args:
        where: counts only the events that fulfil it.

    >>> count().over("1h").at(0).op
    'count'
    """
    return Aggregation("count", None, where)


def sum(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:  # noqa: A001  (read as hr.sum)
    """The exact total of a field, each value rounded to the field's quantum; 0.0 for an empty window. Nulls are skipped."""
    return Aggregation("sum", field, where, default)


def mean(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:
    """The exact total divided by the number of values; null without a value. Nulls are skipped."""
    return Aggregation("mean", field, where, default)


def min(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:  # noqa: A001  (read as hr.min)
    """The smallest value; null without a value. Nulls are skipped."""
    return Aggregation("min", field, where, default)


def max(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:  # noqa: A001  (read as hr.max)
    """The largest value; null without a value. Nulls are skipped."""
    return Aggregation("max", field, where, default)


def var(field: str, *, where: Expression | None = None, default: float | None = None, ddof: int = 1) -> Aggregation:
    """The variance; null with `ddof` values or fewer. Nulls are skipped.

    Args:
        field: the event field.
        where: uses only the events that fulfil it.
        default: replaces null.
        ddof: 1 for the sample variance (as in SQL, pandas and Polars), 0 for the population's.
    """
    return Aggregation("var", field, where, default, (("ddof", _ddof("var", ddof)),))


def std(field: str, *, where: Expression | None = None, default: float | None = None, ddof: int = 1) -> Aggregation:
    """The square root of `var`, with the same arguments."""
    return Aggregation("std", field, where, default, (("ddof", _ddof("std", ddof)),))


def first(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:
    """The value of the earliest event, by (event time, partition, offset); null without a value. Nulls are skipped."""
    return Aggregation("first", field, where, default)


def last(field: str, *, where: Expression | None = None, default: float | None = None) -> Aggregation:
    """The value of the latest event, by (event time, partition, offset); null without a value. Nulls are skipped."""
    return Aggregation("last", field, where, default)


def time_since_last(*, where: Expression | None = None, default: float | None = None) -> Aggregation:
    """Seconds from the latest event to the moment of reading; null without an event."""
    return Aggregation("time_since_last", None, where, default)


def _ddof(op: str, ddof: int) -> int:
    if isinstance(ddof, bool) or ddof not in _DDOF:
        raise DefinitionError(
            required=f"ddof of hr.{op} is 0 (population) or 1 (sample)",
            got=f"ddof={ddof!r} was given",
            remedy="write ddof=1, or leave it out",
        )
    return ddof


_DDOF: Final = (0, 1)
