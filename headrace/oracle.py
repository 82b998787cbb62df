"""The specification, in the slowest and plainest way: every value from all events, with Python's integers and fractions.

It shares with the kernel the definitions and the evaluator of filters, and nothing else: no tiles kept, no states, no retention.
Read at an admissible moment (not before the entity's newest event less the tolerance), the kernel's value is this one, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from headrace.aggregations import Observation, Reading, algebras
from headrace.expressions import Columns, Expression
from headrace.features import Aggregate, Binary, Constant, Node, Unary
from headrace.requests import dtype_of
from headrace.views import FeatureView

Record = Mapping[str, object]


def naive(
    view: FeatureView, events: Iterable[Record], key: Mapping[str, object], at_us: int
) -> dict[str, float | None]:
    """The features of one entity at a moment, over the events that are given: choosing the knowable ones is the caller's.

    Args:
        view: what to compute.
        events: records of the view's event, of any entity, with `_partition` and `_offset` beside the fields.
        key: the entity's key values.
        at_us: the moment.

    Returns:
        Each feature's value, None for null.
    """
    rows = [event for event in events if all(event[view.keys[name]] == value for name, value in key.items())]
    rows = [event for event, kept in zip(rows, _passes(view, view.where, rows), strict=True) if kept]
    rows = _distinct(view, rows)
    return {feature.name: _value(view, feature.node, rows, at_us) for feature in view.features}


def _distinct(view: FeatureView, rows: Sequence[Record]) -> list[Record]:
    """One of each id; without a declared id, one of each record."""
    if view.dedupe == 0:
        return list(rows)
    names = (view.event.id,) if view.event.id else tuple(view.event.fields)
    first: dict[tuple[object, ...], Record] = {}
    for row in rows:
        first.setdefault(tuple(row[name] for name in names), row)
    return list(first.values())


def _value(view: FeatureView, node: Node, rows: Sequence[Record], at_us: int) -> float | None:
    match node:
        case Aggregate():
            result = _aggregate(view, node, rows, at_us)
            return node.default if result is None else result
        case Constant():
            return node.value
        case Unary():
            operand = _value(view, node.operand, rows, at_us)
            return None if operand is None else -operand
        case Binary():
            left, right = _value(view, node.left, rows, at_us), _value(view, node.right, rows, at_us)
            if node.op == "default":
                return right if left is None else left
            if left is None or right is None or (node.op == "/" and right == 0.0):
                return None
            result = {"+": left + right, "-": left - right, "*": left * right}.get(node.op)
            result = left / right if result is None else result
            return result if math.isfinite(result) else None
    return _value(view, node.node(), rows, at_us)


def _aggregate(view: FeatureView, leaf: Aggregate, rows: Sequence[Record], at_us: int) -> float | None:
    scale = 1
    if leaf.field is not None:
        scale = int(1 / Fraction(view.event.fields[leaf.field].quantum or "1"))
    observed = []
    for row, passes in zip(rows, _passes(view, leaf.where, rows), strict=True):
        value = 0.0 if leaf.field is None else row[leaf.field]
        time_us = row[view.event.time]
        assert isinstance(time_us, int)
        if passes and value is not None and _covers(view, leaf, time_us, at_us):
            assert isinstance(value, int | float)
            # Python rounds a fraction half to even; adding 0.0 turns -0.0 into 0.0.
            units = round(Fraction(value) * scale)
            place = (row["_partition"], row["_offset"])
            observed.append(Observation(time_us, *place, float(value) + 0.0, units))  # type: ignore[arg-type]
    return algebras()[leaf.op].naive(observed, Reading(at_us, scale, dict(leaf.params)))


def _covers(view: FeatureView, leaf: Aggregate, time_us: int, at_us: int) -> bool:
    if leaf.window_us is None:
        return True
    tile_us = view.ladder.tile_us(leaf.window_us)
    return (at_us - leaf.window_us) // tile_us <= time_us // tile_us <= at_us // tile_us


def _passes(view: FeatureView, where: Expression | None, rows: Sequence[Record]) -> list[bool]:
    if where is None or not rows:
        return [True] * len(rows)
    return [bool(passed) for passed in where.evaluate(columns_of(view, sorted(where.fields()), rows))]


def columns_of(view: FeatureView, names: Iterable[str], rows: Sequence[Record]) -> Columns:
    """Some fields of records as columns, in the convention of `expressions`."""
    columns = {}
    for name in names:
        dtype = dtype_of(view.event.fields[name])
        values = [row[name] for row in rows]
        if dtype == np.float64:
            values = [math.nan if value is None else value for value in values]
        columns[name] = np.array(values, dtype=dtype)
    return columns
