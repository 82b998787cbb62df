"""The kernel held against the naive oracle on generated streams, and its promises one by one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

import headrace as hr
from headrace import kernel
from headrace.errors import CodecError, ContractError
from headrace.oracle import naive
from headrace.testing import Record, Shape, arrivals, generate, interleaved, splits

PAID = hr.Event(
    "paid",
    fields={
        "id": hr.string(),
        "card": hr.string(),
        "at": hr.timestamp(),
        "amount": hr.float64(nullable=True),
        "items": hr.int64(),
        "fee": hr.float64(quantum="0.01"),
        "kind": hr.string(),
    },
    time="at",
    id="id",
)
CARD = hr.Entity("card", keys={"card": hr.string()})
FIELD_OPS = ("sum", "mean", "min", "max", "var", "std", "first", "last")
WINDOWS = ("60us", "200us", "700us")
IS_A = hr.col("kind") == "a"
IS_LARGE = hr.col("amount") > 1.0


def make_view(features: dict[str, object], **options: object) -> hr.FeatureView:
    return hr.FeatureView("spending", entity=CARD, event=PAID, features=features, **options)  # type: ignore[arg-type]


def windowed_features() -> dict[str, object]:
    features: dict[str, object] = {op: getattr(hr, op)("amount").over(*WINDOWS) for op in FIELD_OPS}
    features |= {f"{op}_items": getattr(hr, op)("items", where=IS_A).over("200us") for op in FIELD_OPS}
    features["n"] = hr.count().over(*WINDOWS)
    features["since"] = hr.time_since_last(where=IS_LARGE).over(*WINDOWS)
    features["share"] = (
        hr.count(where=IS_LARGE).over("60us") / hr.count().over("700us") - hr.mean("fee").over("200us") * 2
    )
    features["usual"] = hr.mean("fee", default=-1.0).over("200us")
    return features


def lifetime_features() -> dict[str, object]:
    features: dict[str, object] = {op: getattr(hr, op)("amount", where=IS_A).lifetime() for op in FIELD_OPS}
    return features | {"n": hr.count().lifetime(), "since": hr.time_since_last().lifetime()}


def mixed_features() -> dict[str, object]:
    return {"n": hr.count().over(*WINDOWS), "all": hr.count().lifetime(), "fee": hr.last("fee").lifetime()}


def prepared(
    view: hr.FeatureView, records: list[Record], keys: list[tuple[str]]
) -> tuple[kernel.EventBatch, np.ndarray]:
    given = arrivals(view, records, keys)
    layout = kernel.Layout.of(view)
    columns = (given.partition, given.offset, given.id_hash)
    batch = kernel.prepare(layout, given.columns, partition=columns[0], offset=columns[1], id_hash=columns[2])
    return batch, given.slot


def folded(view: hr.FeatureView, records: list[Record], keys: list[tuple[str]], seed: int) -> kernel.States:
    states = kernel.States.empty(len(keys))
    for part in splits(len(records), seed):
        states = kernel.update(kernel.Layout.of(view), states, *prepared(view, records[part], keys)).states
    return states


def values(row: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in row.tolist()]


def payments(amounts: list[float], step_us: int = 1) -> list[Record]:
    return [
        {"id": str(i), "card": "c", "at": 100 + i * step_us, "amount": amount, "items": i, "fee": amount, "kind": "a"}
        | {"_partition": 0, "_offset": i}
        for i, amount in enumerate(amounts)
    ]


def read_one(view: hr.FeatureView, records: list[Record], at_us: int) -> dict[str, float | None]:
    states = folded(view, records, [("c",)], seed=0)
    row = kernel.read(kernel.Layout.of(view), states, np.array([at_us]))[0]
    return dict(zip(view.feature_names, values(row), strict=True))


SHAPES = (
    Shape(events=40, span_us=1_000),
    Shape(events=400, span_us=1_000, entities=1),
    Shape(events=400, span_us=5_000, lateness_us=3_000, start_us=-2_500),
    Shape(events=200, span_us=1_000, start_us=10**15, partitions=1),
)
VIEWS = {
    "windowed": make_view(windowed_features(), tile={"60us": "10us"}, dedupe=1024),
    "tolerant": make_view(
        windowed_features(), tile={"60us": "10us"}, tolerance="150us", where=hr.col("kind") != "c", dedupe=1024
    ),
    "lifetime": make_view(lifetime_features(), dedupe=1024),
    "mixed": make_view(mixed_features(), tile={"60us": "10us"}, dedupe=1024),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_read_of_a_generated_stream_equals_the_oracle(name: str, shape: Shape) -> None:
    view = VIEWS[name]
    records = generate(view, shape, seed=hash(shape.events) + shape.span_us)
    keys = sorted({(record["card"],) for record in records})
    states = folded(view, records, keys, seed=1)
    layout = kernel.Layout.of(view)
    for key, state in zip(keys, states.to_list(), strict=True):
        if state is None:
            continue
        newest = kernel.header(state).newest_us
        moments = [newest - view.tolerance_us, newest, newest + 1, newest + 10, newest + 333, newest + 771]
        rows = kernel.read(layout, kernel.States.from_list([state] * len(moments)), np.array(moments))
        for at_us, row in zip(moments, rows, strict=True):
            wanted = naive(view, records, {"card": key[0]}, at_us)
            assert dict(zip(view.feature_names, values(row), strict=True)) == wanted


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_arrival_and_any_batches_give_the_same_canonical_bytes(name: str, seed: int) -> None:
    view = VIEWS[name]
    records = generate(view, Shape(events=300, span_us=2_000, lateness_us=1_000), seed)
    keys = sorted({(record["card"],) for record in records})
    layout = kernel.Layout.of(view)
    first = folded(view, records, keys, seed).to_list()
    for other_seed in (seed + 100, seed + 200):
        other = folded(view, interleaved(records, other_seed), keys, other_seed).to_list()
        for one, two in zip(first, other, strict=True):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                assert kernel.canonical(layout, one) == kernel.canonical(layout, two)


def test_streams_of_the_tests_reach_both_forms_of_state() -> None:
    forms = set()
    for shape in SHAPES:
        records = generate(VIEWS["windowed"], shape, seed=3)
        keys = sorted({(record["card"],) for record in records})
        forms |= {kernel.header(state).form for state in folded(VIEWS["windowed"], records, keys, 3).to_list() if state}
    assert forms == {"raw", "tiles"}


def test_folding_a_batch_again_changes_nothing() -> None:
    view = VIEWS["windowed"]
    records = generate(view, Shape(events=300), seed=5)
    keys = sorted({(record["card"],) for record in records})
    batch, slot = prepared(view, records, keys)
    layout = kernel.Layout.of(view)
    once = kernel.update(layout, kernel.States.empty(len(keys)), batch, slot)
    twice = kernel.update(layout, once.states, batch, slot)
    assert set(twice.status.tolist()) == {kernel.SKIPPED_OFFSET}
    assert not twice.dirty.any()
    assert twice.states.to_list() == once.states.to_list()


def test_a_window_of_60_on_tiles_of_10_read_at_61_counts_4() -> None:
    view = make_view({"n": hr.count().over("60us")}, tile="10us")
    times = (3, 41, 58, 65)
    records = [record | {"at": at} for record, at in zip(payments([1.0] * 4), times, strict=True)]
    assert read_one(view, records, 61) == {"n_60us": 4.0}
    assert naive(view, records, {"card": "c"}, 61) == {"n_60us": 4.0}


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_ten_payments_of_ten_cents_are_exactly_one_in_any_order(order: tuple[int, ...]) -> None:
    view = make_view({"s": hr.sum("amount").lifetime(), "m": hr.mean("amount").lifetime()})
    amounts = [0.1] * 10 + [1e6 * (i + 1) for i in order] + [-1e6 * (i + 1) for i in order]
    result = read_one(view, payments(amounts), 1_000)
    assert result["s"] == 1.0
    assert result["m"] == 1.0 / 18


def test_sums_beyond_64_bits_stay_exact() -> None:
    view = make_view({"s": hr.sum("amount").lifetime()})
    large = 2.0**41  # 2**61 millionths and more; eighty of them need 68 bits
    assert read_one(view, payments([large] * 80 + [0.25]), 1_000)["s"] == 80 * large + 0.25
    assert read_one(view, payments([large] * 80 + [0.25] + [-large] * 80), 1_000)["s"] == 0.25


def test_variance_of_large_numbers_is_the_fraction_rounded() -> None:
    view = make_view({"v": hr.var("amount").lifetime(), "s": hr.std("amount").lifetime()})
    amounts = [1e7 + x for x in (0.25, 0.5, 0.5, 1.75, 9.0)]
    exact = [Fraction(x) for x in amounts]
    mean = sum(exact) / 5
    variance = sum((x - mean) ** 2 for x in exact) / 4
    result = read_one(view, payments(amounts), 1_000)
    assert result["v"] == pytest.approx(float(variance), rel=1e-15)
    assert result["s"] == math.sqrt(result["v"] or 0.0)


def test_events_before_1970_fall_into_tiles_that_floor_downwards() -> None:
    view = make_view({"n": hr.count().over("60us")}, tile="10us")
    records = [record | {"at": at} for record, at in zip(payments([1.0] * 3), (-61, -60, -1), strict=True)]
    assert read_one(view, records, -1)["n_60us"] == 3.0  # floor(-61 / 10) = -7 = floor((-1 - 60) / 10)
    assert read_one(view, records, 0)["n_60us"] == 2.0


def test_an_event_too_late_for_every_window_is_reported_and_counted_nowhere() -> None:
    view = make_view({"n": hr.count().over("60us")}, tile="10us")
    records = [record | {"at": at} for record, at in zip(payments([1.0] * 2), (1_000, 900), strict=True)]
    batch, slot = prepared(view, records, [("c",)])
    updated = kernel.update(kernel.Layout.of(view), kernel.States.empty(1), batch, slot)
    assert updated.status.tolist() == [kernel.FOLDED, kernel.TOO_LATE]
    assert kernel.header(updated.states[0]).offsets == ((0, 1),)


def test_a_filtered_event_leaves_no_state() -> None:
    view = make_view({"n": hr.count().over("60us")}, tile="10us", where=hr.col("kind") == "z")
    batch, slot = prepared(view, payments([1.0]), [("c",)])
    updated = kernel.update(kernel.Layout.of(view), kernel.States.empty(1), batch, slot)
    assert updated.status.tolist() == [kernel.FILTERED]
    assert updated.states.to_list() == [None]
    assert not updated.dirty.any()


def test_an_own_event_counts_once_whether_or_not_it_came_through_the_stream() -> None:
    view = make_view({"n": hr.count().over("60us"), "last": hr.last("amount").over("60us")}, tile="10us")
    layout, records = kernel.Layout.of(view), payments([1.0, 2.0, 3.0], step_us=0)
    own, _ = prepared(view, records[2:], [("c",)])
    at_us = np.array([100])
    without, with_own = folded(view, records[:2], [("c",)], 0), folded(view, records, [("c",)], 0)
    assert values(kernel.read(layout, without, at_us)[0]) == [2.0, 2.0]
    assert values(kernel.read(layout, without, at_us, own)[0]) == [3.0, 3.0]
    assert values(kernel.read(layout, with_own, at_us, own)[0]) == [3.0, 3.0]
    assert values(kernel.read(layout, kernel.States.empty(1), at_us, own)[0]) == [1.0, 3.0]
    assert values(kernel.read(layout, without, at_us)[0]) == [2.0, 2.0]  # the fold was virtual


@pytest.mark.parametrize("name", VIEWS)
def test_a_sweep_in_event_time_order_equals_the_oracle_at_every_row(name: str) -> None:
    view = VIEWS[name]
    records = sorted(generate(view, Shape(events=150, entities=1), seed=9), key=lambda r: (r["at"], r["_offset"]))
    batch, slot = prepared(view, records, [("e0",)])
    once = dataclasses.replace(batch, kept=batch.kept & ~kernel.repeats(kernel.Layout.of(view), batch, slot))
    moments = sorted({record["at"] for record in records})[::5]
    kinds, indices, done = [], [], 0
    for row, at_us in enumerate(moments):
        while done < len(records) and records[done]["at"] < at_us:
            kinds, indices, done = [*kinds, kernel.FOLD], [*indices, done], done + 1
        kinds, indices = [*kinds, kernel.READ], [*indices, row]
    steps = (np.zeros(len(kinds), np.int32), np.array(kinds, np.uint8), np.array(indices))
    rows = kernel.sweep(kernel.Layout.of(view), once, np.array(moments), None, *steps)
    for at_us, row in zip(moments, rows, strict=True):
        known = [record for record in records if record["at"] < at_us]
        assert values(row) == list(naive(view, known, {"card": "e0"}, at_us).values())


SMALL_RING = make_view(mixed_features() | {"fees": hr.sum("fee").lifetime()}, tile={"60us": "10us"}, dedupe=3)


def with_repeats(seed: int, *, within: int) -> list[Record]:
    """A stream in which events come again in their own partition, some far behind more events than are remembered."""
    chance = random.Random(seed)
    records = generate(SMALL_RING, Shape(events=300, span_us=2_000, lateness_us=1_000, repeated=0.0), seed)
    for _ in range(60):
        at = chance.randrange(len(records))
        records.insert(min(len(records), at + chance.randint(1, within)), dict(records[at]))
    return [record | {"_offset": offset} for offset, record in enumerate(records)]


def plain_repeats(records: list[Record], limit: int) -> list[bool]:
    """Of each entity and partition the last ids that came."""
    rings: dict[tuple[object, object], list[object]] = {}
    found = []
    for record in records:
        ring = rings.setdefault((record["card"], record["_partition"]), [])
        found.append(record["id"] in ring)
        if not found[-1]:
            ring.append(record["id"])
            del ring[:-limit]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_a_repeat_follows_from_the_offsets_of_its_partition(seed: int) -> None:
    records = with_repeats(seed, within=60)
    keys = sorted({(record["card"],) for record in records})
    layout, wanted = kernel.Layout.of(SMALL_RING), plain_repeats(records, 3)
    batch, slot = prepared(SMALL_RING, records, keys)
    assert kernel.repeats(layout, batch, slot).tolist() == wanted
    assert 10 < sum(wanted) < 50, "some repeats come while they are remembered, some later"
    counted = [record for record, repeated in zip(records, wanted, strict=True) if not repeated]
    counted = [record | {"id": f"{record['id']} {number}"} for number, record in enumerate(counted)]
    first = folded(SMALL_RING, records, keys, seed).to_list()
    for other_seed in (seed + 100, seed + 200):
        other = interleaved(records, other_seed)
        batch, slot = prepared(SMALL_RING, other, keys)
        status = kernel.update(layout, kernel.States.empty(len(keys)), batch, slot).status
        offsets = [record["_offset"] for record, found in zip(other, status, strict=True) if found == kernel.DUPLICATE]
        assert sorted(offsets) == [record["_offset"] for record, again in zip(records, wanted, strict=True) if again]
        states = folded(SMALL_RING, other, keys, other_seed).to_list()
        for (key,), one, two in zip(keys, first, states, strict=True):
            if one is not None and two is not None:
                assert kernel.canonical(layout, one) == kernel.canonical(layout, two)
                at_us = kernel.header(one).newest_us
                row = kernel.read(layout, kernel.States.from_list([two]), np.array([at_us]))[0]
                assert values(row) == list(naive(SMALL_RING, counted, {"card": key}, at_us).values())


def test_a_late_event_that_comes_twice_counts_once_however_busy_its_entity_is() -> None:
    view = make_view({"n": hr.count().over("1000us")}, dedupe=4)
    records = payments([1.0] * 50)
    late = payments([2.0])[0] | {"id": "late", "at": 90}
    records = [*records, late, records[-1], late]
    records = [record | {"_offset": offset} for offset, record in enumerate(records)]
    assert read_one(view, records, 150)["n_1000us"] == 51.0


def test_an_event_that_comes_through_two_partitions_counts_once_while_it_is_remembered() -> None:
    view = make_view({"n": hr.count().over("1000us")}, dedupe=4)
    records = payments([1.0] * 4)
    elsewhere = [record | {"_partition": 1} for record in records]
    assert read_one(view, [*records, *elsewhere], 150)["n_1000us"] == 4.0
    batch, slot = prepared(view, [*records, *elsewhere, *elsewhere], [("c",)])
    batch.offset[8:] += 10  # again, and in the same partition
    status = kernel.update(kernel.Layout.of(view), kernel.States.empty(1), batch, slot).status
    assert status.tolist() == [kernel.FOLDED] * 4 + [kernel.DUPLICATE] * 8


def test_the_header_lists_offsets_of_any_width_beside_the_numbers_of_ids() -> None:
    view = make_view({"n": hr.count().over("1000us")}, dedupe=600)
    records = payments([1.0] * 700)
    records = [record | {"_partition": i % 2 * 300, "_offset": i + 70_000} for i, record in enumerate(records)]
    assert kernel.header(folded(view, records, [("c",)], 0)[0]).offsets == ((0, 70_698), (300, 70_699))


@pytest.mark.parametrize("damage", ["cut", "version", "layout", "rows", "ids"])
def test_broken_state_bytes_are_refused_with_words(damage: str) -> None:
    view = VIEWS["windowed"]
    state = bytearray(folded(view, payments([1.0, 2.0]), [("c",)], 0)[0])
    if damage == "cut":
        del state[-3:]
    else:
        state[{"version": 0, "layout": 3, "rows": 16, "ids": 22}[damage]] ^= 0x55
    wanted = {"version": "version", "layout": "backfill the view"}.get(damage, "cut off or broken")
    with pytest.raises(CodecError, match=wanted):
        kernel.read(kernel.Layout.of(view), kernel.States.from_list([bytes(state)]), np.array([100]))


@pytest.mark.parametrize(
    ("value", "message"), [(math.inf, "amount"), (1e300, "smaller than"), (2.0**45, "smaller than")]
)
def test_values_beyond_the_bound_of_an_accumulator_break_the_contract(value: float, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        prepared(VIEWS["windowed"], payments([1.0, value]), [("c",)])


def test_keys_are_hashed_by_xxhash64() -> None:
    # From the reference implementation's own test vectors, and grouped by their bytes.
    assert f"{kernel.hash_bytes(b''):016x}" == "ef46db3751d8e999"
    assert f"{kernel.hash_bytes(b'abc'):016x}" == "44bc2cf5ad770999"
    # 39 bytes take the path of the four lanes; the value is the one in python-xxhash's documentation.
    assert f"{kernel.hash_bytes(b'Nobody inspects the spammish repetition'):016x}" == "fbcea83c8a378bf1"
    data, offsets = np.frombuffer(b"xyxyzxy", dtype=np.uint8), np.array([0, 2, 4, 5, 7])
    groups = kernel.group_keys(data, offsets)
    assert groups.slot.tolist() == [0, 0, 1, 0]
    assert groups.hash.tolist() == [kernel.hash_bytes(b"xy"), kernel.hash_bytes(b"z")]


def test_golden_bytes_of_the_state_codec_version_2() -> None:
    view = make_view({"n": hr.count().over("60us"), "s": hr.sum("fee").over("60us")}, tile="10us")
    state = folded(view, payments([0.1, 2.5]), [("c",)], 0)[0]
    fingerprint = int(view.layout_fingerprint[:12], 16).to_bytes(6, "little").hex()
    assert state[:16].hex() == "0200" + fingerprint + "6500000000000000"
    # One partition, offsets and numbers of ids of one byte each, partition 0, offset 1, two ids; and these are two.
    assert state[16:25].hex() == "010011000001020200"
    canonical = kernel.canonical(kernel.Layout.of(view), state)
    assert canonical[1] == 1
    assert canonical[-6:].hex() == "01210a020401"  # one tile, widths 1 and 2: index 10, count 2, 260 hundredths
