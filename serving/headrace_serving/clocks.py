"""Where the service's time comes from: a function that returns integer microseconds since the epoch, passed as an argument.

The system clock is named once, here; nothing else in the service asks what time it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> int:
    """The machine's clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def moment(at_us: int) -> datetime:
    """A stored time as an aware ``datetime``, exact to the microsecond.

    >>> moment(1_357_034_400_000_001).isoformat()
    '2013-01-01T10:00:00.000001+00:00'
    """
    return _EPOCH + timedelta(microseconds=at_us)


def microseconds(text: str) -> int:
    """A time as text, in microseconds since the epoch, exactly.

    Raises:
        ValueError: it is not ISO 8601, or has no zone.

    >>> microseconds("2013-12-30T07:00:00.000001-05:00")
    1388404800000001
    """
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError("no zone")
    return (parsed - _EPOCH) // timedelta(microseconds=1)
