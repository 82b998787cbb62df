"""A step program folds, before each row, exactly the events that the row may see: checked against the definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_training.programs import FOLD, READ, Program, Vectors, by_event_time, by_offsets, divide

seeds = st.integers(0, 2**32 - 1)


def folded_before(program: Program, rows: int) -> list[list[int]]:
    """For each row: the events folded in its chain before it is read."""
    seen: list[list[int]] = [[] for _ in range(rows)]
    folded: list[int] = []
    events, targets = iter(program.events.tolist()), iter(program.rows.tolist())
    chain = None
    for slot, kind in zip(program.slot.tolist(), program.kind.tolist(), strict=True):
        if slot != chain:
            chain, folded = slot, []
        if kind == FOLD:
            folded.append(next(events))
        else:
            seen[next(targets)] = list(folded)
    return seen


def reads_every_row_once(program: Program, rows: int) -> bool:
    return sorted(program.rows.tolist()) == list(range(rows)) and int((program.kind == READ).sum()) == rows


@given(seeds, st.integers(0, 60), st.integers(0, 25), st.integers(1, 5), st.integers(0, 4))
@settings(deadline=None)
def test_a_row_sees_the_strictly_earlier_events_of_its_entity(seed, events, rows, slots, lag):
    r = np.random.default_rng(seed)
    e_slot, e_us = r.integers(0, slots, events).astype(np.int32), r.integers(0, 12, events)
    r_slot, r_us = r.integers(0, slots, rows).astype(np.int32), r.integers(0, 12, rows)
    program = by_event_time(e_slot, e_us, r_slot, r_us, slots=slots, lag_us=lag)
    assert reads_every_row_once(program, rows)
    for row, folded in enumerate(folded_before(program, rows)):
        expected = np.flatnonzero((e_slot == r_slot[row]) & (e_us + lag < r_us[row]))
        assert sorted(folded) == expected.tolist()
        assert np.all(np.diff(e_us[folded]) >= 0), "events are folded in event-time order"


def vectors(lists: list[list[tuple[int, int]]]) -> Vectors:
    flat = [entry for one in lists for entry in one]
    start = np.cumsum([0, *map(len, lists)])
    return Vectors(start, np.array([p for p, _ in flat], np.int32), np.array([o for _, o in flat], np.int64))


def check_offsets(e_slot, e_partition, e_offset, r_slot, lists, slots):
    program = by_offsets(e_slot, e_partition, e_offset, r_slot, vectors(lists), slots=slots)
    assert reads_every_row_once(program, len(lists))
    for row, folded in enumerate(folded_before(program, len(lists))):
        upto = dict(lists[row])
        expected = [
            e
            for e in range(len(e_slot))
            if e_slot[e] == r_slot[row] and e_offset[e] <= upto.get(int(e_partition[e]), -1)
        ]
        assert sorted(folded) == expected
        for partition in set(e_partition.tolist()):
            assert np.all(np.diff([e_offset[e] for e in folded if e_partition[e] == partition]) > 0)
    return program


@given(seeds, st.integers(0, 60), st.integers(0, 20), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None)
def test_a_served_row_sees_exactly_its_vector_also_when_vectors_do_not_grow(seed, events, rows, slots, partitions):
    """Vectors at random: most of them do not continue each other, so chains restart."""
    r = np.random.default_rng(seed)
    e_partition = r.integers(0, partitions, events).astype(np.int32)
    e_offset = np.zeros(events, np.int64)
    for p in range(partitions):
        mine = e_partition == p
        e_offset[mine] = r.permutation(int(mine.sum()) * 2)[: int(mine.sum())]
    lists = []
    for _ in range(rows):
        some = r.permutation(partitions)[: r.integers(0, partitions + 1)]
        lists.append(sorted((int(p), int(r.integers(0, 40))) for p in some))
    check_offsets(
        r.integers(0, slots, events).astype(np.int32), e_partition, e_offset, r.integers(0, slots, rows).astype(np.int32),
        lists, slots,
    )  # fmt: skip


def test_growing_vectors_are_one_chain_and_fold_every_event_once():
    r = np.random.default_rng(4)
    e_partition = np.repeat(np.arange(3), 40).astype(np.int32)
    e_offset = np.tile(np.arange(40), 3)
    grown = {0: -1, 1: -1, 2: -1}
    lists = []
    for _ in range(50):
        p = int(r.integers(0, 3))
        grown[p] = min(39, grown[p] + int(r.integers(1, 4)))
        lists.append([(q, o) for q, o in grown.items() if o >= 0])
    shuffled = r.permutation(50)
    program = check_offsets(
        np.zeros(120, np.int32), e_partition, e_offset, np.zeros(50, np.int32), [lists[i] for i in shuffled], 1
    )
    assert len(np.unique(program.slot)) == 1
    assert len(program.events) == len(np.unique(program.events))


def test_a_row_without_a_state_sees_nothing_although_its_entity_has_events():
    program = check_offsets(
        np.zeros(2, np.int32), np.zeros(2, np.int32), np.arange(2), np.zeros(2, np.int32), [[], [(0, 1)]], 1
    )
    assert program.kind.tolist() == [READ, FOLD, FOLD, READ]


@given(seeds, st.integers(0, 80), st.integers(1, 30), st.integers(1, 9), st.integers(1, 12))
@settings(deadline=None)
def test_parts_cover_the_program_and_never_cut_an_entity(seed, events, rows, slots, parts):
    r = np.random.default_rng(seed)
    program = by_event_time(
        r.integers(0, slots, events).astype(np.int32), r.integers(0, 50, events),
        r.integers(0, slots, rows).astype(np.int32), r.integers(0, 50, rows), slots=slots,
    )  # fmt: skip
    pieces = divide(program, parts)
    assert len(pieces) <= parts
    for which, total in ((0, len(program)), (1, len(program.events)), (2, len(program.rows))):
        ends = [(piece[which].start, piece[which].stop) for piece in pieces]
        assert [a for a, _ in ends] == [0, *[b for _, b in ends[:-1]]]
        assert ends[-1][1] == total
    for steps, picked, read in pieces:
        kinds = program.kind[steps]
        assert (kinds == FOLD).sum() == picked.stop - picked.start
        assert (kinds == READ).sum() == read.stop - read.start
    slot_sets = [set(program.slot[steps].tolist()) for steps, _, _ in pieces]
    assert sum(map(len, slot_sets)) == len(set(program.slot.tolist()))


def test_an_empty_program_has_no_parts():
    empty = np.zeros(0, np.int64)
    assert divide(by_event_time(empty.astype(np.int32), empty, empty.astype(np.int32), empty, slots=1), 4) == []
