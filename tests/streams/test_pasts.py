"""A store that shows another past, for a moment or for good: the worker notices before it builds upon it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import headrace as hr
from headrace.errors import Fenced, Stale
from headrace_schemas.keys import ViewKeys
from headrace_schemas.stores.lanes import LaneRecord, Watermark
from headrace_schemas.stores.resp import Reply
from headrace_streams.commits import Commit, Ledger
from headrace_streams.flushes import FlushBuilder
from headrace_streams.folding import ViewFolder
from headrace_streams.items import TopicStart
from headrace_streams.session import Session
from tests.services import Services
from tests.streams.shop import VIEWS, Shop

SMALL_CACHE = "[stream]\ncache_kb = 8\n"  # states are evicted, and read again


class Past:
    """What the store holds of a project now, and how to bring it back."""

    def __init__(self, shop: Shop) -> None:
        self._client, self._names = shop.client, f"{{{shop.namespace}:*"
        self._kept = {name: self._client.dump(name) for name in self._client.scan_iter(match=self._names, count=1000)}

    def bring_back(self) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            for name in self._client.scan_iter(match=self._names, count=1000):
                pipe.delete(name)
            for name, value in self._kept.items():
                pipe.restore(name, 0, value, replace=True)
            pipe.execute()


def test_a_state_that_was_read_from_another_past_is_not_built_upon(
    services: Services, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fail-overs, the second to a replica that is ahead of the first: between them a miss is read.

    Without the heads that come with the states, the commit behind it would be accepted, and what the first replica did not know
    of yet would be missing from the entity.
    """
    shop = Shop(services, prefix, tmp_path, VIEWS, settings=SMALL_CACHE, seed=31)
    shop.produce(300)
    with shop.streaming() as run:
        shop.wait(run)
        behind = Past(shop)
        shop.produce(300)
        shop.wait(run)
        ahead: list[Past] = []
        told: list[str] = []
        ask, answer = Session.ask_at_once, Session.answer

        def ask_the_first(session: Session, key: bytes, commands: Sequence[bytes]) -> None:
            if not told:
                ahead.append(Past(shop))  # here and now: an idle lane's commit would be news
                behind.bring_back()
                told.append("asked")
            ask(session, key, commands)

        def answer_and_go_ahead(session: Session) -> Reply:
            reply = answer(session)
            if told == ["asked"]:
                ahead[0].bring_back()
                told.append("answered")
            return reply

        with monkeypatch.context() as patched:
            patched.setattr(Session, "ask_at_once", ask_the_first)
            patched.setattr(Session, "answer", answer_and_go_ahead)
            while not told:  # one by one, so that nothing is being written when a miss is read
                shop.produce(1)
                with suppress(Stale):
                    shop.wait(run)
            assert isinstance(run.fails(), Stale)
    assert told == ["asked", "answered"]
    with shop.streaming(take_over=True) as run:
        shop.wait(run)
    assert shop.check() > 300


def test_a_claim_that_the_store_forgot_is_no_reason_to_stop_for_good(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    """A fail-over behind the claim shows the owner before: the group starts again. Any other owner ends it."""
    shop = Shop(services, prefix, tmp_path, seed=32)
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
    lanes = [name for view in shop.loaded.project.views for name in lane_keys(ViewKeys(shop.namespace, view))]
    before = shop.client.hget(lanes[0], "owner")
    with shop.streaming(take_over=True) as run:
        run.wait_for("claimed")
        for name in lanes:
            shop.client.hset(name, "owner", before)
        assert isinstance(run.fails(), Stale)
    with shop.streaming(take_over=True) as run:
        run.wait_for("claimed")
        for name in lanes:
            shop.client.hset(name, "owner", b"somebody else...")
        assert isinstance(run.fails(), Fenced)


def lane_keys(keys: ViewKeys) -> list[bytes]:
    return [keys.lane_key(lane) for lane in range(keys.lanes)]


def test_the_owner_who_was_replaced_means_a_store_that_went_back() -> None:
    ledger = Ledger([Commit(3, b"a", b"b")], "lane {}".format, lambda lane: b"before" if lane == 3 else b"")
    with pytest.raises(Stale, match="lane 3") as caught:
        ledger.answer(0, [1, b"before", b"a"])
    assert caught.value.__notes__ == ["its owner is again the one whom this worker replaced"]
    with pytest.raises(Fenced):
        ledger.answer(0, [1, b"after", b"a"])


def test_a_read_that_was_asked_for_before_an_acknowledgement_may_show_the_head_before() -> None:
    """Reads and commits go over connections of their own: the server may answer the read first, and the worker hear of it last."""
    folder = ViewFolder(view_of(), ViewKeys.of("n", "v", "f", 1), 0, 1, 1 << 16)
    flushes = FlushBuilder([folder], b"owner")
    flushes.claimed(0, [LaneRecord(head=b"first")])
    folder.open(TopicStart("t", 1, {0: Watermark(0)}, {0: 0}))
    sent = flushes.build(10.0, last=True).commits[0].id
    assert flushes.knows(0, 0, b"first")  # asked for now, answered before the commit or behind it
    assert flushes.knows(0, 0, sent)
    flushes.acknowledged()
    assert flushes.knows(0, 0, b"first")  # asked for before
    flushes.forget_heads()
    assert not flushes.knows(0, 0, b"first")
    assert flushes.knows(0, 0, sent)
    under_way = flushes.build(20.0, last=True).commits[0].id
    flushes.forget_heads()  # nothing was acknowledged since
    assert flushes.knows(0, 0, sent)
    assert flushes.knows(0, 0, under_way)


def view_of() -> hr.FeatureView:
    paid = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp()}, time="at")
    card = hr.Entity("card", keys={"card": hr.string()})
    return hr.FeatureView("v", entity=card, event=paid, features={"n": hr.count().over("1h")}, lanes=1)
