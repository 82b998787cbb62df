"""The feature pipeline with a source that takes events at a fixed rate, from a topic on which all of them lie already.

So that a benchmark of readers needs no producer beside it, on a machine of few cores. Takes the arguments of
``python -m headrace_streams``; the rate is that of `ops.benchmarks.exactly_once`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from headrace_streams.__main__ import main
from headrace_streams.items import Polled
from headrace_streams.source import KafkaSource

WRITE_RATE = 12_000  # events a second; each writes a state of three views
_FEWEST = 12  # a millisecond's


def paced(poll: Callable[[KafkaSource], list[Polled]]) -> Callable[[KafkaSource], list[Polled]]:
    """A `poll` that keeps to the rate."""
    began, taken = time.monotonic(), 0

    def poll_at_rate(source: KafkaSource) -> list[Polled]:
        nonlocal taken
        due = int((time.monotonic() - began) * WRITE_RATE) - taken
        if due < _FEWEST:
            return []
        source._most = due
        polled = poll(source)
        taken += sum(len(batch.raw) for batch in polled)
        return polled

    return poll_at_rate


if __name__ == "__main__":
    KafkaSource.poll = paced(KafkaSource.poll)  # type: ignore[method-assign]
    sys.exit(main())
