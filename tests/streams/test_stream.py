"""The feature pipeline from topic to Redis, on every service that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError, Fenced, Gap, IdentityError
from headrace_schemas.dead_letters import dead_letter_topic, decode_dead_letter
from headrace_schemas.keys import ViewKeys
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.lanes import LaneRecord, watermark_field
from headrace_streams import writer
from headrace_streams.claims import Claimant
from headrace_streams.errors import IDENTITY
from headrace_streams.session import Session
from tests.services import Services
from tests.streams.shop import MORE_VIEWS, VIEWS, Shop


@pytest.mark.parametrize("form", ["avro", "json"])
def test_features_are_those_of_the_oracle(services: Services, prefix: str, tmp_path: Path, form: str) -> None:
    shop = Shop(services, prefix, tmp_path, form=form)
    shop.produce(2000)
    with shop.streaming() as run:
        shop.wait(run)
        shop.produce(500)  # and some that come in twos and threes
        for _ in range(20):
            shop.produce(2)
        shop.wait(run)
    assert shop.check() > 400


def test_small_caches_evict_and_lose_nothing(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, settings="[stream]\ncache_kb = 1\n")
    shop.produce(1500)
    with shop.streaming() as run:
        shop.wait(run)
        for _ in range(30):
            shop.produce(20)
        shop.wait(run)
    shop.check()


def test_broken_events_become_dead_letters_and_the_stream_goes_on(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.produce(50)
    shop.produce_raw(b"\xff\xff\xff", b"")
    shop.produce(50)
    with shop.streaming() as run:
        shop.wait(run)
    shop.check()
    topic = dead_letter_topic(shop.namespace)
    with kafka.TopicReader(services.kafka, topic) as reader:
        letters = [decode_dead_letter(m.key(), m.value(), m.headers()) for m in reader.read_to_end()]
    assert {(letter.code, letter.value) for letter in letters} == {("undecodable", b"\xff\xff\xff"), ("empty", b"")}
    assert len({letter.id for letter in letters}) == 2
    assert all(letter.topic == shop.topic and letter.reason for letter in letters)


def test_a_restart_continues_where_the_lanes_are(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path)
    for count in (700, 300, 1):
        shop.produce(count)
        with shop.streaming() as run:
            shop.wait(run)
    with shop.streaming() as run:
        started = run.wait_for("starting")["starts"][shop.topic]
        run.wait_for("claimed")
    ends = kafka.end_offsets(services.kafka, shop.topic)
    assert {int(partition): start for partition, start in started.items()} == ends
    shop.check()


def test_a_new_view_is_backfilled_and_never_rewinds_the_others(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS)
    shop.produce(600)
    with shop.streaming() as run:
        shop.wait(run)
    before = shop.states()
    shop.declare(VIEWS + MORE_VIEWS)
    with shop.streaming() as run:
        shop.wait(run)
        assert run.noted("starting")[0]["starts"][shop.topic] == dict.fromkeys(["0", "1", "2"], 0)
        assert before.items() <= shop.states().items(), "the old view's states were not touched by the backfill"
        shop.produce(100)
        shop.wait(run)
    shop.check()


def test_lanes_of_unregistered_views_hold_nobody_back(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS + MORE_VIEWS)
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
    shop.declare(VIEWS)  # the other view's lanes stay behind in Redis
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
    assert set(online.registered_views(shop.client, shop.namespace)) == {"spending"}
    shop.produce(10)
    with shop.streaming() as run:
        shop.wait(run)
        assert sum(run.noted("starting")[0]["starts"][shop.topic].values()) == 200
    shop.check()


def test_a_second_worker_waits_and_is_refused_while_the_first_is_alive(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.produce(100)
    with shop.streaming() as first:
        shop.wait(first)
        with shop.streaming() as second:
            error = second.fails()
        assert isinstance(error, Fenced)
        assert "is owned by another worker" in str(error)
        shop.produce(100)
        shop.wait(first)
    shop.check()


def test_take_over_fences_the_one_before(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.produce(100)
    with shop.streaming() as first:
        shop.wait(first)
        with shop.streaming(take_over=True) as second:
            second.wait_for("claimed")
            shop.produce(200)
            assert isinstance(first.fails(), Fenced)
            shop.wait(second)
    shop.check()


def test_a_store_that_loses_everything_before_the_claim_is_read_again_from_the_beginning(
    services: Services, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starts are settled from a record that is gone when the lanes are claimed."""
    shop = Shop(services, prefix, tmp_path, seed=17)
    shop.produce(300)
    with shop.streaming() as run:
        shop.wait(run)
    shop.produce(100)
    claim = writer.claim

    def claim_what_is_left(session: Session, lane_keys: Sequence[bytes], who: Claimant, **how: Any) -> list[LaneRecord]:
        shop.client.delete(*shop.client.scan_iter(match=f"{{{shop.namespace}:*", count=1000))
        return claim(session, lane_keys, who, **how)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "claim", claim_what_is_left)
        with shop.streaming() as run:
            assert isinstance(run.fails(), Gap)
    with shop.streaming(take_over=True) as run:
        shop.wait(run)
    assert shop.check() > 400


def test_a_topic_that_vanishes_stops_the_running_group_with_a_message(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    """As a group of processes: on the embedded broker librdkafka itself crashes when its topic is deleted."""
    shop = Shop(services, prefix, tmp_path)
    shop.produce(100)
    with shop.supervised() as group:
        shop.wait()
        states = shop.states()
        kafka.delete_topics(services.kafka, [shop.topic])
        assert group.wait(60) == IDENTITY
    message = group.noted("failed")[-1]["message"]
    assert shop.topic in message
    assert "begin anew" in message
    assert "bring the broker back" in message
    assert shop.states() == states


def test_a_topic_made_anew_stops_the_start_and_names_the_choices(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
    kafka.delete_topics(services.kafka, [shop.topic])
    kafka.ensure_topics(services.kafka, {shop.topic: 3})
    shop.produce(300)
    with shop.streaming() as run:
        error = run.fails()
    assert isinstance(error, IdentityError)
    assert "the topic was made anew" in str(error)
    assert "another [project] namespace" in str(error)


def test_another_record_before_the_position_stops_the_start(services: Services, prefix: str, tmp_path: Path) -> None:
    """The topic id is the same, the offsets are there, but the history is another: an unclean leader election."""
    shop = Shop(services, prefix, tmp_path)
    shop.produce(100)
    with shop.streaming() as run:
        shop.wait(run)
    field = watermark_field(kafka.topic_identity(services.kafka, shop.topic).topic_id, 0)
    for keys in (ViewKeys(shop.namespace, view) for view in shop.loaded.project.views):
        for lane in range(keys.lanes):
            known = shop.client.hget(keys.lane_key(lane), field).decode().split(":")
            shop.client.hset(keys.lane_key(lane), field, f"{known[0]}:{known[1]}:00000000")
    with shop.streaming() as run:
        error = run.fails()
    assert isinstance(error, IdentityError)
    assert "got another record" in str(error)


def test_an_evicting_redis_is_refused_with_the_remedy(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with shop.streaming() as run:
            error = run.fails()
    finally:
        shop.client.config_set("maxmemory-policy", "noeviction")
    assert isinstance(error, ConfigError)
    assert "maxmemory-policy must be noeviction" in str(error)
    assert "CONFIG SET maxmemory-policy noeviction" in str(error)
