"""How far the lanes of one view have come: which rows of a batch are new to which lane.

Two arrays, [lanes of this shard, partitions], −1 where nothing is known: `folded`, the next offset that a lane's states do not
hold yet, and `sent`, the one that Redis holds or is being told. A batch range [start, next) is, lane by lane,

    next ≤ folded            old: ignored
    start > folded           a gap: offsets are missing between them
    otherwise                rows below `folded` are dropped, the rest is new

What may not live here: states, Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headrace.errors import Gap
from headrace_schemas.stores.lanes import LaneRecord, Watermark, watermark_field
from headrace_streams.items import Span

_UNKNOWN = -1
_I64 = npt.NDArray[np.int64]


class Positions:
    """Positions of one view's lanes in one shard.

    Args:
        lanes: the lanes, by number.
        name: a lane's name for messages.
    """

    def __init__(self, lanes: Sequence[int], name: Callable[[int], str]) -> None:
        self.lanes = tuple(lanes)
        self._name = name
        self._rows = {lane: row for row, lane in enumerate(self.lanes)}
        self.folded: _I64 = np.full((len(self.lanes), 0), _UNKNOWN, np.int64)
        self.sent: _I64 = self.folded.copy()
        self._marks: dict[
            int, Watermark
        ] = {}  # newest range's end by partition: what a lane that reached it writes down
        self._fields: list[bytes] = []

    def open(
        self,
        topic_id: str,
        partitions: int,
        records: Sequence[LaneRecord],
        starts: Mapping[int, Watermark],
        firsts: Mapping[int, int],
    ) -> None:
        """Begin: the claimed records say where the lanes are, `starts` where the source begins.

        Args:
            topic_id: the topic's id.
            partitions: how many it has.
            records: the claimed record of each lane.
            starts: by partition that the source reads.
            firsts: by partition, where a lane may begin that holds nothing of it.

        Raises:
            Gap: the source begins behind a lane. A lane that knew where it was when the starts were settled, and knows
                nothing now, fell back to its beginning in between.
        """
        missing = partitions - self.folded.shape[1]
        if missing > 0:
            wider = np.full((len(self.lanes), missing), _UNKNOWN, np.int64)
            self.folded = np.concatenate([self.folded, wider], axis=1)
            self.sent = np.concatenate([self.sent, wider], axis=1)
        self._fields = [watermark_field(topic_id, partition) for partition in range(partitions)]
        for partition, start in starts.items():
            self._marks[partition] = start
            for row, record in enumerate(records):
                known = record.watermarks.get((topic_id, partition))
                reached = firsts[partition] if known is None else known.next
                self.folded[row, partition] = reached
                if known is not None:
                    self.sent[row, partition] = reached
                if start.next > reached:
                    raise self._gap(row, partition, start.next)

    def _gap(self, row: int, partition: int, got: int) -> Gap:
        name = f"{self._name(self.lanes[row])}, partition {partition}"
        return Gap(name, int(self.folded[row, partition]), got)

    def is_old(self, spans: Sequence[Span]) -> bool:
        """Whether every lane holds all of these ranges already."""
        return all(bool((self.folded[:, span.partition] >= span.upto.next).all()) for span in spans)

    def all_new(self, spans: Sequence[Span]) -> bool:
        """Whether every row of these ranges is new to its lane.

        Raises:
            Gap: offsets are missing before a range.
        """
        new = True
        for span in spans:
            behind = self.folded[:, span.partition]
            if bool((behind < span.start).any()):
                raise self._gap(int((behind < span.start).argmax()), span.partition, span.start)
            new &= bool((behind == span.start).all())
        return new

    def new_rows(self, lanes: npt.NDArray[np.int32], partition: npt.NDArray[np.int32], offset: _I64) -> _I64:
        """Which rows are new to their lanes.

        Args:
            lanes: the lane of each row, as its place in this shard.
            partition: its partition.
            offset: its offset.
        """
        return np.flatnonzero(offset >= self.folded[lanes, partition])

    def advance(self, spans: Sequence[Span]) -> None:
        """These ranges are folded."""
        for span in spans:
            column = self.folded[:, span.partition]
            np.maximum(column, span.upto.next, out=column)
            if span.upto.next >= self._marks[span.partition].next:
                self._marks[span.partition] = span.upto

    def row(self, lane: int) -> int:
        """A lane's place in this shard."""
        return self._rows[lane]

    def tell(self, row: int) -> list[bytes]:
        """Fields and values for a lane's record that Redis has not been told yet; they count as told."""
        told: list[bytes] = []
        for partition in np.flatnonzero(self.folded[row] != self.sent[row]).tolist():
            # A lane that is ahead of the source has nothing to tell, so whoever has is exactly at the mark.
            told += [self._fields[partition], self._marks[partition].encode()]
        self.sent[row] = self.folded[row]
        return told

    def committed_below(self) -> dict[int, int]:
        """By partition: the offset below which all lanes have folded everything."""
        lowest = self.folded.min(axis=0) if len(self.lanes) else np.zeros(0, np.int64)
        return {partition: next_ for partition, next_ in enumerate(lowest.tolist()) if next_ != _UNKNOWN}
