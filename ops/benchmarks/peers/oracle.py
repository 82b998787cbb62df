"""What the values must be, computed the slow and obvious way from the events; and whether a contender's values are that.

Each contender writes with its values up to which event, or of which window, they are; so they can be judged at any moment, also of
a contender that was stopped half-way. What may not live here: what a contender is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ops.benchmarks.stream import Payments, card_name

_HOTTEST, _OTHERS = 40, 260
_TOLERANCE = 1e-9  # sums of floats, in another order

Window = tuple[int, int]
"""Length and tile, in microseconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many values were compared, and what was wrong with the first of the wrong ones."""

    compared: int
    wrong: int
    example: str = ""


class Oracle:
    """The events of a sample of cards: the hottest, and others at random.

    Args:
        payments: what is on the topic.
        windows: length and tile of each.
    """

    def __init__(self, payments: Payments, windows: Sequence[Window]) -> None:
        self._windows = windows
        counts = np.bincount(payments.card)
        hottest = np.argsort(-counts, kind="stable")[:_HOTTEST]
        others = np.random.default_rng(5).choice(np.flatnonzero(counts), _OTHERS, replace=False)
        self._events: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = {}
        for card in {*hottest.tolist(), *others.tolist()}:
            rows = np.flatnonzero(payments.card == card)
            self._events[card_name(card)] = payments.paid_at_us[rows], payments.amount[rows]

    @property
    def cards(self) -> list[str]:
        return sorted(self._events)

    def newest_us(self, card: str) -> int:
        """The time of a card's last event."""
        return int(self._events[card][0][-1])

    def features(self, card: str, at_us: int) -> list[float]:
        """Count, sum, least and most of each window as of the event at a moment."""
        times, amounts = self._events[card]
        found: list[float] = []
        for length, tile in self._windows:
            oldest = (at_us - length) // tile
            found += aggregate([a for t, a in zip(times, amounts, strict=True) if oldest <= t // tile and t <= at_us])
        return found

    def judge_features(self, values: Mapping[str, bytes | None], *, complete: bool) -> Verdict:
        """Values of 8 bytes of time and four times four numbers.

        Args:
            values: by card.
            complete: whether every event was folded, so that each value must be of the card's last one.
        """
        compared, wrong, example = 0, 0, ""
        for card, value in values.items():
            if value is None:
                if complete:
                    compared, wrong, example = compared + 1, wrong + 1, example or f"{card} has no value"
                continue
            at_us, *came = struct.unpack(f">q{4 * len(self._windows)}d", value)
            compared += len(came)
            if complete and at_us != self.newest_us(card):
                wrong, example = wrong + len(came), example or f"{card} ends at {at_us}, not {self.newest_us(card)}"
            elif at_us not in self._events[card][0]:
                wrong, example = wrong + len(came), example or f"{card} has no event at {at_us}"
            else:
                expected = self.features(card, at_us)
                different = sum(not close(a, b) for a, b in zip(came, expected, strict=True))
                wrong += different
                if different:
                    example = example or f"{card} at {at_us}: {expected} expected, {came} came"
        return Verdict(compared, wrong, example)

    def judge_windows(self, values: Mapping[tuple[str, int], bytes | None], *, closed: bool) -> Verdict:
        """Values of 8 bytes of a window's start and four numbers.

        Args:
            values: by card and window.
            closed: whether only windows to which nothing more comes are written; else one may hold its first events only.
        """
        compared, wrong, example = 0, 0, ""
        for (card, window), value in values.items():
            if value is None:
                continue
            start_us, *came = struct.unpack(">q4d", value)
            times, amounts = self._events[card]
            inside = amounts[(times >= start_us) & (times < start_us + self._windows[window][0])]
            expected = aggregate(inside if closed else inside[: int(came[0])])
            different = sum(not close(a, b) for a, b in zip(came, expected, strict=True))
            compared, wrong = compared + len(came), wrong + different
            if different:
                example = example or f"{card}, window {window} from {start_us}: {expected} expected, {came} came"
        return Verdict(compared, wrong, example)


def aggregate(amounts: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    """Count, sum, least, most.

    >>> aggregate([2.0, 0.5])
    [2.0, 2.5, 0.5, 2.0]
    """
    count = float(len(amounts))
    return (
        [count, math.fsum(amounts), float(min(amounts)), float(max(amounts))]
        if count
        else [0.0, 0.0, math.inf, -math.inf]
    )


def close(one: float, other: float) -> bool:
    """Equal, but for the order in which floats were added."""
    return one == other or math.isclose(one, other, rel_tol=_TOLERANCE)
