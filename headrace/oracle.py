"""The specification of a read: a naive reader of all events, in plain Python, against which everything fast is held.

It sees the whole set of events every time, keeps no state, and knows neither tiles as storage nor arrival order. What may not
live here: anything that is shared with the kernel, except the definitions and the aggregations' naive values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from headrace.aggregations import Observation, Reading, algebras
from headrace.features import Aggregate, Binary, Constant, Node, Unary
from headrace.requests import dtype_of
from headrace.views import FeatureView

Record = Mapping[str, Any]
"""An event's fields (times in µs, null as None), with ``_partition`` and ``_offset``."""


def naive(view: FeatureView, events: Iterable[Record], key: Sequence[str | int], at_us: int) -> dict[str, float | None]:
    """The features of one entity at a moment, given that exactly these events are included.

    Args:
        view: the feature view.
        events: events of the view's topic in the order of arrival; a repeated id counts once.
        key: the entity, in the order of its key fields.
        at_us: the moment of reading.

    >>> import headrace as hr
    >>> seen = hr.Event("seen", fields={"who": hr.string(), "at": hr.timestamp()}, time="at")
    >>> who = hr.Entity("who", keys={"who": hr.string()})
    >>> view = hr.FeatureView("v", entity=who, event=seen, features={"n": hr.count().over("60us")}, tile="10us")
    >>> rows = [{"who": "a", "at": at, "_partition": 0, "_offset": at} for at in (3, 41, 58, 65)]
    >>> naive(view, rows, ["a"], 61)
    {'n_60us': 4.0}
    """
    own = [event for event in events if [event[field] for field in view.key_fields] == list(key)]
    own = _once(view, own)
    if view.where is not None:
        own = [event for event, kept in zip(own, _evaluate(view, view.where, own), strict=True) if kept]
    return {feature.name: _value(view, feature.node, own, at_us) for feature in view.features}


def _once(view: FeatureView, events: list[Record]) -> list[Record]:
    if view.dedupe == 0:
        return events
    identity = (view.event.id,) if view.event.id is not None else tuple(view.event.fields)
    first: dict[tuple[Any, ...], Record] = {}
    for event in events:
        first.setdefault(tuple(event.get(name) for name in identity), event)
    return list(first.values())


def _value(view: FeatureView, node: Node, events: list[Record], at_us: int) -> float | None:
    if isinstance(node, Aggregate):
        return _aggregate(view, node, events, at_us)
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Unary):
        operand = _value(view, node.operand, events, at_us)
        return None if operand is None else -operand
    assert isinstance(node, Binary)
    left, right = (_value(view, side, events, at_us) for side in (node.left, node.right))
    if node.op == "default":
        return right if left is None else left
    if left is None or right is None or (node.op == "/" and right == 0):
        return None
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1.0)}[node.op]


def _aggregate(view: FeatureView, leaf: Aggregate, events: list[Record], at_us: int) -> float | None:
    if leaf.where is not None:
        events = [event for event, kept in zip(events, _evaluate(view, leaf.where, events), strict=True) if kept]
    if leaf.window_us is not None:
        tile = view.ladder.tile_us(leaf.window_us)
        first, last = (at_us - leaf.window_us) // tile, at_us // tile
        events = [event for event in events if first <= event[view.event.time] // tile <= last]
    scale = 1 if leaf.field is None else int(1 / Decimal(view.event.fields[leaf.field].quantum or "1"))
    observations = []
    for event in events:
        value = 0.0 if leaf.field is None else event[leaf.field]
        if value is not None:
            value = float(value) + 0.0  # -0.0 becomes 0.0
            order = event[view.event.time], event["_partition"], event["_offset"]
            observations.append(Observation(*order, value, round(value * scale)))
    found = algebras()[leaf.op].naive(observations, Reading(at_us, scale, dict(leaf.params)))
    return leaf.default if found is None else found


def _evaluate(view: FeatureView, where: Any, events: list[Record]) -> list[bool]:
    columns = {}
    for name in where.fields():
        dtype = dtype_of(view.event.fields[name])
        empty = None if dtype == np.dtype(object) else np.nan
        columns[name] = np.array([empty if event[name] is None else event[name] for event in events], dtype)
    return [bool(kept) for kept in where.evaluate(columns)] if events else []
