"""Which rows are new to which lane: the lane skip and the gap."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import Gap
from headrace_schemas.stores.lanes import LaneRecord, Watermark
from headrace_streams.items import Span
from headrace_streams.positions import Positions


def opened(*nexts: int | None, start: int = 0, partition: int = 0, first: int = 0) -> Positions:
    """Lanes 0, 1 … that hold what is before these offsets; None for a lane that nobody committed to yet."""
    positions = Positions(range(len(nexts)), lambda lane: f"lane {lane} of view 'v'")
    records = [
        LaneRecord() if next_ is None else LaneRecord(watermarks={("id", partition): Watermark(next_)})
        for next_ in nexts
    ]
    positions.open("id", 2, records, {partition: Watermark(start)}, {partition: first})
    return positions


def span(start: int, next_: int, partition: int = 0) -> Span:
    return Span(partition, start, Watermark(next_, 4, "d"))


def test_a_batch_that_follows_is_new_to_every_lane() -> None:
    positions = opened(5, 5, start=5)
    assert not positions.is_old([span(5, 9)])
    assert positions.all_new([span(5, 9)])
    positions.advance([span(5, 9)])
    assert positions.committed_below() == {0: 9}


def test_a_batch_that_all_lanes_hold_is_old() -> None:
    assert opened(9, 12, start=5).is_old([span(5, 9)])


def test_rows_that_a_lane_holds_are_dropped_for_that_lane_only() -> None:
    positions = opened(5, 8, start=5)
    assert not positions.all_new([span(5, 10)])
    rows = positions.new_rows(np.array([0, 1, 0, 1], np.int32), np.zeros(4, np.int32), np.array([5, 6, 7, 8], np.int64))
    assert rows.tolist() == [0, 2, 3]


def test_missing_offsets_are_a_gap_and_named() -> None:
    positions = opened(5, 5, start=5)
    with pytest.raises(Gap, match=r"lane 0 of view 'v', partition 0: offsets 5 to 6 are missing"):
        positions.all_new([span(7, 9)])


def test_a_source_that_begins_behind_a_lane_is_a_gap() -> None:
    """The start was read before the claim, and is only a hint; the claimed record decides."""
    with pytest.raises(Gap, match="offsets 5 to 7 are missing"):
        opened(5, start=8)


def test_a_lane_that_forgot_everything_since_the_start_was_settled_is_a_gap() -> None:
    """Otherwise it would begin where it had been before, and what it held would be lost without a word."""
    with pytest.raises(Gap, match="offsets 3 to 7 are missing"):
        opened(None, start=8, first=3)


def test_a_fresh_lane_begins_where_the_source_begins() -> None:
    positions = opened(None, start=40, first=40)
    assert positions.committed_below() == {0: 40}
    assert positions.tell(0) == [b"wm:id:0", b"40:-1:"], (
        "even before its first row, so that the partition counts as known"
    )


def test_a_lane_tells_each_position_once_and_one_that_is_ahead_tells_nothing() -> None:
    positions = opened(5, 20, start=5)
    positions.advance([span(5, 9)])
    assert positions.tell(0) == [b"wm:id:0", b"9:4:d"]
    assert positions.tell(0) == []
    assert positions.tell(1) == []
    positions.advance([span(9, 25)])
    assert positions.tell(1) == [b"wm:id:0", b"25:4:d"]


def test_a_new_view_catches_up_without_moving_the_lanes_that_are_ahead() -> None:
    ahead = opened(100, start=0)
    for start in range(0, 100, 10):
        assert ahead.is_old([span(start, start + 10)])
    assert ahead.tell(0) == []
    assert ahead.all_new([span(100, 110)])
