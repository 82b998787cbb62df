"""How long a broker may keep a fetch open, and what it waits for.

Apache Kafka answers a fetch as soon as there is a record, so it may be kept open for long: asking again each two milliseconds
only costs both sides processor time, whether records come or not. A reader that is in no hurry lets it collect records meanwhile. The
embedded broker answers when the time is over, and with nothing if reading took longer than that: two milliseconds keep features
fresh, and on a loaded machine they starve a reader for ever, without an error. So a reader that hears nothing although the end is
not in sight asks again with more time.

    records, or the end is seen    as it is; back to the shortest time after a while at the end
    silence before the end         five times as long, up to half a second

What may not live here: consumers, clocks.
"""

from __future__ import annotations

_SILENCE_S = 0.5
_CALM_S = 10.0
_FACTOR = 5
_LONGEST_MS = 500
_OPEN_MS = 100  # other questions to the same broker wait behind an open fetch
_HURRY_MS = 10  # a reader that looks less often than that is in no hurry
_COLLECTED_BYTES = 1 << 20


class FetchTime:
    """The time for a fetch.

    Args:
        pause_ms: how long a record may lie unseen.
        at_once: the broker answers as soon as there is a record.

    >>> time = FetchTime(2)
    >>> time.silent(10.0, at_end=False), time.silent(10.4, at_end=False), time.silent(10.6, at_end=False)
    (None, None, 10)
    >>> time.heard(); time.silent(12.0, at_end=True), time.silent(22.5, at_end=True)
    (None, 2)
    >>> FetchTime(2, at_once=True).settings()
    {'fetch_wait_max_ms': 100, 'fetch_min_bytes': 1}
    >>> FetchTime(50, at_once=True).settings()
    {'fetch_wait_max_ms': 50, 'fetch_min_bytes': 1048576}
    """

    def __init__(self, pause_ms: int, *, at_once: bool = False) -> None:
        hurry = pause_ms < _HURRY_MS
        self._shortest_ms = self.wait_ms = max(pause_ms, _OPEN_MS) if at_once and hurry else pause_ms
        self._least_bytes = _COLLECTED_BYTES if at_once and not hurry else 1
        self._since_s: float | None = None
        self._at_end = False

    def settings(self) -> dict[str, int]:
        """The consumer's settings, with ``_`` for ``.``."""
        return {"fetch_wait_max_ms": self.wait_ms, "fetch_min_bytes": self._least_bytes}

    def heard(self) -> None:
        """Records came."""
        self._since_s = None

    def silent(self, now_s: float, *, at_end: bool) -> int | None:
        """Nothing came; returns the time to go on with if that should change, in milliseconds.

        Args:
            now_s: monotonic clock.
            at_end: everything that is there has been read.
        """
        if self._since_s is None or at_end is not self._at_end:
            self._since_s, self._at_end = now_s, at_end
            return None
        for_s = now_s - self._since_s
        if not at_end and for_s > _SILENCE_S and self.wait_ms < _LONGEST_MS:
            return self._change(min(self.wait_ms * _FACTOR, _LONGEST_MS))
        if at_end and for_s > _CALM_S and self.wait_ms > self._shortest_ms:
            return self._change(self._shortest_ms)
        return None

    def _change(self, wait_ms: int) -> int:
        self.wait_ms, self._since_s = wait_ms, None
        return wait_ms
