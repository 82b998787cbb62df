"""Durations, ladders and feature expressions, and what they say where a rule is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import features
from headrace.durations import format_us, parse_us
from headrace.errors import DefinitionError
from headrace.windows import MAX_LEVELS, build_ladder


def tiles(*windows: str, tile: str | dict[str, str] | None = None) -> list[str]:
    declared = (
        {parse_us(k): parse_us(v) for k, v in tile.items()} if isinstance(tile, dict) else tile and parse_us(tile)
    )
    return [format_us(size) for size in build_ladder([parse_us(w) for w in windows], declared or None).tiles_us]


@given(st.integers(0, 10**15))
def test_every_length_is_read_back_from_its_text(us: int) -> None:
    assert parse_us(format_us(us)) == us


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "1.5h", "-1h", "30m1h", "1h1h", "1y", "9999999w"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"a duration is digits and a unit, such as '90s'"):
        parse_us(text)


def test_durations_may_be_timedeltas_and_compounds() -> None:
    assert parse_us(timedelta(minutes=90)) == parse_us("1h30m") == parse_us("90m")


@pytest.mark.parametrize(
    ("windows", "wanted"),
    [
        (("30m", "3h", "24h"), ["30s", "3m", "30m"]),
        (("10m", "1h", "24h", "7d"), ["10s", "1m", "30m", "3h"]),
        (("1h", "2h"), ["1m"]),
        (("90s",), ["1s"]),
        ((), []),
    ],
)
def test_tiles_are_nice_sizes_of_at_most_a_48th(windows: tuple[str, ...], wanted: list[str]) -> None:
    assert tiles(*windows) == wanted


@settings(derandomize=True, database=None, deadline=None)
@given(st.lists(st.integers(1, 30 * 24 * 60).map(lambda minutes: minutes * 60_000_000), min_size=1, max_size=20))
def test_every_ladder_is_a_chain_of_at_most_five_multiples(windows: list[int]) -> None:
    ladder = build_ladder(windows)
    assert len(ladder.tiles_us) <= MAX_LEVELS
    assert all(high % low == 0 for low, high in itertools.pairwise(ladder.tiles_us))
    assert all(ladder.tile_us(window) * 48 <= window for window in windows)


def test_a_declared_tile_holds_for_its_window() -> None:
    assert tiles("1h", "24h", tile="1m") == ["1m"]
    assert tiles("1h", "24h", tile={"1h": "10s"}) == ["10s", "30m"]


@pytest.mark.parametrize(
    ("windows", "tile", "message"),
    [
        (("90s",), "2m", "window '90s' is shorter than its tile '2m'; declare tile='1s' or a window of at least '2m'"),
        (("1h",), {"1h": "0s"}, "the tile of window '1h' is '0s'"),
        (("1w",), "10s", "a window has at most 4096 tiles, but window '1w' has 60,480 of '10s'"),
        (("1w",), {"1h": "1m"}, "tile '1m' is for a window '1h' that no feature uses; declare it for one of '1w'"),
        (("1h", "24h"), {"1h": "7m", "24h": "10m"}, "no such ladder holds the declared tiles"),
    ],
)
def test_tiles_that_do_not_fit_are_refused_with_a_remedy(
    windows: tuple[str, ...], tile: str | dict[str, str], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        tiles(*windows, tile=tile)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features.count() + 1, r"hr.count\(...\) without a window was used; write .over\('1h'\)"),
        (lambda: 1 / features.count().over("1h", "2h"), "exactly one window, but count is over 2: '1h', '2h'"),
        (lambda: features.count().over("1h") * float("inf"), "inf was used"),
        (lambda: features.mean(""), "takes the name of an event field, but ''"),
        (lambda: features.mean("x", default=float("nan")), "the default of hr.mean is a finite number"),
        (lambda: features.count().over(), r"over\(\) takes at least one window"),
        (lambda: features.count().over("0s"), "longer than nothing"),
        (lambda: features.count().over("1h", "60m"), "window '1h' is given twice"),
        (lambda: features.var("x", ddof=2), "ddof of hr.var is 0"),
    ],
)
def test_broken_feature_expressions_are_refused_where_they_are_written(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        make()
    assert caught.value.where.file == __file__


def test_a_window_keeps_the_text_that_names_its_feature() -> None:
    assert [window.text for window in features.count().over("24h", timedelta(days=2)).windows] == ["24h", "2d"]
