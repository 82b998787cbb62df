"""Streams for tests: seeded, hostile, and in arrival order.

A generated stream has events of equal time, at the edges of tiles, late ones, repeated ones, nulls, values that are no whole
quanta and values of every size, in several partitions. Equal seeds give equal streams on every machine.
What may not live here: a test framework; users' own test suites use this module too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.fields import Field, FieldType
from headrace.oracle import columns_of
from headrace.views import FeatureView

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a generated stream looks.

    Args:
        events: how many arrive, repeated ones included.
        entities: how many there are.
        partitions: of the topic.
        span_us: from the first event time to the last, about.
        late: share of events that arrive late, by up to `lateness_us`.
        lateness_us: see `late`.
        repeated: share of events that arrive again soon, with an offset of their own.
        null: share of nulls in nullable fields.
        rough: share of floats that are no whole quanta; 1e3 times larger or smaller ones are among them.
        start_us: about the first event time; may be negative.
    """

    events: int = 200
    entities: int = 3
    partitions: int = 3
    span_us: int = 1_000
    late: float = 0.2
    lateness_us: int = 100
    repeated: float = 0.05
    null: float = 0.1
    rough: float = 0.1
    start_us: int = 0


def generate(view: FeatureView, shape: Shape, seed: int) -> list[Record]:
    """Records of a view's event in arrival order, with `_partition` and `_offset`; offsets rise within a partition."""
    chance = random.Random(seed)
    times = sorted(shape.start_us + chance.randrange(shape.span_us) for _ in range(shape.events))
    edges = view.ladder.tiles_us or (10,)
    drawn: list[Record] = []
    for number, on_time_us in enumerate(times):
        if drawn and chance.random() < shape.repeated:
            # A producer's retry goes to the same partition; the copy with the lower offset is the one that counts.
            drawn.append(dict(chance.choice(drawn[-3:])))
            continue
        time_us = on_time_us
        if chance.random() < shape.late:
            time_us -= chance.randrange(shape.lateness_us)
        if chance.random() < 0.1:
            time_us -= time_us % chance.choice(edges)
        if drawn and chance.random() < 0.1:
            time_us = drawn[-1][view.event.time]
        drawn.append(_record(view, shape, chance, number, time_us))
        drawn[-1]["_partition"] = chance.randrange(shape.partitions)
    offsets = [0] * shape.partitions
    for record in drawn:
        partition = record["_partition"]
        record["_offset"] = offsets[partition]
        offsets[partition] += chance.choice((1, 1, 1, 2))  # transactions and compaction leave holes
    return drawn


def _record(view: FeatureView, shape: Shape, chance: random.Random, number: int, time_us: int) -> Record:
    record = {name: _field_value(field, shape, chance) for name, field in view.event.fields.items()}
    for name in view.key_fields:
        entity = chance.randrange(shape.entities)
        record[name] = f"e{entity}" if view.event.fields[name].type is FieldType.STRING else entity
    record[view.event.time] = time_us
    if view.event.id is not None:
        is_text = view.event.fields[view.event.id].type is FieldType.STRING
        record[view.event.id] = f"id{number}" if is_text else number
    return record


def _field_value(field: Field, shape: Shape, chance: random.Random) -> Any:
    if field.nullable and chance.random() < shape.null:
        return None
    match field.type:
        case FieldType.STRING:
            return chance.choice(field.one_of or ("a", "b", "c"))
        case FieldType.BOOLEAN:
            return chance.random() < 0.5
        case FieldType.INT64:
            return chance.choice((0, 1, -1, chance.randint(-500, 500), chance.randint(-(10**9), 10**9)))
        case FieldType.TIMESTAMP:
            return chance.randrange(10**6)
        case FieldType.FLOAT64:
            if chance.random() < shape.rough:
                return chance.uniform(-1, 1) * 10.0 ** chance.randint(-3, 3)
            return chance.choice((0.1, -0.0, 0.0, round(chance.uniform(-100, 100), 2), float(chance.randint(-9, 9))))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Records as the columns that the kernel's `prepare` and `update` take.

    Args:
        columns: the fields that the view needs.
        partition: one per record.
        offset: one per record.
        id_hash: one per record; equal exactly for equal ids.
        slot: one per record: the index of its entity in `keys`.
        keys: the entity keys.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    id_hash: npt.NDArray[np.uint64]
    slot: npt.NDArray[np.int32]
    keys: tuple[tuple[Any, ...], ...]


def arrivals(view: FeatureView, records: Sequence[Record], keys: Iterable[tuple[Any, ...]] = ()) -> Arrivals:
    """Turn records into columns.

    Args:
        view: whose entities the records are sorted to.
        records: in arrival order.
        keys: entities that come first, so that several calls agree on slots.
    """
    slots = {key: slot for slot, key in enumerate(keys)}
    slot = [slots.setdefault(tuple(record[name] for name in view.key_fields), len(slots)) for record in records]
    return Arrivals(
        columns_of(view, view.columns, records),
        np.array([record["_partition"] for record in records], dtype=np.int32),
        np.array([record["_offset"] for record in records], dtype=np.int64),
        np.array([_identity(view, record) for record in records], dtype=np.uint64),
        np.array(slot, dtype=np.int32),
        tuple(slots),
    )


def _identity(view: FeatureView, record: Record) -> int:
    names = [view.event.id] if view.event.id else list(view.event.fields)
    # Any hash will do; this one is the same in every process, unlike Python's.
    return random.Random(repr([record[name] for name in names])).getrandbits(64)


def interleaved(records: Sequence[Record], seed: int) -> list[Record]:
    """The same records in another order of arrival that keeps the offsets of each partition rising."""
    chance = random.Random(seed)
    queues: dict[int, list[Record]] = {}
    for record in records:
        queues.setdefault(record["_partition"], []).append(record)
    waiting = {partition: list(reversed(queue)) for partition, queue in queues.items()}
    mixed = []
    while waiting:
        partition = chance.choice(sorted(waiting))
        taken = min(chance.randint(1, 20), len(waiting[partition]))
        mixed += [waiting[partition].pop() for _ in range(taken)]
        if not waiting[partition]:
            del waiting[partition]
    return mixed


def splits(count: int, seed: int) -> list[slice]:
    """Some way to cut a sequence into batches."""
    chance = random.Random(seed)
    cuts = sorted({0, count, *(chance.randint(0, count) for _ in range(chance.randint(0, 6)))})
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)] or [slice(0, 0)]
