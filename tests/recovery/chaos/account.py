"""What the broker acknowledged: how many records count, and how far a reader of committed records may come by now.

    partition   ■ ■ ■ ■ □ ■ □ ■ ■        □ of a transaction that is open: nobody may read from there on
                        ↑ readable ends here, although more is acknowledged

What may not live here: producing, reading.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping


class Account:
    """Kept by all producers of a run together, from their threads.

    Attributes:
        records: acknowledged, and committed where they were written in a transaction.
        aborted: partitions and offsets of records that count for nobody.
        transactions: how many there were, by how they ended.
        failed: what must not have happened, in words.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._open: dict[str, dict[int, int]] = {}
        self.records = 0
        self.aborted: set[tuple[int, int]] = set()
        self.transactions: Counter[str] = Counter()
        self.failed: list[str] = []

    def acknowledge(self, partition: int, offset: int | None) -> None:
        """A record without a transaction; its offset is unknown where only the answer to a repetition came back."""
        with self._lock:
            self.records += 1
            if offset is not None:
                self._ends[partition] = max(self._ends.get(partition, 0), offset + 1)

    def begin(self, producer: str, partitions: Iterable[int]) -> None:
        """A transaction is about to write into these partitions."""
        with self._lock:
            self._open[producer] = {partition: self._ends.get(partition, 0) for partition in partitions}

    def commit(self, producer: str, records: int, places: Iterable[tuple[int, int]]) -> None:
        """All of its records count from now on; places are those whose offsets are known."""
        with self._lock:
            del self._open[producer]
            self.records += records
            self.transactions["committed"] += 1
            for partition, offset in places:
                self._ends[partition] = max(self._ends.get(partition, 0), offset + 1)

    def abort(self, producer: str, how: str, places: Iterable[tuple[int, int]]) -> None:
        """None of its records counts, ever."""
        with self._lock:
            del self._open[producer]
            self.transactions[how] += 1
            self.aborted.update(places)

    def settle(self, ends: Mapping[int, int]) -> None:
        """No more is produced, and the topic ends here."""
        with self._lock:
            assert not self._open, f"transactions are open: {self._open}"
            self._ends = dict(ends)

    def readable(self) -> dict[int, int]:
        """By partition, what every reader of committed records can reach at least."""
        with self._lock:
            ends = dict(self._ends)
            for floors in self._open.values():
                for partition, floor in floors.items():
                    ends[partition] = min(ends.get(partition, 0), floor)
            return ends
