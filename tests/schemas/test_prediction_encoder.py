"""Whole answers encoded at once: byte for byte what fastavro writes of their records."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace import kernel
from headrace_schemas.prediction_encoder import AnsweredRows, LookupFacts, PredictionEncoder
from headrace_schemas.predictions import LookupRecord, PredictionCodec, PredictionRecord

EVENT = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp()}, time="at")
CARD = hr.Entity("card", keys={"card": hr.string()})
LAYOUT = kernel.Layout.of(hr.FeatureView("v", entity=CARD, event=EVENT, features={"n": hr.count().over("1h")}))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
LONG = st.integers(-(2**63) + 1, 2**63 - 1)
TIME = st.integers(-(2**50), 2**50)
PLACES = st.dictionaries(st.integers(0, 0xFFFF), st.integers(0, 2**50), max_size=4)


def state_of(places: dict[int, int], newest_us: int) -> bytes | None:
    """A state that includes an event of each place, all of one moment."""
    rows = len(places)
    batch = kernel.prepare(
        LAYOUT,
        {"at": np.full(rows, newest_us)},
        partition=np.array(list(places), np.int32),
        offset=np.array(list(places.values()), np.int64),
        id_hash=np.arange(rows, dtype=np.uint64),
    )
    return kernel.update(LAYOUT, kernel.States.empty(1), batch, np.zeros(rows, np.int32)).states.to_list()[0]


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[LookupFacts], AnsweredRows, list[PredictionRecord]]:
    """An answer, and its records."""
    rows, lookups = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    facts = [LookupFacts(draw(TEXT), draw(TEXT), draw(TEXT), draw(st.booleans())) for _ in range(lookups)]
    states = [[state_of(draw(PLACES), draw(TIME)) for _ in range(rows)] for _ in facts]
    packed = kernel.States.from_list([state for own in states for state in own])
    at_us = np.array(draw(st.lists(TIME, min_size=rows, max_size=rows)), np.int64)
    read = kernel.JointReader([LAYOUT] * lookups).read(packed, at_us)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    answer = AnsweredRows(
        ids=[draw(TEXT) for _ in range(rows)],
        batch_id=draw(TEXT),
        at_us=at_us,
        served_us=draw(LONG),
        requests=[draw(st.binary(max_size=90)) for _ in range(rows)],
        keys=[[draw(st.binary(max_size=70)) for _ in range(rows)] for _ in facts],
        states=packed,
        newest_us=read.newest_us,
        features=[rng.normal(size=(rows, draw(st.integers(1, 20)))) for _ in facts],
        transforms=rng.normal(size=(rows, draw(st.integers(0, 2)))),
        output=rng.normal(size=rows),
        defaulted=draw(st.booleans()),
    )
    return facts, answer, [record_of(facts, answer, states, row) for row in range(rows)]


def record_of(
    facts: list[LookupFacts], answer: AnsweredRows, states: list[list[bytes | None]], row: int
) -> PredictionRecord:
    at_us = int(answer.at_us[row])
    return PredictionRecord(
        prediction_id=answer.ids[row],
        model="risk",
        bundle="v1",
        at_us=at_us,
        served_us=answer.served_us,
        batch_id=answer.batch_id,
        row=row,
        batch_size=len(answer.ids),
        request=answer.requests[row],
        lookups=tuple(
            lookup_of(fact, keys[row], own[row], at_us)
            for fact, keys, own in zip(facts, answer.keys, states, strict=True)
        ),
        features=b"".join(block[row].tobytes() for block in answer.features),
        transforms=answer.transforms[row].tobytes(),
        output=answer.output[row].tobytes(),
        defaulted=answer.defaulted,
    )


def lookup_of(fact: LookupFacts, key: bytes, state: bytes | None, at_us: int) -> LookupRecord:
    head = None if state is None else kernel.header(state)
    return LookupRecord(
        alias=fact.alias,
        view=fact.view,
        layout=fact.layout,
        key=key,
        found=head is not None,
        newest_us=0 if head is None else head.newest_us,
        offsets=() if head is None else head.offsets,
        ahead=head is not None and head.newest_us >= at_us,
        own=fact.own,
    )


@given(answers())
def test_an_answer_is_encoded_as_its_records_one_by_one(
    drawn: tuple[list[LookupFacts], AnsweredRows, list[PredictionRecord]],
) -> None:
    facts, answer, records = drawn
    codec = PredictionCodec()
    assert list(PredictionEncoder("risk", "v1", facts).encode(answer)) == [codec.encode(record) for record in records]


def test_a_thousand_rows_are_one_answer() -> None:
    rows = 1_000
    states = [state_of({row % 3: row}, row) if row % 5 else None for row in range(rows)]
    packed, at_us = kernel.States.from_list(states), np.arange(rows) - 1
    read = kernel.JointReader([LAYOUT]).read(packed, at_us)
    names = [str(row) for row in range(rows)]
    fact = LookupFacts("cards", "v", "f", own=False)
    answer = AnsweredRows(
        names, "b", at_us, 7, [b"{}"] * rows, [[b"k"] * rows], packed, read.newest_us, [read.features],
        np.empty((rows, 0)), np.zeros(rows), defaulted=False,
    )  # fmt: skip
    found = [PredictionCodec().decode(value) for value in PredictionEncoder("risk", "v1", [fact]).encode(answer)]
    assert found == [record_of([fact], answer, [states], row) for row in range(rows)]
