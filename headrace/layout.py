"""The physical layout of a view's states: which accumulators of which inputs are kept where.

    fields    the distinct aggregated event fields                    "amount"
    masks     the distinct `where=` filters of the aggregations       amount > 100
    inputs    the distinct (field, mask) pairs                        amount where amount > 100
    sections  one per level of the ladder, and one for the lifetime   tiles of 10s: count, sum of input 0 …

Everything is sorted by its meaning, so that reordering or renaming features moves no byte. `program.py` writes the layout
as the opcode table that the kernel interprets; `states.py` documents the bytes. What may not live here: numba, state bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from headrace.aggregations import Accumulator, algebras
from headrace.fields import FieldType
from headrace.fingerprints import canonical_json
from headrace.windows import MAX_TILES

if TYPE_CHECKING:
    from headrace.expressions import Expression
    from headrace.features import Aggregate
    from headrace.views import FeatureView

STATE_VERSION: Final = 2
"""The version of the state bytes; the first byte of every state."""

RAW_LIMIT: Final = 32
"""An entity with at most this many retained events keeps the events themselves."""

MAX_SCALE: Final = 10**12
_MAX_RETAINED_TILES: Final = 2 * MAX_TILES
_SUM_BOUND: Final = 2.0**62
_SQUARES_BOUND: Final = 2.0**47
_INTEGER_BOUND: Final = 2.0**53


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """What the kernel knows of an aggregated field.

    Args:
        name: of the event field.
        scale: whole quanta per one, such as 100 for a quantum of 0.01.
        nullable: whether NaN may come.
        bound: values must be smaller than this in magnitude, so that no accumulator can overflow.
    """

    name: str
    scale: int
    nullable: bool
    bound: float


@dataclass(frozen=True, slots=True)
class Input:
    """What an accumulator sees: a field (-1: only events) past a filter (-1: all events)."""

    field: int
    mask: int


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One accumulator of one input."""

    input: int
    op: Accumulator


@dataclass(frozen=True, slots=True)
class Level:
    """The tiles of one size.

    Args:
        tile_us: their size.
        window_us: the longest window that reads them: how far back they are kept.
        slots: what each tile keeps, sorted.
    """

    tile_us: int
    window_us: int
    slots: tuple[Slot, ...]

    def capacity(self, tolerance_us: int) -> int:
        """The most tiles that can be retained at once."""
        return (self.window_us + tolerance_us) // self.tile_us + 2


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of one view; make it with `Layout.of`.

    Args:
        view: whose states these are.
        fingerprint: the first 48 bits of the view's layout fingerprint, which every state carries.
        fields: see the module.
        masks: see the module.
        inputs: see the module.
        levels: from small to large tiles.
        lifetime: what is kept over all events.
        program: the opcode table for the kernel.
    """

    view: FeatureView
    fingerprint: int
    fields: tuple[FieldFacts, ...]
    masks: tuple[Expression, ...]
    inputs: tuple[Input, ...]
    levels: tuple[Level, ...]
    lifetime: tuple[Slot, ...]
    program: npt.NDArray[np.int64]

    @classmethod
    def of(cls, view: FeatureView) -> Layout:
        """The layout of a view, computed once."""
        return _layout(view)

    @property
    def orders_events(self) -> bool:
        """Whether a value may depend on which of two events of one moment comes first: their partitions and offsets say."""
        slots = [slot for level in self.levels for slot in level.slots] + list(self.lifetime)
        return any(slot.op in (Accumulator.FIRST, Accumulator.LAST) for slot in slots)

    @property
    def n_features(self) -> int:
        """How many values a read returns."""
        return len(self.view.features)


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of a layout that decides the bytes; it needs no fingerprint, because the fingerprint is made of it."""

    fields: tuple[FieldFacts, ...]
    masks: tuple[Expression, ...]
    inputs: tuple[Input, ...]
    levels: tuple[Level, ...]
    lifetime: tuple[Slot, ...]

    def input_of(self, leaf: Aggregate) -> int:
        """The index of the input that a leaf aggregates."""
        return self.inputs.index(Input(self._field(leaf), self._mask(leaf)))

    def _field(self, leaf: Aggregate) -> int:
        return -1 if leaf.field is None else [field.name for field in self.fields].index(leaf.field)

    def _mask(self, leaf: Aggregate) -> int:
        if leaf.where is None:
            return -1
        return [_text(mask) for mask in self.masks].index(_text(leaf.where))


@lru_cache(maxsize=1024)
def _layout(view: FeatureView) -> Layout:
    from headrace.program import encode_program  # it reads plans

    plan = plan_of(view)
    fingerprint = int(view.layout_fingerprint[:12], 16)
    program = encode_program(view, plan, fingerprint)
    return Layout(view, fingerprint, plan.fields, plan.masks, plan.inputs, plan.levels, plan.lifetime, program)


def plan_of(view: FeatureView) -> Plan:
    """What a view keeps.

    Raises:
        DefinitionError: a quantum that does not divide one, or a tolerance that would keep too many tiles.
    """
    leaves = view.aggregates
    names = sorted({leaf.field for leaf in leaves if leaf.field is not None})
    fields = tuple(_field_facts(view, name, leaves) for name in names)
    by_text = {_text(leaf.where): leaf.where for leaf in leaves if leaf.where is not None}
    masks = tuple(by_text[text] for text in sorted(by_text))
    draft = Plan(fields, masks, (), (), ())
    inputs = sorted({(draft._field(leaf), draft._mask(leaf)) for leaf in leaves})
    draft = Plan(fields, masks, tuple(Input(*pair) for pair in inputs), (), ())
    levels = tuple(
        _level(view, tile_us, [leaf for leaf in leaves if _tile_us(view, leaf) == tile_us], draft)
        for tile_us in view.ladder.tiles_us
    )
    lifetime = _slots([leaf for leaf in leaves if leaf.window_us is None], draft)
    return Plan(fields, masks, draft.inputs, levels, lifetime)


def _tile_us(view: FeatureView, leaf: Aggregate) -> int | None:
    return None if leaf.window_us is None else view.ladder.tile_us(leaf.window_us)


def _level(view: FeatureView, tile_us: int, leaves: Iterable[Aggregate], plan: Plan) -> Level:
    leaves = list(leaves)
    level = Level(tile_us, max(leaf.window_us or 0 for leaf in leaves), _slots(leaves, plan))
    if level.capacity(view.tolerance_us) > _MAX_RETAINED_TILES:
        raise view.broken(
            f"windows and tolerance keep at most {_MAX_RETAINED_TILES:,} tiles of one size",
            f"tiles of {tile_us:,} µs with a tolerance of {view.tolerance_us:,} µs would be {level.capacity(view.tolerance_us):,}",
            "lower the tolerance or declare larger tiles",
        )
    return level


def _slots(leaves: Iterable[Aggregate], plan: Plan) -> tuple[Slot, ...]:
    slots = {Slot(plan.input_of(leaf), op) for leaf in leaves for op in algebras()[leaf.op].accumulators}
    return tuple(sorted(slots))


def _text(expression: Expression) -> str:
    return canonical_json(expression.canonical())


def _field_facts(view: FeatureView, name: str, leaves: Iterable[Aggregate]) -> FieldFacts:
    field = view.event.fields[name]
    scale = 1 / Decimal(field.quantum or "1")
    if scale != scale.to_integral_value() or not 1 <= scale <= MAX_SCALE:
        raise view.broken(
            "the quantum of an aggregated field is a whole fraction of one, from 1 to 0.000000000001",
            f"field {name!r} of event {view.event.name!r} has quantum {field.quantum!r}",
            "declare quantum='0.01' to sum to the cent, or '1' for whole numbers",
        )
    ops = {op for leaf in leaves if leaf.field == name for op in algebras()[leaf.op].accumulators}
    bounds = [_INTEGER_BOUND] if field.type is FieldType.INT64 else []
    if Accumulator.SUM in ops:
        bounds.append(_SUM_BOUND / float(scale))
    if Accumulator.SUM_SQUARES in ops:
        bounds.append(_SQUARES_BOUND / float(scale))
    return FieldFacts(name, int(scale), field.nullable, min(bounds, default=float("inf")))


def aggregate_bounds(view: FeatureView) -> dict[str, float]:
    """For each aggregated field, what its values must be smaller than in magnitude; part of the event's contract.

    Sums are kept in 128 bits, so the bounds are wide: 2**62 quanta, for var and std 2**47 quanta, for integers 2**53.
    """
    return {field.name: field.bound for field in plan_of(view).fields}


def describe(view: FeatureView) -> dict[str, object]:
    """The physical facts, as JSON-able data: they are hashed into the view's layout fingerprint."""
    plan = plan_of(view)

    def described(slots: Iterable[Slot]) -> list[object]:
        return [[slot.op.name.lower(), slot.input] for slot in slots]

    return {
        "state_version": STATE_VERSION,
        "fields": [[field.name, field.scale] for field in plan.fields],
        "masks": [mask.canonical() for mask in plan.masks],
        "inputs": [[item.field, item.mask] for item in plan.inputs],
        "levels": [[level.tile_us, level.window_us, described(level.slots)] for level in plan.levels],
        "lifetime": described(plan.lifetime),
    }


def merge_bounds(views: Iterable[FeatureView]) -> Mapping[str, float]:
    """The bounds of several views of one event: the tightest of each field.

    Raises:
        DefinitionError: as `plan_of`.
    """
    merged: dict[str, float] = {}
    for view in views:
        for name, bound in aggregate_bounds(view).items():
            merged[name] = min(bound, merged.get(name, bound))
    return merged
