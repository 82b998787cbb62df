"""The prediction log: answered predictions go to Kafka after their answers, never before, and never in their way.

``append`` puts an entry on a bounded list and returns. The event loop encodes and produces it some milliseconds later, with
others; a turn takes a bounded share of what waits, so that encoding never holds up requests for long. A thread
would not do better: it would hold the interpreter's lock for the same time, at moments of its own choosing.

Nothing is lost silently: what does not fit (broker away, buffers full) or is not acknowledged is counted by reason, shown
by ``/health/ready`` and ``/metrics``, and said in the program's log once per outage. ``close`` sends what is left and waits
for the acknowledgements.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_log = logging.getLogger("headrace.serving")

EntryT = TypeVar("EntryT")
Delivered = Callable[[object, object], None]

_TURN_RECORDS = 16
_TURN_SHARE = 8  # a turn takes this fraction of what waits, so that a backlog shrinks under any load
_PAUSE_S = 0.005  # from an answer to its turn: the next request may be there already, and several together cost less
_RETRY_S = 0.05
_POLL_S = 0.25

#: What the client library may hold at most while the broker is away, and for how long it tries.
PRODUCER_SETTINGS: dict[str, object] = {
    "queue_buffering_max_messages": 100_000,
    "queue_buffering_max_kbytes": 65_536,
    "message_timeout_ms": 120_000,
    "delivery_report_only_error": True,
    "linger_ms": 20,
}


class Sink(Protocol):
    """The part of a Kafka producer that the log uses."""

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Delivered) -> None:
        """Queue a record; raises BufferError when the queue is full."""

    def poll(self, timeout: float) -> int:
        """Run the callbacks that are due."""

    def flush(self, timeout: float) -> int:
        """Wait until all is acknowledged or given up; the number that is left."""

    def __len__(self) -> int:
        """Records that are queued or in flight."""


@dataclass(slots=True)
class LogCounts:
    """What became of the predictions since the start.

    Attributes:
        produced: handed to the Kafka client.
        overflowed: dropped, because the list or the client's queue was full.
        undelivered: given up by the client after its time-out or refused by the broker.
        unencodable: not written, because encoding failed: a defect, with its trace in the log.
    """

    produced: int = 0
    overflowed: int = 0
    undelivered: int = 0
    unencodable: int = 0

    @property
    def failures(self) -> int:
        """Predictions that were answered and not logged."""
        return self.overflowed + self.undelivered + self.unencodable


class PredictionLog(Generic[EntryT]):
    """Logs entries, each of which encodes to one record per row.

    Args:
        sink: the producer.
        topic: where to.
        encode: an entry's records, as pairs of key and value; called outside the request.
        rows: how many records an entry will give; the bound counts them.
        capacity: the most records that wait for their turn.
        pause_s: from an answer to its turn.
    """

    def __init__(
        self,
        sink: Sink,
        topic: str,
        encode: Callable[[EntryT], Iterable[tuple[bytes, bytes]]],
        rows: Callable[[EntryT], int],
        capacity: int = 50_000,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._sink, self._topic, self._encode, self._rows = sink, topic, encode, rows
        self._capacity, self._pause_s = capacity, pause_s
        self._entries: deque[EntryT] = deque()
        self._waiting = 0
        self._current: Iterator[tuple[bytes, bytes]] = iter(())
        self._left = 0  # records that the current entry has still to give
        self._held: tuple[bytes, bytes] | None = None  # encoded, but the client's queue was full
        self._scheduled = False
        self._closed = False
        self._poller: asyncio.TimerHandle | None = None
        self._complained = False
        self.counts = LogCounts()

    def start(self) -> None:
        """Begin to collect delivery reports; to be called inside the running event loop."""
        self._poll()

    @property
    def pending(self) -> int:
        """Records that are not acknowledged yet, wherever they are."""
        return self._waiting + len(self._sink)

    def append(self, entry: EntryT) -> None:
        """Log an entry in a later turn of the event loop; constant time, never raises."""
        rows = self._rows(entry)
        if self._waiting + rows > self._capacity or self._closed:
            self.counts.overflowed += rows
            self._complain(f"{rows} predictions were answered but not logged: the buffer of {self._capacity} is full")
            return
        self._waiting += rows
        self._entries.append(entry)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(self._pause_s, self._turn)

    def _turn(self) -> None:
        """Produce a bounded share, and come back if more waits."""
        self._scheduled = False
        blocked = self._produce(max(_TURN_RECORDS, self._waiting // _TURN_SHARE))
        self._sink.poll(0)
        if self._waiting and not self._closed:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            if blocked:
                loop.call_later(_RETRY_S, self._turn)
            else:
                loop.call_soon(self._turn)

    def _produce(self, budget: int) -> bool:
        """Produce up to `budget` records; True if the client's queue is full."""
        for _ in range(budget):
            record = self._held or self._next()
            self._held = None
            if record is None:
                return False
            try:
                self._sink.produce(self._topic, record[1], record[0], on_delivery=self._report)
            except BufferError:
                self._held = record
                self._complain("the prediction log waits: Kafka takes no more records")
                return True
            self._waiting -= 1
            self.counts.produced += 1
        return False

    def _next(self) -> tuple[bytes, bytes] | None:
        while True:
            try:
                record = next(self._current, None)
                if record is not None:
                    self._left -= 1
                    return record
                if not self._entries:
                    return None
                entry = self._entries.popleft()
                self._left = self._rows(entry)
                self._current = iter(self._encode(entry))
            except Exception:  # noqa: BLE001  (an encoder may fail in any way)
                # One entry that cannot be written must not silence the log for all others.
                _log.exception("a prediction could not be encoded for the log")
                self.counts.unencodable += self._left
                self._waiting -= self._left
                self._left = 0
                self._current = iter(())

    def _report(self, error: object, _message: object) -> None:
        if error is not None:
            self.counts.undelivered += 1
            self._complain(f"a prediction was answered but not logged: Kafka: {error}")

    def _complain(self, message: str) -> None:
        """Say it once, until the log is whole again."""
        if not self._complained:
            self._complained = True
            _log.error("%s; see headrace_prediction_log_failures in /metrics", message)

    def _poll(self) -> None:
        self._sink.poll(0)
        if self._complained and not self._waiting and not len(self._sink):
            self._complained = False
            _log.warning("the prediction log is whole again; %d predictions are missing", self.counts.failures)
        self._poller = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    async def close(self, timeout_s: float) -> int:
        """Send what is left and wait for its acknowledgement; the number of predictions that are still not.

        Args:
            timeout_s: how long to wait at most.
        """
        if self._poller is not None:
            self._poller.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._closed = True
        while self._waiting and loop.time() < deadline:
            blocked = self._produce(self._waiting + 1)
            self._sink.poll(0)
            await asyncio.sleep(_RETRY_S if blocked else 0)
        await loop.run_in_executor(None, self._sink.flush, max(0.0, deadline - loop.time()))
        left = self.pending
        if left:
            _log.error("%d predictions were answered but not logged: Kafka did not acknowledge them in time", left)
        return left
