"""A record that ends the process that handles it is found, set aside, and left out everywhere; the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import ServiceUnavailable
from headrace_ops.dead_letters import read_box
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec
from headrace_schemas.loading import load_project
from headrace_schemas.stores import kafka
from headrace_schemas.stores.lanes import Watermark
from headrace_schemas.stores.log import event_log
from headrace_streams import poison
from headrace_streams.items import Polled, Span
from headrace_streams.poison import (
    MAYBE,
    SURE,
    CarefulSource,
    Place,
    PlaceFile,
    Suspicion,
    read_poison,
    sift,
    singles,
    stands_still,
)
from headrace_streams.standing_in import StandIn
from tests.redis_topologies import until
from tests.services import Services
from tests.streams.shop import START_US, VIEWS, Group, Shop

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "examples" / "flights"


@contextmanager
def poisoned(shop: Shop, role: str, how: str) -> Iterator[Group]:
    """A supervised pipeline with a mistake in it."""
    environ = {**os.environ, "POISONED": how, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "tests.recovery.poisoned",
        "--project",
        str(shop.root),
        "--role",
        role,
        "--supervise",
    ]
    with (shop.root / f"{role}.err").open("wb+") as diary:
        group = Group(subprocess.Popen(command, stderr=diary, env=environ, cwd=ROOT), Path(diary.name))
        try:
            yield group
        finally:
            group.stop()


def produce_poison(shop: Shop) -> int:
    """One record that is poison; its offset."""
    event = {"id": "bad", "card": "card 1", "shop": 1, "town": "Linz", "amount": 666.0, "at": START_US}
    shop._producer.produce(shop.topic, EventCodec(shop.loaded.project.event("paid")).encode(event), partition=0)
    assert shop._producer.flush(20) == 0
    return kafka.end_offsets(shop.services.kafka, shop.topic)[0] - 1


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["decode signal", "fold signal", "fold raise"])
def test_a_record_that_ends_its_process_is_set_aside_and_left_out_everywhere(
    services: Services, prefix: str, tmp_path: Path, how: str
) -> None:
    if services.name == "real" and how != "fold signal":
        pytest.skip("one of them on real services is enough: each takes several restarts")
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1, seed=91)
    shop.produce(60)
    offset = produce_poison(shop)
    shop.produce(60)
    with poisoned(shop, "log", how) as log, poisoned(shop, "stream", how) as stream:
        shop.wait(timeout_s=120)
        shop.produce(30)
        shop.wait()
        found = [*stream.noted("poison"), *log.noted("poison")][0]  # whoever found it first told the other
        assert (found["partition"], found["offset"]) == (0, offset)
        assert ("it is poison" if "raise" in how else "signal 11") in found["reason"]
        assert len(stream.noted("careful") + log.noted("careful")) >= 2
        places = {(event["_partition"], event["_offset"]) for event in shop.events}
        until(lambda: logged(shop) == places, timeout_s=120.0)
        assert stream.stop() == 0
        assert log.stop() == 0
    assert shop.check() > 200
    (letter,) = read_box(shop.loaded.settings).letters
    assert (letter.offset, letter.code) == (offset, "poison")
    assert "it ended the process that handled it, twice" in letter.reason


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["decode signal", "fold signal"])
def test_a_group_of_several_is_one_process_until_it_has_found_them_and_then_several_again(
    services: Services, prefix: str, tmp_path: Path, how: str
) -> None:
    """Two such records: the failures that lead to the first are not counted when the second ends the group."""
    if services.name == "real" and how != "fold signal":
        pytest.skip("one of them on real services is enough: each takes several restarts")
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=2, settings="[stream]\nworkers = 2\n", seed=92)
    shop.produce(60)
    offsets = [produce_poison(shop)]
    shop.produce(60)
    offsets.append(produce_poison(shop))
    shop.produce(60)
    with poisoned(shop, "stream", how) as stream:
        until(lambda: len(stream.noted("poison")) == 2 and len(stream.pids()) == 2, timeout_s=180.0)
        shop.produce(30)
        shop.wait(timeout_s=60)
        found = {(note["partition"], note["offset"]) for note in stream.noted("poison")}
        assert found == {(0, offset) for offset in offsets}
        sizes = [len(note["pids"]) for note in stream.noted("started")]
        assert (sizes[:3], sizes[-1]) == ([2, 2, 1], 2)
        assert {note["instead_of"] for note in stream.noted("standing-in")} == {2}
        assert stream.noted("careful-enough")
        assert stream.stop() == 0
    assert shop.check() > 200
    letters = read_box(shop.loaded.settings).letters
    assert [(letter.offset, letter.code) for letter in letters] == [(offset, "poison") for offset in offsets]


def logged(shop: Shop) -> set[tuple[int, int]]:
    rows = event_log(shop.loaded.settings, shop.loaded.project.event("paid")).scan().collect()
    return set(zip(rows["_partition"].to_list(), rows["_offset"].to_list(), strict=True))


# --- parts -----------------------------------------------------------------------------------------------------------


def raw_of(places: list[tuple[int, int]]) -> RawBatch:
    n = len(places)
    return RawBatch(
        "t", np.array([p for p, _ in places], np.int32), np.array([o for _, o in places], np.int64), np.zeros(n, np.int64),
        np.zeros(n, np.uint8), 1, [None] * n, [b"%d" % row for row in range(n)],
    )  # fmt: skip


def test_a_batch_is_cut_into_records_that_cover_what_it_covers() -> None:
    raw = raw_of([(0, 5), (1, 2), (0, 8)])
    spans = (Span(0, 4, Watermark(9, 3, "d")), Span(1, 2, Watermark(6, 1)))
    pieces = [
        (len(one.raw), one.spans[0].partition, one.spans[0].start, one.spans[0].upto)
        for one in singles(Polled(raw, spans))
    ]
    assert pieces == [
        (1, 0, 4, Watermark(6, 3)), (1, 1, 2, Watermark(3, 1)), (1, 0, 6, Watermark(9, 3, "d")), (0, 1, 3, Watermark(6, 1)),
    ]  # fmt: skip


def test_known_poison_is_sifted_out_with_its_reason() -> None:
    good, rejects = sift(raw_of([(0, 1), (0, 2), (1, 2)]), {(0, 2): "it ends us"})
    assert good.offset.tolist() == [1, 2]
    assert good.partition.tolist() == [0, 1]
    assert [(reject.row, reject.reason, reject.code) for reject in rejects] == [(1, "it ends us", "poison")]


def test_who_has_moved_or_has_nothing_more_does_not_stand_still(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=2)
    for _ in range(9):
        produce_poison(shop)  # all on partition 0
    settings = shop.loaded.settings
    at = [stands_still(settings, "stream", 0, {shop.topic: {0: first, 1: 0}}) for first in (3, 5, 5, 9, 9)]
    assert at == [False, False, True, False, False]
    assert not stands_still(settings, "stream", 1, {shop.topic: {0: 9}})


def test_one_process_stands_still_where_any_of_the_group_before_it_began(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=2)
    produce_poison(shop)
    shop._producer.produce(shop.topic, b"more", partition=1)
    assert shop._producer.flush(20) == 0
    settings = shop.loaded.settings
    assert not stands_still(settings, "stream", 0, {shop.topic: {0: 0}})
    assert not stands_still(settings, "stream", 1, {shop.topic: {1: 0}})
    assert stands_still(settings, "stream", 0, {shop.topic: {0: 1, 1: 0}})  # where worker 1 began
    assert not stands_still(settings, "log", 0, {shop.topic: {0: 1, 1: 0}})  # another role


def test_a_record_is_accused_only_where_two_ends_have_the_same_place(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    """Two kills by chance accuse nobody; a service that is away leaves no place."""
    settings = Shop(services, prefix, tmp_path, VIEWS).loaded.settings
    now = [0.0]
    suspicion = Suspicion(settings, "stream", lambda: now[0])

    def dies_at(offset: int | None) -> Place | None:
        suspicion.starts()
        handle = PlaceFile(settings, "stream", 0).open()
        if offset is not None:
            try:
                with handle.at(Place("id", 0, offset)):
                    raise KeyError("k")
            except KeyError:
                pass
        return suspicion.ended(-9)

    assert not suspicion.careful
    assert dies_at(None) is None
    assert dies_at(None) is None
    assert suspicion.careful
    assert suspicion.careful == MAYBE
    assert dies_at(7) is None
    assert suspicion.careful == SURE
    assert dies_at(8) is None
    found = dies_at(8)
    assert found is not None
    assert (found.offset, "KeyError: 'k'" in found.reason) == (8, True)
    now[0] += 100.0
    assert dies_at(None) is None
    suspicion.enough()
    assert not suspicion.careful
    assert dies_at(None) is None
    assert suspicion.careful == MAYBE  # one more was enough
    assert dies_at(9) is None
    suspicion.enough()
    assert dies_at(9) is None  # what was suspected before is forgotten
    now[0] += 1000.0
    assert suspicion.careful == SURE
    assert dies_at(None) is None
    now[0] += 1000.0
    assert not suspicion.careful
    suspicion.starts()
    handling = PlaceFile(settings, "stream", 0).open()
    try:
        with handling.at(Place("id", 0, 9)):
            raise ServiceUnavailable("Redis", "here", "away")
    except ServiceUnavailable:
        pass
    assert PlaceFile(settings, "stream", 0).read() is None
    assert read_poison(settings) == {}


class Drops:
    """A source that has so many records, one at each poll."""

    pause_ms = 0

    def __init__(self, count: int) -> None:
        self.left, self.closed = count, False

    def poll(self) -> list[Polled]:
        self.left -= 1
        return [Polled(raw_of([(0, 5)]), (Span(0, 5, Watermark(6, 3)),))] if self.left >= 0 else []

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("records", "step_s", "why", "polls"),
    [(99, 0.1, "so many records went well one by one", 4), (2, 1.0, "nothing came for 5 s", 8), (99, 20.0, "30 s went well", 2)],
)  # fmt: skip
def test_one_process_in_place_of_several_ends_when_it_was_careful_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, step_s: float, why: str, polls: int
) -> None:
    monkeypatch.setattr(poison, "_CAREFUL_ROWS", 4)
    settings = load_project(FLIGHTS, environ={"HEADRACE_RUN_PATH": str(tmp_path)}).settings
    handling, stop, now = PlaceFile(settings, "stream", 0).open(), threading.Event(), [0.0]
    source = Drops(records)
    stand_in = StandIn(CarefulSource(source, handling), handling, stop, lambda: now[0])
    for poll in range(1, polls + 1):
        assert (stand_in.reason, stop.is_set()) == ("", False)
        now[0] = poll * step_s
        stand_in.poll()
    assert (stand_in.reason, stop.is_set()) == (why, True)
    stand_in.close()
    assert source.closed
