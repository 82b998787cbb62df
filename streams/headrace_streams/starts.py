"""Where the source begins, decided before anything is read: the lowest position of all registered lanes, if that is possible.

For each partition of a topic, what its lanes know, against what the broker has:

    lanes know another topic id only         the topic was made anew                     stop
    a lane's next > end of the partition     the topic lost records                      stop
    a lane's next < first offset             records expired before they were folded     begin there, if the log has them
    a fresh lane, the log has older rows     they would be missing from its states       begin where the log does
    a lane knows others, not this partition  it is new to the topic                      begin at 0, if the log or the topic does
    a fresh lane                             a new view                                  begin at the first offset

The log has what is missing if it holds every record from there up to one that the topic still keeps. Where it has not, the start
stops and names the missing range. It never skips. These positions are hints: the claims decide (`headrace_streams.positions`). What may not live here: I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import Gap, IdentityError
from headrace_schemas.stores.lanes import LaneRecord, Watermark

AGAIN = (
    "If the topic was made anew on purpose, begin anew: another [project] namespace in headrace.toml, an empty log directory; "
    "then produce the events again. If not, bring the broker back to the state it had"
)
_MISSING = (
    "Restore the records to the topic, or begin anew with another [project] namespace in headrace.toml, which counts only "
    "what the topic still holds"
)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of a topic, and the log of its records.

    Args:
        topic: its name.
        topic_id: the broker's id of it.
        first: the first offset that each partition still keeps.
        end: the offset behind each partition's last record.
        logged: what the log holds, by partition: its lowest offset, and the one behind its last; absent where it holds nothing.
    """

    topic: str
    topic_id: str
    first: Mapping[int, int]
    end: Mapping[int, int]
    logged: Mapping[int, tuple[int, int]]

    def covers(self, partition: int, start: int) -> bool:
        """Whether the log holds every record from an offset on, up to one that the topic still keeps."""
        lowest, upto = self.logged.get(partition, (start + 1, 0))
        return lowest <= start and upto >= self.first[partition]

    def begin(self, partition: int) -> int:
        """Where a lane begins that holds nothing of a partition."""
        first = self.first[partition]
        lowest, _ = self.logged.get(partition, (first, 0))
        return lowest if lowest < first and self.covers(partition, lowest) else first

    def history(self, starts: Mapping[int, Watermark]) -> dict[int, Watermark]:
        """By partition that has to be read from the log first: where the topic takes over, which is where it begins.

        Not where the log ends: the log writer may be ahead of the lanes, and events that broke their contract are not in
        the log, so what the topic keeps is read there, that they are set aside.
        """
        return {p: Watermark(self.first[p]) for p, start in starts.items() if start.next < self.first[p]}


def start_positions(facts: TopicFacts, lanes: Mapping[str, Sequence[LaneRecord]]) -> dict[int, Watermark]:
    """The first offset to read of each partition, with what stands before it.

    Args:
        facts: of the topic.
        lanes: the records of the lanes of each registered view of this topic, by a name for messages; the log has one lane.

    Raises:
        IdentityError: the topic is not what the lanes know, or begins behind where a lane has to.
        Gap: a lane's record contradicts itself.
    """
    starts = {}
    for partition in sorted(facts.first):
        marks = [_mark(facts, partition, view, record) for view, records in lanes.items() for record in records]
        starts[partition] = min(marks, key=lambda mark: mark.next, default=Watermark(facts.first[partition]))
    return starts


def highest_marks(facts: TopicFacts, lanes: Mapping[str, Sequence[LaneRecord]]) -> dict[int, Watermark]:
    """The highest watermark of each partition: if the record before it is still the same, all before it are."""
    highest: dict[int, Watermark] = {}
    for records in lanes.values():
        for record in records:
            for (topic_id, partition), mark in record.watermarks.items():
                known = highest.get(partition)
                if topic_id == facts.topic_id and (known is None or mark.next > known.next):
                    highest[partition] = mark
    return highest


def _mark(facts: TopicFacts, partition: int, view: str, record: LaneRecord) -> Watermark:
    """Where one lane has to begin in one partition."""
    ids = {topic_id for topic_id, _ in record.watermarks}
    if ids and facts.topic_id not in ids:
        raise _made_anew(facts, view, sorted(ids))
    first, end = facts.first[partition], facts.end[partition]
    mark = record.watermarks.get((facts.topic_id, partition))
    if mark is None:
        return _unknown(facts, partition, view, record)
    if mark.next > end:
        required = f"partition {partition} to reach offset {mark.next}, which {view} holds"
        raise IdentityError(facts.topic, required, f"an end at {end}: records were lost", AGAIN)
    if mark.next < first and not facts.covers(partition, mark.next):
        raise _missing(facts, partition, view, mark.next)
    return mark


def _unknown(facts: TopicFacts, partition: int, view: str, record: LaneRecord) -> Watermark:
    """A partition that a lane knows nothing of: the lane is fresh, or the partition is."""
    first = facts.first[partition]
    known = [other for topic_id, other in record.watermarks if topic_id == facts.topic_id]
    if not known:
        begin = facts.begin(partition)
        if begin > (lowest := facts.logged.get(partition, (begin, 0))[0]):
            raise _missing(facts, partition, view, lowest)
        return Watermark(begin)
    if partition < max(known):
        raise Gap(f"a lane of {view}, partition {partition}", 0, facts.end[partition])
    if first > 0 and not facts.covers(partition, 0):
        raise _missing(facts, partition, view, 0)
    return Watermark(0)


def _made_anew(facts: TopicFacts, view: str, ids: Sequence[str]) -> IdentityError:
    required = f"topic id {', '.join(ids)}, of which {view} holds a part"
    return IdentityError(facts.topic, required, f"topic id {facts.topic_id}: the topic was made anew", AGAIN)


def _missing(facts: TopicFacts, partition: int, view: str, start: int) -> IdentityError:
    first = facts.first[partition]
    required = f"partition {partition} from offset {start} on, for {view}"
    return IdentityError(
        facts.topic, required, f"a first offset of {first}: {start} to {first - 1} are missing", _MISSING
    )
