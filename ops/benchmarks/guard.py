"""Did anything fall? Ratios of this run beside those of a committed one.

Times differ from machine to machine and from hour to hour; a ratio to a floor or a peer of the same run says what we changed. A ratio has
to fall by more than `TOLERANCE` to be told. What may not live here: measuring.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.benchmarks.report import Row

COMMITTED = Path(__file__).parent / "measured" / "quick.json"
TOLERANCE = 0.3


def better_is_more(row: Row) -> bool:
    """Whether a larger ratio is the better one: rates, and not times, sizes or differences.

    >>> better_is_more(Row("a", 1, "events/s", 1, 1)), better_is_more(Row("a", 1, "ms", 1, 1))
    (True, False)
    """
    return "/s" in row.unit


def fallen(rows: Sequence[Row], before: Mapping[str, float], tolerance: float = TOLERANCE) -> list[str]:
    """What fell, in words.

    Args:
        rows: of this run.
        before: the committed ratio of each row, by its name.
        tolerance: the share of a ratio that may be lost to chance.

    >>> row = Row("stream", 50, "events/s", 50, 50, "floor", 0.5)
    >>> fallen([row], {"stream": 1.0})
    ['stream: 0.50 × the reference, 1.00 × when it was committed']
    >>> fallen([row], {"stream": 0.6}), fallen([row], {})
    ([], [])
    """
    found = []
    for row in rows:
        was = before.get(row.what)
        if row.ratio is None or was is None or not was:
            continue
        share = row.ratio / was if better_is_more(row) else was / row.ratio
        if share < 1 - tolerance:
            found.append(f"{row.what}: {row.ratio:.2f} × the reference, {was:.2f} × when it was committed")
    return found


def committed(file: Path = COMMITTED) -> dict[str, float]:
    """The committed ratios; none where there is no file."""
    return dict(json.loads(file.read_text())["ratios"]) if file.exists() else {}


def commit(rows: Sequence[Row], machine: str, file: Path = COMMITTED) -> None:
    """Keep the ratios of this run for later ones."""
    file.parent.mkdir(exist_ok=True)
    ratios = {row.what: round(row.ratio, 3) for row in rows if row.ratio is not None}
    file.write_text(json.dumps({"machine": machine, "ratios": ratios}, indent=1, ensure_ascii=False) + "\n")
