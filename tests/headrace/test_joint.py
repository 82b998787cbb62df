"""Several views read at once: the same values as each by itself, whoever reads beside it; and what states say of their offsets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import kernel
from headrace.errors import CodecError
from headrace.testing import Record, Shape, generate
from tests.headrace.test_kernel import VIEWS, folded, payments, prepared

LAYOUTS = [kernel.Layout.of(view) for view in VIEWS.values()]
ROWS = 12


def states_of(rows: int = ROWS, seed: int = 5) -> tuple[list[bytes | None], list[list[Record]]]:
    """For each view the state of as many entities, some without one; and their events."""
    states: list[bytes | None] = []
    events = []
    for number, view in enumerate(VIEWS.values()):
        records = generate(view, Shape(events=30 * rows, entities=rows), seed=seed + number)
        found = folded(view, records, [(f"e{row}",) for row in range(rows)], seed=seed).to_list()
        found[number] = None
        states += found
        events.append(records)
    return states, events


def moments(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 2_000, rows)


def test_views_read_together_have_the_values_of_views_read_alone() -> None:
    states, events = states_of()
    at_us = moments()
    # Every other view folds an event of each request's own; some of them came through the stream already.
    own = [
        prepared(view, (records * ROWS)[::7][:ROWS], sorted({(r["card"],) for r in records}))[0] if number % 2 else None
        for number, (view, records) in enumerate(zip(VIEWS.values(), events, strict=True))
    ]
    reader = kernel.JointReader(LAYOUTS)
    for batches in ((), own):
        together = reader.read(kernel.States.from_list(states), at_us, batches)
        for number, (layout, columns) in enumerate(zip(LAYOUTS, reader.columns, strict=True)):
            mine = states[number * ROWS : number * ROWS + ROWS]
            batch = batches[number] if batches else None
            alone = kernel.read(layout, kernel.States.from_list(mine), at_us, batch)
            assert together.features[:, columns].tobytes() == np.ascontiguousarray(alone).tobytes()
            newest = [kernel.NEVER if state is None else kernel.header(state).newest_us for state in mine]
            assert together.newest_us[number].tolist() == newest


def test_threads_that_share_a_reader_do_not_meet() -> None:
    reader, at_us = kernel.JointReader(LAYOUTS), moments()
    packs = [kernel.States.from_list(states_of(seed=seed)[0]) for seed in range(4)]
    wanted = [reader.read(states, at_us).features.tobytes() for states in packs]

    def read(number: int) -> bool:
        return reader.read(packs[number % 4], at_us).features.tobytes() == wanted[number % 4]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(400)))


def test_no_rows_and_no_views_are_nothing() -> None:
    none = np.empty(0, np.int64)
    assert kernel.JointReader(LAYOUTS).read(kernel.States.empty(0), none).features.shape[0] == 0
    assert kernel.JointReader([]).read(kernel.States.empty(0), moments()).features.shape == (ROWS, 0)


def test_a_broken_state_is_named_by_its_view_and_row() -> None:
    states, _ = states_of()
    state = states[2 * ROWS + 5]
    assert state is not None
    states[2 * ROWS + 5] = state[:-3]
    name = LAYOUTS[2].view.name
    with pytest.raises(CodecError, match=f"state 5 of feature view '{name}'.*cut off or broken"):
        kernel.JointReader(LAYOUTS).read(kernel.States.from_list(states), moments())
    with pytest.raises(ValueError, match="4 views of 12 rows need as many states, not 1"):
        kernel.JointReader(LAYOUTS).read(kernel.States.empty(1), moments())


@given(st.lists(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2**50)), max_size=4), max_size=5))
def test_included_offsets_are_those_of_the_headers(wanted: list[list[tuple[int, int]]]) -> None:
    view = VIEWS["lifetime"]
    states: list[bytes | None] = []
    for places in wanted:
        records = [
            record | {"_partition": partition, "_offset": offset}
            for record, (partition, offset) in zip(payments([1.0] * len(places)), sorted(places), strict=True)
        ]
        states.append(folded(view, records, [("c",)], seed=1).to_list()[0] if records else None)
    found = kernel.included(kernel.States.from_list(states))
    rows = list(zip(found.partition.tolist(), found.offset.tolist(), strict=True))
    ends = [0, *found.ends.tolist()]
    for number, state in enumerate(states):
        expected = () if state is None else kernel.header(state).offsets
        assert tuple(rows[ends[number] : ends[number + 1]]) == expected


@pytest.mark.parametrize("length", [5, 17, 20])
def test_a_broken_list_of_offsets_is_refused(length: int) -> None:
    state = folded(VIEWS["windowed"], payments([1.0]), [("c",)], seed=1)[0]
    with pytest.raises(CodecError):
        kernel.included(kernel.States.from_list([state, state[:length]]))


@given(st.lists(st.binary(max_size=70), max_size=6))
def test_a_list_is_hashed_as_each_of_it(values: list[bytes]) -> None:
    assert kernel.hash_list(values) == [kernel.hash_bytes(value) for value in values]
