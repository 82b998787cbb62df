"""Deleting an entity: gone from states, log and predictions, and gone for good, whatever crashes or comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from headrace import kernel
from headrace.errors import Fenced, Stale, StoreError
from headrace.kernel import hash_bytes
from headrace_ops.cli import main
from headrace_ops.forgetting import Deletion, await_gone, entity_of, forget
from headrace_schemas.forgotten import Forgotten, Sieve
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.stores import online
from headrace_schemas.stores.kafka import end_offsets, topic_setting
from headrace_schemas.stores.lanes import LaneRecord
from headrace_schemas.stores.log import event_log
from headrace_streams import forgetting
from headrace_streams.errors import RestartNeeded
from tests.services import Services
from tests.streams.shop import Shop

CARD = "card 1"


class ForgettingShop(Shop):
    """A shop that remembers what was forgotten."""

    def forget(self, card: str = CARD) -> Deletion:
        """Delete a card; its events until now count for nobody but the shops."""
        deletion = forget(self.loaded, entity_of(self.loaded, "card"), {"card": card})
        self.gone = [event for event in self.events if event["card"] == card]
        return deletion

    def check(self) -> int:
        """The features are those of the events that were not forgotten; `sales` is of another entity and keeps all of them."""
        everything = self.events
        only_spending = [view for view in self.loaded.project.views if view.name == "spending"]
        self.events = [event for event in everything if event not in getattr(self, "gone", [])]
        whole = self.loaded
        try:
            compared = self._check_views(only_spending)
        finally:
            self.events, self.loaded = everything, whole
        return compared

    def _check_views(self, views: list[Any]) -> int:
        reader = online.OnlineReader(self.client, self.namespace)
        newest = max(event["at"] for event in self.events)
        compared = 0
        from headrace.oracle import naive

        for view in views:
            keys = sorted({tuple(event[field] for field in view.key_fields) for event in self.events} | {(CARD,)})
            read = reader.features(view, [encode_key(key) for key in keys], newest + 1)
            for key, row in zip(keys, read, strict=True):
                mine = [event for event in self.events if tuple(event[f] for f in view.key_fields) == key]
                expected = naive(view, mine, dict(zip(view.entity.keys, key, strict=True)), newest + 1)
                compared += self._same(view.name, key, view.feature_names, row, expected)
        return compared

    def state_of(self, card: str = CARD) -> bytes | None:
        """The card's state in Redis."""
        return self.client.get(
            ViewKeys(self.namespace, self.loaded.project.view("spending")).locate(encode_key([card]))
        )

    def wait_for_lanes(self) -> None:
        """Until every lane has everything; the hint of how far a view is does not go back with a watermark."""
        end, deadline = end_offsets(self.services.kafka, self.topic), time.monotonic() + 30
        views = [ViewKeys(self.namespace, view) for view in self.loaded.project.views]
        while any(online.committed(self.client, keys) != end for keys in views):
            assert time.monotonic() < deadline, [online.committed(self.client, keys) for keys in views]
            time.sleep(0.05)

    def lane(self) -> LaneRecord:
        """The record of the card's lane."""
        keys = ViewKeys(self.namespace, self.loaded.project.view("spending"))
        return online.lane_records(self.client, keys)[keys.lane_of(hash_bytes(encode_key([CARD])))]


@pytest.fixture
def shop(services: Services, prefix: str, tmp_path: Path) -> ForgettingShop:
    return ForgettingShop(services, prefix, tmp_path)


def restarted(shop: ForgettingShop, act: Callable[[], None] = lambda: None) -> None:
    """A group that begins, catches up and ends."""
    with shop.streaming(take_over=True) as run:
        act()
        run.wait_for("claimed")
        shop.wait_for_lanes()
        shop.check()


def test_a_running_pipeline_forgets_and_keeps_what_came_later(shop: ForgettingShop) -> None:
    shop.produce(300)
    with shop.streaming() as run, shop.logging():
        shop.wait(run)
        shop.wait_for_log()
        assert shop.state_of() is not None
        shop.forget()
        shop.produce(200)  # of all cards: the state holds events of both sides of the deletion
        error = run.fails()  # the supervisor would start it again
    assert isinstance(error, RestartNeeded)
    restarted(shop)
    restarted(shop)  # nothing is done twice


def test_it_stays_forgotten_when_redis_is_lost_and_everything_is_read_again(shop: ForgettingShop) -> None:
    shop.produce(300)
    restarted(shop)
    shop.forget()
    restarted(shop)
    assert shop.state_of() is None
    shop.client.flushdb()
    restarted(shop)
    assert shop.state_of() is None
    assert shop.lane().forgotten == 1


def test_the_log_forgets_rows_that_are_there_and_rows_that_come(shop: ForgettingShop) -> None:
    shop.produce(300)
    with shop.logging():
        shop.wait_for_log()
    shop.produce(100)  # not logged yet when the card is forgotten
    deletion = shop.forget()
    kept = [event["id"] for event in shop.events if event["card"] != CARD]
    restarted(shop)
    with shop.logging():
        shop.produce(50)
        kept += [event["id"] for event in shop.events[-50:]]
        shop.wait_for_log()
        assert await_gone(shop.loaded, deletion, 30) == []
    log = event_log(shop.loaded.settings, shop.loaded.project.event("paid"))
    assert sorted(log.scan().collect()["id"].to_list()) == sorted(kept)
    log.compact(keep_hours=0)
    # The files themselves hold nothing of it any more.
    held = {row for file in Path(log.path).rglob("*.parquet") for row in _ids(file)}
    assert held == set(kept)


def _ids(file: Path) -> list[str]:
    import polars as pl

    return pl.read_parquet(file, columns=["id"], hive_partitioning=False)["id"].to_list()


@pytest.mark.parametrize("moment", ["before the script", "after the script"])
def test_a_worker_that_dies_in_the_middle_is_followed_by_one_that_finishes(
    shop: ForgettingShop, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.produce(200)
    restarted(shop)
    shop.forget()
    shop.produce(100)

    def dies(*_: object) -> None:
        raise RuntimeError("killed")

    broken = "_names" if moment == "before the script" else "_judge"
    monkeypatch.setattr(forgetting, broken, dies)
    with shop.streaming(take_over=True) as run:
        assert str(run.fails()) == "killed"
    monkeypatch.undo()
    restarted(shop)


def test_another_owner_is_respected(shop: ForgettingShop) -> None:
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
        entry = shop.forget().entry
        from headrace_streams.claims import Claimant
        from headrace_streams.journal import Journal
        from headrace_streams.patience import Patience

        with pytest.raises(Fenced):
            forgetting.forget_entities(
                shop.loaded.settings, shop.loaded.project.views, [entry], Claimant(), Patience(claim_s=0.3), Journal("stream"),
                worker=0, workers=1,
            )  # fmt: skip
        run.fails()


@pytest.mark.parametrize(
    ("reply", "error"), [([1, b"\x01" * 16, b""], Fenced), ([2, b"", b""], Stale), (b"OK", StoreError)]
)
def test_what_redis_may_answer_to_a_deletion(reply: Any, error: type[Exception], shop: ForgettingShop) -> None:
    view = shop.loaded.project.view("spending")
    task = forgetting._Task(view, ViewKeys(shop.namespace, view), 0, ())
    with pytest.raises(error, match="lane 0 of view 'spending'"):
        forgetting._judge(reply, task)


def test_two_deletions_of_one_card_and_one_of_another(shop: ForgettingShop) -> None:
    shop.produce(200)
    restarted(shop)
    shop.forget()
    first = shop.gone
    shop.produce(200)
    shop.forget("card 2")
    second = shop.gone
    shop.forget()
    shop.gone = [*first, *second, *shop.gone]
    shop.produce(100)
    restarted(shop)
    assert shop.lane().forgotten == 3


def test_the_command(shop: ForgettingShop, tmp_path: Path) -> None:
    shop.produce(100)
    restarted(shop)
    with shop.logging():
        shop.wait_for_log()
    project = ["-p", str(tmp_path)]
    runner = CliRunner()
    assert runner.invoke(main, ["forget", "cart", f"card={CARD}", *project]).exit_code == 2
    assert runner.invoke(main, ["forget", "card", "cards=x", *project]).exit_code == 2
    waiting = runner.invoke(main, ["forget", "card", f"card={CARD}", "--wait", "0", "--json", *project])
    assert waiting.exit_code == 3, waiting.output
    assert json.loads(waiting.stdout)["gone"] is False
    shop.gone = [event for event in shop.events if event["card"] == CARD]
    restarted(shop)
    with shop.logging():
        done = runner.invoke(main, ["forget", "card", "card=nobody", "--wait", "0.5", *project])
        assert "on the list" in done.output  # nobody restarts the pipeline for it here
    restarted(shop)


def test_a_forgotten_key_is_not_in_the_list(shop: ForgettingShop) -> None:
    from headrace_schemas.forgotten import forgotten_topic
    from headrace_schemas.stores.kafka import TopicReader

    shop.produce(10)
    shop.forget()
    with TopicReader(shop.services.kafka, forgotten_topic(shop.namespace)) as reader:
        (message,) = reader.read_to_end()
    assert CARD.encode() not in (message.value() or b"") + (message.key() or b"")
    # A broker that says so says that the list is kept for ever.
    assert topic_setting(shop.services.kafka, forgotten_topic(shop.namespace), "retention.ms") in (None, "-1")


def test_a_key_may_be_named_and_spelt_as_it_likes(tmp_path: Path) -> None:
    import polars as pl

    import headrace as hr
    from headrace_schemas.stores.log import LogTable, event_schema
    from headrace_streams.log_forgetting import LogForgetting

    fields = {"order": hr.string(), "Group": hr.int64(), "amount": hr.float64(), "at": hr.timestamp()}
    placed = hr.Event("placed", fields=fields, time="at")
    entity = hr.Entity("order", keys={"order": hr.string(), "Group": hr.int64()})
    view = hr.FeatureView("orders", entity=entity, event=placed, features={"n": hr.count().over("1h")})
    names = ["O'Neill", "O'Neill", "' OR 1=1 --", "O'Neill"]
    rows = {"order": names, "Group": [1, 2, 1, 1], "amount": [1.0] * 4, "at": [0] * 4}
    places = {"_timestamp_us": [0] * 4, "_received_us": [0] * 4, "_partition": [0] * 4, "_offset": [0, 1, 2, 3]}
    table = LogTable.open(tmp_path / "placed", event_schema(placed), "t")
    frame = pl.DataFrame({**rows, **places}, strict=False)
    schema = table.schema.frame_schema
    frame = frame.with_columns([pl.lit(None).alias(name) for name in schema if name not in frame.columns])
    table.append(frame.select(list(schema)).cast(schema), {0: (0, 4)})  # type: ignore[arg-type]
    project = hr.Project("shop", events=(placed,), entities=(entity,), views=(view,))
    forgets = LogForgetting(project, {placed.topic: table}, {placed.topic: "t"}, "shop.predictions")
    forgets.learn([Forgotten("order", hash_bytes(encode_key(["O'Neill", 1])), {"t": {0: 3}}, 0, 0)])
    assert forgets.sweep() == {placed.topic: 1}
    assert sorted(table.scan().collect()["_offset"].to_list()) == [1, 2, 3]


# --- the sieve -----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_the_sieve_against_its_definition(data: st.DataObject) -> None:
    hashes = st.integers(0, 5)
    entry = st.builds(
        lambda key, ends, topic: Forgotten("card", key, {topic: ends}, 0),
        hashes, st.dictionaries(st.integers(0, 3), st.integers(0, 20)), st.sampled_from(["t", "u"]),
    )  # fmt: skip
    entries = data.draw(st.lists(entry, max_size=6))
    rows = data.draw(st.lists(st.tuples(hashes, st.integers(0, 4), st.integers(0, 20)), min_size=1, max_size=20))
    expected = [
        any(e.key_hash == key and offset < e.bounds.get("t", {}).get(partition, 0) for e in entries) for key, partition, offset in rows
    ]  # fmt: skip
    sieve = Sieve.of(entries, "card", "t")
    keys, partition, offset = (np.array(column) for column in zip(*rows, strict=True))
    if sieve is None:
        assert not any(expected)
        return
    assert sieve.forgotten(keys.astype(np.uint64), partition.astype(np.int32), offset).tolist() == expected
    assert sieve.may_hold(partition.astype(np.int32), offset) or not any(expected)
    assert Sieve.of(entries, "shop", "t") is None


def test_the_hash_of_the_list_is_the_hash_of_the_stream() -> None:
    key = encode_key(["card 1"])
    data, offsets = np.frombuffer(key, np.uint8), np.array([0, len(key)])
    assert int(kernel.hash_keys(data, offsets)[0]) == hash_bytes(key)
