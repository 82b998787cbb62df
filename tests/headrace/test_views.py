from __future__ import annotations

import datetime

import numpy as np
import pytest

import headrace as hr
from headrace.assembly import event_columns_needed
from tests.headrace.declared import airport, departures, origin_view

MINUTE = 60_000_000


def test_feature_names_carry_the_window_as_it_was_written() -> None:
    view = origin_view(
        features={
            "n": hr.count().over("24h", "90m"),
            "once": hr.max("dep_delay").over("7d"),
            "ratio": hr.count().over("1h") / hr.count().over("24h"),
            "ever": hr.count().lifetime(),
        }
    )
    assert view.feature_names == ("n_24h", "n_90m", "once_7d", "ratio", "ever")


def test_key_defaults_to_the_field_of_its_name() -> None:
    route = hr.Entity("route", keys={"dest": hr.string(), "from_": hr.string()})
    view = hr.FeatureView(
        "by_route", entity=route, event=departures(), keys={"from_": "origin"}, features={"n": hr.count().over("1h")}
    )
    assert dict(view.keys) == {"dest": "dest", "from_": "origin"}
    assert view.key_fields == ("dest", "origin")


def test_columns_are_time_and_what_is_aggregated_or_filtered() -> None:
    view = origin_view(
        where=~hr.col("charter"), features={"d": hr.mean("dep_delay", where=hr.col("carrier") == "UA").over("1h")}
    )
    assert event_columns_needed(view) == ("departed_at", "dep_delay", "charter", "carrier")


def test_filter_of_every_type_is_accepted_and_names_its_fields() -> None:
    moment = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC)
    where = (
        (hr.col("departed_at") >= moment)
        & hr.col("dest").is_in(["ORD", "SFO"])
        & ~hr.col("charter")
        & ((hr.col("charter") == False) | (hr.col("distance") * 1.5 <= np.float64(900.0)))  # noqa: E712
    )
    view = origin_view(where=where, features={"n": hr.count().over("1h")})
    assert view.columns == ("dest", "departed_at", "distance", "charter")


def test_ladder_serves_all_windows_and_can_be_declared() -> None:
    assert origin_view().windows_us == (30 * MINUTE, 180 * MINUTE)
    declared = origin_view(tile={"30m": "10s"})
    assert declared.ladder.tile_us(30 * MINUTE) == 10_000_000
    assert origin_view(tile="1m").ladder.tiles_us == (MINUTE,)


def test_tolerance_is_in_microseconds() -> None:
    assert origin_view(tolerance="90s").tolerance_us == 90_000_000


def test_lookup_keeps_the_order_of_the_view() -> None:
    lookup = origin_view().lookup("since_last", "departures_3h", airport="dest", alias="dest")
    assert lookup.features == ("departures_3h", "since_last")
    assert lookup.visible_name("since_last") == "dest__since_last"
    assert dict(lookup.keys) == {"airport": "dest"}


def test_lookup_without_alias_is_named_by_the_view() -> None:
    assert origin_view().lookup().visible_name("delay_3h") == "origin_departures__delay_3h"


def test_unknown_feature_of_a_lookup_is_not_found() -> None:
    with pytest.raises(
        hr.NotFound, match=r"there is no feature of view 'origin_departures' named 'delay'; did you mean"
    ):
        origin_view().lookup()["delay"]


def test_two_views_share_an_event_and_an_entity() -> None:
    event, entity = departures(), airport()
    by_origin = origin_view(event=event, entity=entity)
    by_dest = hr.FeatureView(
        "by_dest", entity=entity, event=event, keys={"airport": "dest"}, features={"n": hr.count().over("1h")}
    )
    assert by_origin != by_dest
    assert by_origin.layout_fingerprint != by_dest.layout_fingerprint


def test_view_may_key_a_dict_although_filters_overload_equality() -> None:
    view = origin_view(where=hr.col("distance") > 100)
    assert {view: 1}[origin_view(where=hr.col("distance") > 100.0)] == 1
    assert view != origin_view(where=hr.col("distance") > 101)
