"""Durations as people write them ("30m", "1h30m") and as the core keeps them (integer microseconds).

What may not live here: a clock. A duration is a length, never a moment.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from headrace.errors import DefinitionError

MICROSECOND: Final = 1
MILLISECOND: Final = 1_000
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

# Longest first: "ms" is tried before "m" and "s".
_UNITS: Final = {
    "w": WEEK,
    "d": DAY,
    "h": HOUR,
    "m": MINUTE,
    "s": SECOND,
    "ms": MILLISECOND,
    "us": MICROSECOND,
}
_PART: Final = re.compile(r"(\d+)(ms|us|[wdhms])")
_LONGEST_US: Final = 100 * 366 * DAY


def parse_us(value: str | timedelta) -> int:
    """The length of a duration in microseconds.

    Args:
        value: digits and a unit (``w d h m s ms us``), one or several from large to small, or a ``timedelta``.

    Raises:
        DefinitionError: the text is not a duration, or it is negative, or longer than a hundred years.

    >>> parse_us("30m"), parse_us("1h30m"), parse_us(timedelta(seconds=2)), parse_us("0s")
    (1800000000, 5400000000, 2000000, 0)
    """
    us = _timedelta_us(value) if isinstance(value, timedelta) else _text_us(value)
    if us is None or not 0 <= us <= _LONGEST_US:
        raise DefinitionError(
            required="a duration is digits and a unit, such as '90s', '30m', '3h', '7d' or '1h30m', of at most 100 years",
            got=f"{value!r} was given",
            remedy="write the number and one of the units w, d, h, m, s, ms, us without spaces",
        )
    return us


def format_us(us: int) -> str:
    """The shortest text of a length; ``parse_us`` reads it back.

    >>> format_us(1_800_000_000), format_us(5_400_000_000), format_us(86_400_000_000), format_us(0)
    ('30m', '90m', '1d', '0s')
    """
    if us == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if us % size == 0:
            return f"{us // size}{unit}"
    raise AssertionError("every length is a whole number of microseconds")


def _timedelta_us(value: timedelta) -> int:
    return value // timedelta(microseconds=1)


def _text_us(text: object) -> int | None:
    if not isinstance(text, str) or not re.fullmatch(f"({_PART.pattern})+", text.strip()):
        return None
    parts = [(int(number), _UNITS[unit]) for number, unit in _PART.findall(text)]
    sizes = [size for _, size in parts]
    if sizes != sorted(set(sizes), reverse=True):
        return None
    return sum(number * size for number, size in parts)
