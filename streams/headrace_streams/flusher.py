"""Sends flushes to Redis and sees each through to its end: the write half of the protocol, on a wire.

One flush is under way at a time. Its bytes are kept until every commit is answered, so that after a time-out, a lost connection
or a refusal the very same bytes are sent again, from the first commit that is not known to be applied. While Redis refuses or
is away this blocks, so the source is not polled and nothing piles up. What may not live here: what is in a flush.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headrace.errors import ServiceUnavailable
from headrace_schemas.stores.resp import Address, Connection, Disconnected
from headrace_schemas.stores.topology import Topology
from headrace_streams.commits import Commit, Ledger
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.session import Links, load_scripts

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class LaneNames:
    """How to speak of the lanes of a flush's commits.

    Args:
        name: for messages.
        key: the lane record's key.
        replaced: the owner whom this worker replaced.
    """

    name: Callable[[int], str]
    key: Callable[[int], bytes]
    replaced: Callable[[int], bytes] = lambda lane: b""


@dataclass(slots=True)
class _Line:
    """A connection, and which commit each coming answer is for."""

    connection: Connection
    awaited: deque[int] = field(default_factory=deque)


class Flusher:
    """One flush after the other.

    Args:
        topology: where the primaries are.
        journal: where outages are reported.
        patience: how long to wait for what.
    """

    def __init__(self, topology: Topology, journal: Journal, patience: Patience) -> None:
        self._topology, self._journal, self._patience = topology, journal, patience
        self._links = Links(topology, journal, patience.answer_s)
        self._lines: dict[Address, _Line] = {}
        self._open = 0  # answers to commits that are still to come in this round
        self._ledger: Ledger | None = None
        self._lanes = LaneNames(str, lambda lane: b"")
        self._data = memoryview(b"")
        self._bounds: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._moved_at = 0.0
        self.counts: Counter[str] = Counter()
        """Flushes, commits, and commits that were sent again."""
        self.in_trouble = False

    @property
    def busy(self) -> bool:
        """Whether a flush is under way."""
        return self._ledger is not None

    def start(
        self, commits: Sequence[Commit], data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], lanes: LaneNames
    ) -> None:
        """Send a flush; `poll` or `wait` brings it to its end.

        Args:
            commits: in order.
            data: their packed commands, which must not change before the end.
            bounds: where each begins and the last ends.
            lanes: how to speak of their lanes.
        """
        assert self._ledger is None, "one flush at a time"
        self._ledger, self._lanes = Ledger(commits, lanes.name, lanes.replaced), lanes
        self._data, self._bounds = data.data, bounds
        self.counts.update(flushes=1, commits=len(commits))
        self._moved_at = time.monotonic()
        self._send(self._ledger.to_send())

    def post(self, key: bytes, command: bytes) -> None:
        """Send a command whose answer does not matter, if there is a connection to where its key lies."""
        try:
            line = self._lines.get(self._links.locate(key)) if self._lines else None
            if line is not None:
                line.awaited.append(_NOBODY)
                line.connection.send(command)
        except Disconnected as error:
            self._drop(str(error))

    def poll(self) -> bool:
        """Take the answers that are there; returns whether no flush is under way any more.

        Blocks only while Redis refuses or is away.

        Raises:
            Fenced, Stale: as the answers say.
            ServiceUnavailable: Redis has been away for longer than the patience.
        """
        if self._ledger is None:
            return True
        try:
            self._take()
        except Disconnected as error:
            self._drop(str(error))
        if self._ledger.done:
            self._ledger = None
            return True
        return self.wait() if not self._open else False

    def _take(self) -> None:
        taken = [(line, reply) for line in self._lines.values() for reply in line.connection.replies()]
        if taken:
            self._moved_at = time.monotonic()
        elif self._lines and time.monotonic() - self._moved_at > self._patience.answer_s:
            raise Disconnected(f"no answer within {self._patience.answer_s:g} s")
        for line, reply in taken:
            self._note(line, reply)

    def wait(self) -> bool:
        """Bring the flush to its end, however long Redis refuses or is away.

        Raises:
            Fenced, Stale: as the answers say.
            ServiceUnavailable: Redis has been away for longer than the patience.
        """
        since: float | None = None
        pauses = self._patience.pauses()
        while self._ledger is not None:
            reason = self._finish_round(self._ledger)
            if self._ledger.done:
                self._ledger = None
                break
            if since is None:
                since = time.monotonic()
                self.in_trouble = True
                self._journal.note("redis-trouble", reason=reason, address=str(self._topology))
            if time.monotonic() - since > self._patience.outage_s:
                raise ServiceUnavailable("Redis", str(self._topology), reason)
            if not self._lines or self._ledger.refusal:
                time.sleep(next(pauses))
            self._mend(self._ledger)
            again = self._ledger.to_send()
            self.counts["again"] += len(again)
            self._send(again)
        if since is not None:
            self.in_trouble = False
            self._journal.note("redis-back", after_s=round(time.monotonic() - since, 3))
        return True

    def _finish_round(self, ledger: Ledger) -> str:
        """Take the answers that are still to come; the reason if not all commits are applied then."""
        try:
            for line in self._lines.values():
                while any(index != _NOBODY for index in line.awaited):
                    self._note(line, line.connection.wait())
        except Disconnected as error:
            self._drop(str(error))
            return str(error)
        return ledger.refusal or ("the scripts were not loaded" if ledger.scripts_missing else "not connected")

    def _mend(self, ledger: Ledger) -> None:
        """Before commits are sent again: make the scripts known, leave a server that is no primary or not theirs."""
        if ledger.moved:
            self._drop(ledger.refusal or "moved")
        if ledger.scripts_missing:
            try:
                for line in self._lines.values():
                    while line.awaited:  # answers that nobody waits for stand before those of the loading
                        self._note(line, line.connection.wait())
                    load_scripts(line.connection)
            except Disconnected as error:
                self._drop(str(error))

    def _send(self, indices: Sequence[int]) -> None:
        try:
            addresses = self._addresses(indices)
            first = 0
            while first < len(indices):  # runs of neighbours go out in one piece
                last = first
                while (
                    last + 1 < len(indices)
                    and indices[last + 1] == indices[last] + 1
                    and addresses[last + 1] is addresses[first]
                ):
                    last += 1
                line = self._line(addresses[first])
                line.awaited.extend(indices[first : last + 1])
                self._open += last + 1 - first
                line.connection.send(self._data[self._bounds[indices[first]] : self._bounds[indices[last] + 1]])
                first = last + 1
        except Disconnected as error:
            self._drop(str(error))

    def _addresses(self, indices: Sequence[int]) -> list[Address]:
        """Where each commit goes; the same object for the same server."""
        if self._topology.one:
            return [self._links.locate(b"")] * len(indices)
        assert self._ledger is not None
        of_lane: dict[int, Address] = {}
        for lane in {self._ledger.commits[index].lane for index in indices}:
            of_lane[lane] = self._links.locate(self._lanes.key(lane))
        return [of_lane[self._ledger.commits[index].lane] for index in indices]

    def _line(self, address: Address) -> _Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = _Line(self._links.to(address))
        return line

    def _note(self, line: _Line, reply: object) -> None:
        index = line.awaited.popleft()
        if index != _NOBODY:
            self._open -= 1
            assert self._ledger is not None
            self._ledger.answer(index, reply)

    def _drop(self, reason: str) -> None:
        self._links.drop(reason)
        self._lines.clear()
        self._open = 0

    def close(self) -> None:
        """Close the connections; a flush under way is given up."""
        self._links.close()
        self._lines.clear()
