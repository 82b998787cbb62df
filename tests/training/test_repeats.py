"""Repeated events in sweeps: the values are those of the stream, whatever the order, the mode and the number of partitions."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace import kernel
from headrace.testing import Record, arrivals, interleaved
from headrace_schemas.tables import EVENT_TIME, OFFSET, PARTITION
from headrace_training.lookups import ID_HASH, PackedKeys, Reads, read_past
from headrace_training.programs import Vectors

CARDS = ("a", "b", "c")
EVENT = hr.Event(
    "paid",
    fields={"id": hr.string(), "card": hr.string(), "at": hr.timestamp(), "amount": hr.float64()},
    time="at",
    id="id",
)
VIEW = hr.FeatureView(
    "spending",
    entity=hr.Entity("card", keys={"card": hr.string()}),
    event=EVENT,
    features={"n": hr.count().over("100us", "2000us"), "sum": hr.sum("amount").lifetime()},
    dedupe=3,
)
LAYOUT = kernel.Layout.of(VIEW)
KEYS = [(card,) for card in CARDS]


def stream(seed: int, *, elsewhere: bool) -> list[Record]:
    """400 payments over 3 partitions, some late, some twice: soon, or behind more events than are remembered.

    Copies in another partition come soon: the only ones of which the stream promises that they count once.
    """
    chance = random.Random(seed)
    drawn: list[Record] = []
    for number in range(400):
        drawn.append(
            {
                "id": f"id{number}",
                "card": chance.choice(CARDS),
                "at": number * 5 - chance.choice((0, 0, 0, 0, 300)),
                "amount": float(chance.randint(1, 99)),
                "_partition": chance.randrange(3),
            }
        )
        if chance.random() < 0.2:
            again = dict(drawn[-min(len(drawn), chance.choice((1, 2) if elsewhere else (1, 2, 4, 40)))])
            drawn.append(again)
        elif elsewhere and chance.random() < 0.2:
            drawn.append(drawn[-1] | {"_partition": (drawn[-1]["_partition"] + 1) % 3})
    return [record | {"_offset": offset} for offset, record in enumerate(drawn)]


def log_of(records: list[Record]) -> pl.LazyFrame:
    given = arrivals(VIEW, records, KEYS)
    frame = pl.DataFrame([{k: v for k, v in record.items() if not k.startswith("_")} for record in records])
    return frame.with_columns(
        pl.Series(PARTITION, given.partition),
        pl.Series(OFFSET, given.offset),
        pl.Series(EVENT_TIME, frame["at"]),
        pl.Series(ID_HASH, given.id_hash),
    ).lazy()


def served(records: list[Record], *, every: int) -> tuple[list[bytes | None], list[list[bytes | None]]]:
    """The states after all records, and after each so many of them."""
    states, passed = kernel.States.empty(len(KEYS)), []
    for at in range(0, len(records), every):
        given = arrivals(VIEW, records[at : at + every], KEYS)
        columns = {"partition": given.partition, "offset": given.offset, "id_hash": given.id_hash}
        states = kernel.update(LAYOUT, states, kernel.prepare(LAYOUT, given.columns, **columns), given.slot).states
        passed.append(states.to_list())
    return passed[-1], passed


def values(states: list[bytes | None], at_us: list[int]) -> np.ndarray:
    return kernel.read(LAYOUT, kernel.States.from_list(states), np.array(at_us))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_dataset_over_everything_equals_the_states_of_the_stream(seed: int, elsewhere: bool) -> None:
    records = stream(seed, elsewhere=elsewhere)
    end = 5_000
    reads = Reads(PackedKeys.of(pl.DataFrame({"card": CARDS}), ("card",)), np.full(3, end))
    found = read_past(VIEW, log_of(records), reads)
    # Where events come through several partitions, the stream must have met both copies while they were remembered.
    streams = [records] if elsewhere else [records, interleaved(records, seed), interleaved(records, seed + 50)]
    for arriving in streams:
        assert (found == values(served(arriving, every=50)[0], [end] * 3)).all()


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_as_served_rows_equal_the_states_that_were_read(seed: int, elsewhere: bool) -> None:
    records = stream(seed, elsewhere=elsewhere)
    arriving = records if elsewhere else interleaved(records, seed)
    states = [(card, state) for step in served(arriving, every=7)[1] for card, state in zip(CARDS, step, strict=True)]
    known = [(card, state, kernel.header(state)) for card, state in states if state is not None]
    offsets = [head.offsets for _, _, head in known]
    flat = [pair for pairs in offsets for pair in pairs]
    seen = Vectors(
        np.concatenate([[0], np.cumsum([len(pairs) for pairs in offsets])]),
        np.array([partition for partition, _ in flat], np.int32),
        np.array([offset for _, offset in flat]),
    )
    at_us = [head.newest_us for _, _, head in known]
    keys = PackedKeys.of(pl.DataFrame({"card": [card for card, _, _ in known]}), ("card",))
    found = read_past(VIEW, log_of(records), Reads(keys, np.array(at_us), seen=seen))
    assert len(known) > 100
    assert (found == values([state for _, state, _ in known], at_us)).all()
