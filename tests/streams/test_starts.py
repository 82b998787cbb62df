"""Where the source begins, or why it does not."""

from __future__ import annotations

import pytest

from headrace.errors import Gap, IdentityError
from headrace_schemas.stores.lanes import LaneRecord, Watermark
from headrace_streams.starts import TopicFacts, highest_marks, start_positions


def facts(first: dict[int, int], end: dict[int, int], logged: dict[int, tuple[int, int]] | None = None) -> TopicFacts:
    return TopicFacts("flights.departures", "now", first, end, logged or {})


def lane(topic_id: str = "now", **nexts: int) -> LaneRecord:
    return LaneRecord(watermarks={(topic_id, int(p[1:])): Watermark(n, 0, "d") for p, n in nexts.items()})


def test_it_begins_at_the_lowest_position_of_all_lanes() -> None:
    lanes = {"view 'a'": [lane(p0=7, p1=3), lane(p0=9, p1=4)], "view 'b'": [lane(p0=8, p1=9)]}
    starts = start_positions(facts({0: 0, 1: 0}, {0: 20, 1: 20}), lanes)
    assert {partition: mark.next for partition, mark in starts.items()} == {0: 7, 1: 3}


def test_a_fresh_view_begins_at_the_first_offset() -> None:
    starts = start_positions(facts({0: 5}, {0: 20}), {"view 'old'": [lane(p0=12)], "view 'new'": [LaneRecord()]})
    assert starts[0].next == 5


def test_a_fresh_view_stops_where_the_log_holds_what_the_topic_lost() -> None:
    with pytest.raises(IdentityError, match=r"a first offset of 5: 2 to 4 are missing; Restore the records"):
        start_positions(facts({0: 5}, {0: 20}, {0: (2, 4)}), {"view 'new'": [LaneRecord()]})


def test_the_log_is_read_up_to_what_the_topic_keeps_and_no_further() -> None:
    """It may be ahead of the lanes, and what broke its contract stands in the topic only."""
    known = facts({0: 5, 1: 0}, {0: 20, 1: 20}, {0: (0, 18), 1: (0, 18)})
    starts = start_positions(known, {"view 'a'": [lane(p0=3, p1=3)]})
    assert {partition: mark.next for partition, mark in starts.items()} == {0: 3, 1: 3}
    assert known.history(starts) == {0: Watermark(5)}


def test_a_position_below_the_first_offset_stops_and_names_the_missing_range() -> None:
    with pytest.raises(IdentityError) as caught:
        start_positions(facts({0: 50}, {0: 90}), {"view 'a'": [lane(p0=30)]})
    assert str(caught.value) == (
        "topic 'flights.departures': required partition 0 from offset 30 on, for view 'a', got a first offset of 50: "
        "30 to 49 are missing; Restore the records to the topic, or begin anew with another [project] namespace in "
        "headrace.toml, which counts only what the topic still holds"
    )


def test_a_topic_that_was_made_anew_stops_and_names_the_choices() -> None:
    with pytest.raises(IdentityError) as caught:
        start_positions(facts({0: 0}, {0: 90}), {"view 'a'": [lane("before", p0=30)]})
    assert "required topic id before, of which view 'a' holds a part" in str(caught.value)
    assert "got topic id now: the topic was made anew" in str(caught.value)
    assert "another [project] namespace in headrace.toml" in str(caught.value)
    assert "bring the broker back" in str(caught.value)


def test_a_topic_that_ends_before_a_position_stops() -> None:
    with pytest.raises(
        IdentityError, match="reach offset 30, which view 'a' holds, got an end at 20: records were lost"
    ):
        start_positions(facts({0: 0}, {0: 20}), {"view 'a'": [lane(p0=30)]})


def test_a_partition_that_is_new_to_the_topic_begins_at_its_first_record() -> None:
    starts = start_positions(facts({0: 0, 1: 0}, {0: 20, 1: 4}), {"view 'a'": [lane(p0=12)]})
    assert {partition: mark.next for partition, mark in starts.items()} == {0: 12, 1: 0}


def test_a_new_partition_that_lost_records_already_stops() -> None:
    with pytest.raises(IdentityError, match="0 to 3 are missing"):
        start_positions(facts({0: 0, 1: 4}, {0: 20, 1: 9}), {"view 'a'": [lane(p0=12)]})


def test_a_lane_that_knows_later_partitions_but_not_this_one_is_a_gap() -> None:
    with pytest.raises(Gap, match="a lane of view 'a', partition 0"):
        start_positions(facts({0: 0, 1: 0}, {0: 20, 1: 9}), {"view 'a'": [lane(p1=3)]})


def test_lanes_of_views_that_are_not_registered_are_not_asked() -> None:
    """An old layout's lane at offset 3 would rewind everyone; it is not among the lanes that count."""
    starts = start_positions(facts({0: 0}, {0: 20}), {"view 'registered'": [lane(p0=12)]})
    assert starts[0].next == 12


def test_the_highest_mark_of_each_partition_is_the_one_to_verify() -> None:
    lanes = {"view 'a'": [lane(p0=7), lane(p0=9)], "view 'b'": [lane("before", p0=50)]}
    assert {p: mark.next for p, mark in highest_marks(facts({0: 0}, {0: 20}), lanes).items()} == {0: 9}
