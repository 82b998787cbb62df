"""The laws of the aggregations, as functions that raise where one is broken. Existing in `aggregations/` is what enrols one.

    identity       no event: the empty value; folding nothing changes nothing
    permutation    any order of arrival gives the same values and the same canonical bytes
    splits         so do any batches
    recomputation  merged tiles equal the naive definition over the events
    purity         reading changes nothing, and reads the same again
    round trip     bytes -> state -> bytes is the identity
    bounded size   a state does not grow with the number of its events

What may not live here: a test framework, so that authors of aggregations can call them from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from headrace import features as constructors
from headrace import kernel
from headrace.aggregations import algebras
from headrace.entities import Entity
from headrace.events import Event
from headrace.features import Aggregation, Node
from headrace.fields import float64, string, timestamp
from headrace.oracle import naive
from headrace.testing import Record, Shape, arrivals, generate, interleaved, splits
from headrace.views import FeatureView

Law = Callable[[FeatureView, int], None]
_KEY: Final = ("e0",)
_SHAPE: Final = Shape(events=120, entities=1, span_us=1_500, lateness_us=400)


class LawBroken(AssertionError):  # noqa: N818  (it reads as a sentence)
    """An aggregation breaks a law."""


def view_of(name: str) -> FeatureView:
    """A view with one aggregation over two windows and over the lifetime."""
    fields = {"id": string(), "card": string(), "at": timestamp(), "amount": float64(nullable=True)}
    event = Event("paid", fields=fields, time="at", id="id")
    field = "amount" if algebras()[name].takes_field else None
    # The constructor knows the parameters' defaults; an aggregation without one has none.
    make = getattr(constructors, name, None)
    aggregation = Aggregation(name, field) if make is None else make(*([field] if field else []))
    nodes: dict[str, Node] = {"w": aggregation.over("60us", "700us"), "l": aggregation.lifetime()}
    entity = Entity("card", keys={"card": string()})
    return FeatureView(f"law_{name}", entity=entity, event=event, features=nodes, tile={"60us": "10us"}, dedupe=1024)


def fold(view: FeatureView, records: Sequence[Record], seed: int = 0) -> kernel.States:
    """The state of the one entity after these records, in some batches."""
    layout, states = kernel.Layout.of(view), kernel.States.empty(1)
    for part in splits(len(records), seed):
        given = arrivals(view, records[part], [_KEY])
        batch = kernel.prepare(
            layout, given.columns, partition=given.partition, offset=given.offset, id_hash=given.id_hash
        )
        states = kernel.update(layout, states, batch, given.slot).states
    return states


def read(view: FeatureView, states: kernel.States, at_us: int) -> list[float | None]:
    """The features of the one entity at a moment."""
    row = kernel.read(kernel.Layout.of(view), states, np.array([at_us]))[0]
    return [None if math.isnan(value) else value for value in row.tolist()]


def _require(condition: bool, view: FeatureView, law: str, detail: object) -> None:
    if not condition:
        raise LawBroken(f"{view.name.removeprefix('law_')} breaks the law of {law}: {detail}")


def identity(view: FeatureView, seed: int) -> None:
    """No event gives the naive value over nothing; an empty batch changes nothing."""
    found = read(view, kernel.States.empty(1), seed)
    wanted = list(naive(view, [], {"card": _KEY[0]}, seed).values())
    _require(found == wanted, view, "identity", f"{found} without events, not {wanted}")
    states = fold(view, generate(view, _SHAPE, seed))
    nothing = arrivals(view, [], [_KEY])
    batch = kernel.prepare(
        kernel.Layout.of(view),
        nothing.columns,
        partition=nothing.partition,
        offset=nothing.offset,
        id_hash=nothing.id_hash,
    )
    after = kernel.update(kernel.Layout.of(view), states, batch, nothing.slot)
    _require(after.states.to_list() == states.to_list(), view, "identity", "an empty batch changed a state")


def permutation(view: FeatureView, seed: int) -> None:
    """Another order of arrival, with offsets still rising, gives the same canonical bytes and values."""
    records = generate(view, _SHAPE, seed)
    one, two = fold(view, records), fold(view, interleaved(records, seed))
    layout = kernel.Layout.of(view)
    _require(
        kernel.canonical(layout, one[0]) == kernel.canonical(layout, two[0]), view, "permutation", f"seed {seed}, bytes"
    )
    at_us = kernel.header(one[0]).newest_us
    _require(read(view, one, at_us) == read(view, two, at_us), view, "permutation", f"seed {seed}, values")


def associativity(view: FeatureView, seed: int) -> None:
    """Other batches give the same canonical bytes."""
    records, layout = generate(view, _SHAPE, seed), kernel.Layout.of(view)
    found = {kernel.canonical(layout, fold(view, records, seed + other)[0]) for other in range(3)}
    _require(len(found) == 1, view, "splits", f"seed {seed}")


def recomputation(view: FeatureView, seed: int) -> None:
    """Merged tiles, or retained events, give the naive value over all events."""
    records = generate(view, _SHAPE, seed)
    for count in (1, 10, len(records)):
        states = fold(view, records[:count], seed)
        newest = kernel.header(states[0]).newest_us
        for at_us in (newest, newest + 7, newest + 65, newest + 703):
            found = read(view, states, at_us)
            wanted = list(naive(view, records[:count], {"card": _KEY[0]}, at_us).values())
            _require(found == wanted, view, "recomputation", f"seed {seed}, {count} events: {found}, not {wanted}")


def purity(view: FeatureView, seed: int) -> None:
    """Reading changes nothing, and reads the same again."""
    states = fold(view, generate(view, _SHAPE, seed))
    before, at_us = states.to_list(), kernel.header(states[0]).newest_us
    values = [read(view, states, at_us) for _ in range(2)]
    _require(values[0] == values[1] and states.to_list() == before, view, "purity", f"seed {seed}")


def round_trip(view: FeatureView, seed: int) -> None:
    """The canonical bytes of canonical bytes are themselves, and read the same as the state."""
    states, layout = fold(view, generate(view, _SHAPE, seed)), kernel.Layout.of(view)
    canonical = kernel.canonical(layout, states[0])
    _require(kernel.canonical(layout, canonical) == canonical, view, "round trip", f"seed {seed}, bytes")
    at_us = kernel.header(canonical).newest_us
    same = read(view, kernel.States.from_list([canonical]), at_us) == read(view, states, at_us)
    _require(same, view, "round trip", f"seed {seed}, values")


def bounded_size(view: FeatureView, seed: int) -> None:
    """Ten times the events in the same span give a state of about the same size."""
    sizes = []
    for events in (1_000, 10_000):
        shape = Shape(events=events, entities=1, span_us=1_500, lateness_us=400, partitions=1, repeated=0.0)
        sizes.append(len(kernel.canonical(kernel.Layout.of(view), fold(view, generate(view, shape, seed))[0])))
    # Ids are bounded by `dedupe`, which a thousand events nearly reach; sums grow by a byte or two in each tile.
    _require(sizes[1] <= sizes[0] * 1.5 + 512, view, "bounded size", f"{sizes[0]} bytes grew to {sizes[1]}")


LAWS: Final[Mapping[str, Law]] = MappingProxyType(
    {
        law.__name__: law
        for law in (identity, permutation, associativity, recomputation, purity, round_trip, bounded_size)
    }
)
