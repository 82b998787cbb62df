"""Stand-ins for what the service writes to."""

from __future__ import annotations

import time
from collections.abc import Callable


class FakeSink:
    """A producer that acknowledges at the next poll."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []
        self.outstanding: list[Callable[[object, object], None]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Callable[[object, object], None]) -> None:
        self.sent.append((key, value))
        self.outstanding.append(on_delivery)

    def poll(self, timeout: float) -> int:
        callbacks, self.outstanding = self.outstanding, []
        for callback in callbacks:
            callback(None, None)
        return len(callbacks)

    def flush(self, timeout: float) -> int:
        self.poll(0)
        return 0

    def __len__(self) -> int:
        return len(self.outstanding)

    def wait_for_values(self, timeout_s: float = 2.0) -> list[bytes]:
        """The records, once the event loop has had a turn to log them and nothing more comes."""
        deadline = time.monotonic() + timeout_s
        seen = -1
        while time.monotonic() < deadline and (not self.sent or seen != len(self.sent)):
            seen = len(self.sent)
            time.sleep(0.05)
        return [value for _, value in self.sent]
