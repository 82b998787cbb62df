"""Time-ordered splits: a model is fitted on the past and judged on what came after it.

Invariants:
    - no row of the hold-out is earlier than any row of the fitting part, and equal times are never divided;
    - a row fits only if its label was known when the hold-out begins: rows whose horizon reaches into the hold-out are
      left out (they are *purged*), whatever their label turned out to be. Leaving out by the time at which the outcome
      came would keep the quick outcomes and drop the slow ones, and so shift the base rate.

No random split lives here: rows that are neighbours in time share their windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Split:
    """Two sets of row numbers around one moment.

    Attributes:
        fit: rows to fit on, ascending.
        holdout: rows to judge on, ascending.
        purged: how many rows before the hold-out are in neither, because their horizon was still open when it begins.
        from_us: the moment at which the hold-out begins.
    """

    fit: NDArray[np.int64]
    holdout: NDArray[np.int64]
    purged: int
    from_us: int


def split_at(at_us: NDArray[np.int64], from_us: int, *, horizon_us: int = 0) -> Split:
    """Divide rows at a moment: the hold-out is every row at or after it.

    Args:
        at_us: the time of each row, in microseconds, in any order.
        from_us: the moment at which the hold-out begins.
        horizon_us: how long after its row a label may still arrive.

    Raises:
        ConfigError: if one of the two parts would be empty.

    >>> split_at(np.array([10, 20, 30, 40]), 30, horizon_us=15)
    Split(fit=array([0]), holdout=array([2, 3]), purged=1, from_us=30)
    """
    before = at_us < from_us
    known = before & (at_us + horizon_us <= from_us)
    fit, holdout = np.flatnonzero(known), np.flatnonzero(~before)
    if not len(fit) or not len(holdout):
        span = f"from {at_us.min()} to {at_us.max()}" if len(at_us) else "of none"
        raise ConfigError(
            f"split at {from_us} µs: both parts need rows, but {len(fit)} rows lie (with their horizon of {horizon_us} µs) "
            f"before it and {len(holdout)} at or after it; choose a moment well inside the dataset's span ({span} µs)"
        )
    return Split(fit, holdout, int(before.sum() - known.sum()), int(from_us))


def split_share(at_us: NDArray[np.int64], share: float, *, horizon_us: int = 0) -> Split:
    """Divide rows so that about a share of them, the latest, is the hold-out.

    Args:
        at_us: the time of each row, in microseconds, in any order.
        share: the share of rows wanted in the hold-out, between 0 and 1; rows of one moment stay together.
        horizon_us: how long after its row a label may still arrive.

    Raises:
        ConfigError: if the share is not between 0 and 1, or a part would be empty.

    >>> split_share(np.array([10, 20, 30, 30, 40]), 0.5).holdout
    array([2, 3, 4])
    """
    if not 0.0 < share < 1.0:
        raise ConfigError(f"hold-out share: a number between 0 and 1 is required, got {share}; write 0.2 for a fifth")
    if not len(at_us):
        raise ConfigError("hold-out share: the dataset has no rows; choose a span that has labelled events")
    rank = min(len(at_us) - 1, int(len(at_us) * (1.0 - share)))
    moment = int(np.partition(at_us, rank)[rank])
    return split_at(at_us, moment, horizon_us=horizon_us)
