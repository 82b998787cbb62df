"""Puts one flush together: every dirty state of every view, cut into commits, and the lanes' positions.

The commits of a lane form a chain, and only its last one advances the lane's watermarks: if the chain breaks off, its events
come again, and the offsets inside the states keep them from counting twice. Lanes without rows are advanced once a second, so
that none of them pins the position at which a restart begins. What may not live here: sockets, answers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace_schemas.stores.lanes import COMMIT, MAX_COMMIT_BYTES, MAX_COMMIT_KEYS, TOKEN_BYTES, LaneRecord
from headrace_streams.cache import Packed
from headrace_streams.commits import Commit
from headrace_streams.flusher import LaneNames
from headrace_streams.folding import ViewFolder, pack
from headrace_streams.session import script_id

BEAT_S = 0.8  # a lane is committed to at least that often; its owner counts as dead after 3 s of silence
_CALL = b"$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n" % script_id(COMMIT).encode()
_FIXED_ARGUMENTS = 8  # EVALSHA, script, number of keys, lane record, owner, expected head, new head, number of fields
_LANES_MOST = 1 << 20  # lanes of one view, for numbering lanes over views


@dataclass(frozen=True, slots=True)
class Flush:
    """What goes to Redis at once.

    Args:
        commits: in order.
        data: their packed commands.
        bounds: where each begins and the last ends.
        positions: for each view, the offset by partition below which all is committed once this is.
    """

    commits: list[Commit]
    data: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.int64]
    positions: list[dict[int, int]]


@dataclass(frozen=True, slots=True)
class _Part:
    """One view's share of a flush."""

    folder: ViewFolder
    numbers: npt.NDArray[np.int32]
    lanes: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    heads: Packed


@dataclass(slots=True)
class _Lane:
    """What the owner keeps of a lane."""

    call: bytes  # the packed script call up to the owner
    heads: list[bytes]  # what its head may be, the newest last
    replaced: bytes  # the owner before us
    committed_s: float = 0.0
    settled: int = 0  # place among the heads of the last acknowledged one


class FlushBuilder:
    """Builds flushes for the owner of one shard's lanes.

    Args:
        folders: the views.
        token: the owner.
    """

    def __init__(self, folders: Sequence[ViewFolder], token: bytes) -> None:
        self._folders, self._token = folders, token
        self._lanes: list[dict[int, _Lane]] = [{} for _ in folders]

    def claimed(self, view: int, records: Sequence[LaneRecord]) -> None:
        """The lanes of a view are ours; these are their records as they were found."""
        folder = self._folders[view]
        for lane, record in zip(folder.positions.lanes, records, strict=True):
            call = _CALL + _bulk(folder.keys.lane_key(lane)) + _bulk(self._token)
            self._lanes[view][lane] = _Lane(call, [record.head], record.owner)

    def acknowledged(self) -> None:
        """All that was sent is applied. A read that was asked for before may still show what was before."""
        for lanes in self._lanes:
            for lane in lanes.values():
                lane.settled = len(lane.heads) - 1

    def forget_heads(self) -> None:
        """No read is under way: none that is asked for from now on may show what was before the last acknowledged heads."""
        for lanes in self._lanes:
            for lane in lanes.values():
                del lane.heads[: lane.settled]
                lane.settled = 0

    def knows(self, view: int, lane: int, head: bytes) -> bool:
        """Whether a lane of ours has this head, or had it when a read was asked for that is not answered yet."""
        return head in self._lanes[view][lane].heads

    def due(self, now_s: float) -> bool:
        """Whether there is anything to send: dirty states, or a lane that has been silent for too long."""
        if any(folder.cache.dirty for folder in self._folders):
            return True
        return any(now_s - lane.committed_s > BEAT_S for lanes in self._lanes for lane in lanes.values())

    def build(self, now_s: float, *, last: bool = False) -> Flush:
        """Everything that is dirty, and every lane that is due. From here on it counts as being sent.

        Args:
            now_s: monotonic clock.
            last: advance every lane, because there will be no other flush.
        """
        commits: list[Commit] = []
        parts = [self._part(view, now_s, commits, last) for view in range(len(self._folders))]
        bounds = [part_bounds(part) for part in parts]
        data = np.empty(sum(int(bound[-1]) for bound in bounds), np.uint8)
        begins, at = [np.zeros(1, np.int64)], 0
        for part, bound in zip(parts, bounds, strict=True):
            part.folder.cache.pack_commits(
                part.numbers, part.lanes, part.folder.prefixes, part.ends, part.heads, data[at : at + int(bound[-1])]
            )
            part.folder.cache.depart(part.numbers)
            begins.append(bound[1:] + at)
            at += int(bound[-1])
        positions = [folder.positions.committed_below() for folder in self._folders]
        return Flush(commits, data, np.concatenate(begins), positions)

    def _part(self, view: int, now_s: float, commits: list[Commit], last: bool) -> _Part:
        """Cut a view's dirty states into commits and add those to the list."""
        folder, known = self._folders[view], self._lanes[view]
        numbers, lanes = folder.cache.dirty_by_lane(folder.view.lanes)
        prefix_bytes = np.diff(folder.prefixes.offsets)
        ends = folder.cache.cut(numbers, lanes, prefix_bytes, MAX_COMMIT_KEYS, MAX_COMMIT_BYTES)
        of: list[int] = lanes[ends - 1].tolist()
        busy = set(of)
        idle = [n for n, lane in known.items() if n not in busy and (last or now_s - lane.committed_s > BEAT_S)]
        ends = np.concatenate([ends, np.full(len(idle), len(numbers), np.int64)])
        of += idle
        ids = os.urandom(TOKEN_BYTES * len(of))
        counts = np.diff(ends, prepend=0).tolist()
        heads = []
        for index, number in enumerate(of):
            lane = known[number]
            commit = Commit(
                view * _LANES_MOST + number, lane.heads[-1], ids[TOKEN_BYTES * index : TOKEN_BYTES * (index + 1)]
            )
            chain_ends = index + 1 == len(of) or of[index + 1] != number
            told = folder.positions.tell(folder.positions.row(number)) if chain_ends else []
            heads.append(_call(lane, commit, told, counts[index]))
            lane.heads.append(commit.id)
            lane.committed_s = now_s
            commits.append(commit)
        return _Part(folder, numbers, lanes, ends, pack(heads))

    @property
    def lanes(self) -> LaneNames:
        """How to speak of the lanes of commits."""
        return LaneNames(self._name, self._key, self._replaced)

    def _name(self, lane: int) -> str:
        view, number = divmod(lane, _LANES_MOST)
        return self._folders[view].lane_name(number)

    def _replaced(self, lane: int) -> bytes:
        view, number = divmod(lane, _LANES_MOST)
        return self._lanes[view][number].replaced

    def _key(self, lane: int) -> bytes:
        view, number = divmod(lane, _LANES_MOST)
        return self._folders[view].keys.lane_key(number)


def part_bounds(part: _Part) -> npt.NDArray[np.int64]:
    """Where each commit of a view's share begins, and the last ends."""
    prefix_bytes = np.diff(part.folder.prefixes.offsets)
    return part.folder.cache.commit_bounds(part.numbers, part.lanes, prefix_bytes, part.ends, part.heads.offsets)


def _call(lane: _Lane, commit: Commit, told: Sequence[bytes], states: int) -> bytes:
    """The packed script call up to the first state's key."""
    arguments = _FIXED_ARGUMENTS + len(told) + 2 * states
    fixed = (b"*%d\r\n" % arguments, lane.call, _bulk(commit.expected), _bulk(commit.id), _bulk(b"%d" % len(told)))
    return b"".join([*fixed, *map(_bulk, told)])


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)
