"""Sends flushes to Redis and sees each through to its end: the write half of the protocol, on a wire.

One flush is under way at a time. Its bytes are kept until every commit is answered, so that after a time-out, a lost connection
or a refusal the very same bytes are sent again, from the first commit that is not known to be applied. While Redis refuses or
is away this blocks, so the source is not polled and nothing piles up. What may not live here: what is in a flush.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from headrace.errors import ServiceUnavailable
from headrace_schemas.stores.resp import Address, Connection, Disconnected
from headrace_streams.commits import Commit, Ledger
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.session import connect, load_scripts

_NOBODY = -1


class Flusher:
    """One flush after the other.

    Args:
        address: of the Redis master.
        journal: where outages are reported.
        patience: how long to wait for what.
    """

    def __init__(self, address: Address, journal: Journal, patience: Patience) -> None:
        self._address, self._journal, self._patience = address, journal, patience
        self._connection: Connection | None = None
        self._awaited: deque[int] = deque()  # which commit each coming answer is for
        self._open = 0  # answers to commits that are still to come in this round
        self._ledger: Ledger | None = None
        self._data = memoryview(b"")
        self._bounds: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._moved_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a flush is under way."""
        return self._ledger is not None

    def start(
        self,
        commits: Sequence[Commit],
        data: npt.NDArray[np.uint8],
        bounds: npt.NDArray[np.int64],
        name: Callable[[int], str],
    ) -> None:
        """Send a flush; `poll` or `wait` brings it to its end.

        Args:
            commits: in order.
            data: their packed commands, which must not change before the end.
            bounds: where each begins and the last ends.
            name: a lane's name for messages.
        """
        assert self._ledger is None, "one flush at a time"
        self._ledger, self._data, self._bounds = Ledger(commits, name), data.data, bounds
        self._moved_at = time.monotonic()
        self._send(self._ledger.to_send())

    def post(self, command: bytes) -> None:
        """Send a command whose answer does not matter, if there is a connection."""
        if self._connection is not None:
            self._awaited.append(_NOBODY)
            try:
                self._connection.send(command)
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
        return self.wait() if self._connection is None or not self._open else False

    def _take(self) -> None:
        if self._connection is None:
            return
        replies = self._connection.replies()
        if replies:
            self._moved_at = time.monotonic()
        elif time.monotonic() - self._moved_at > self._patience.answer_s:
            raise Disconnected(f"no answer within {self._patience.answer_s:g} s")
        for reply in replies:
            self._note(reply)

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
                self._journal.note("redis-trouble", reason=reason, address=str(self._address))
            if time.monotonic() - since > self._patience.outage_s:
                raise ServiceUnavailable("Redis", str(self._address), reason)
            if self._connection is None or self._ledger.refusal:
                time.sleep(next(pauses))
            self._reload_scripts(self._ledger)
            self._send(self._ledger.to_send())
        if since is not None:
            self._journal.note("redis-back", after_s=round(time.monotonic() - since, 3))
        return True

    def _finish_round(self, ledger: Ledger) -> str:
        """Take the answers that are still to come; the reason if not all commits are applied then."""
        try:
            while self._open and self._connection is not None:
                self._note(self._connection.wait())
        except Disconnected as error:
            self._drop(str(error))
            return str(error)
        return ledger.refusal or ("the scripts were not loaded" if ledger.scripts_missing else "not connected")

    def _reload_scripts(self, ledger: Ledger) -> None:
        if ledger.scripts_missing and self._connection is not None:
            try:
                while self._awaited:  # answers that nobody waits for stand before those of the loading
                    self._note(self._connection.wait())
                load_scripts(self._connection)
            except Disconnected as error:
                self._drop(str(error))

    def _send(self, indices: Sequence[int]) -> None:
        try:
            if self._connection is None:
                self._connection = connect(self._address, self._patience.answer_s)
            first = 0
            while first < len(indices):  # runs of neighbours go out in one piece
                last = first
                while last + 1 < len(indices) and indices[last + 1] == indices[last] + 1:
                    last += 1
                self._awaited.extend(indices[first : last + 1])
                self._open += last + 1 - first
                self._connection.send(self._data[self._bounds[indices[first]] : self._bounds[indices[last] + 1]])
                first = last + 1
        except Disconnected as error:
            self._drop(str(error))

    def _note(self, reply: object) -> None:
        index = self._awaited.popleft()
        if index != _NOBODY:
            self._open -= 1
            assert self._ledger is not None
            self._ledger.answer(index, reply)

    def _drop(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close()
            self._journal.note("redis-disconnected", reason=reason, address=str(self._address))
        self._connection = None
        self._awaited.clear()
        self._open = 0

    def close(self) -> None:
        """Close the connection; a flush under way is given up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
