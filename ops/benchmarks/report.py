"""Rows of measurements, and the table that they make.

A row is a ratio to something measured in the same run on the same machine: a floor (the same work without Headrace's part of
it) or a peer. A time alone says nothing on a shared machine. What may not live here: measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        what: what was measured.
        value: the median over the rounds.
        unit: of `value`.
        low: the smallest round.
        high: the largest round.
        reference: the floor or peer, with its own median.
        ratio: value / reference.
        target: the number to reach, in words.
        met: whether it was reached in this run; None where there is no target.
    """

    what: str
    value: float
    unit: str
    low: float
    high: float
    reference: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def row(
    what: str,
    values: Sequence[float],
    unit: str,
    *,
    reference: tuple[str, Sequence[float]] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    ratio_at_most: float | None = None,
) -> Row:
    """A row of several rounds.

    Args:
        what: what was measured.
        values: one value per round.
        unit: their unit.
        reference: name and rounds of the floor or peer.
        at_least: the value to reach.
        at_most: the value not to pass.
        ratio_at_most: the ratio not to pass.
    """
    middle = statistics.median(values)
    ratio = None
    named = ""
    if reference is not None:
        other = statistics.median(reference[1])
        ratio, named = middle / other, f"{reference[0]}: {number(other)} {unit}"
    target, met = "", None
    if at_least is not None:
        target, met = f"≥ {number(at_least)} {unit}", middle >= at_least
    elif at_most is not None:
        target, met = f"≤ {number(at_most)} {unit}", middle <= at_most
    elif ratio_at_most is not None and ratio is not None:
        target, met = f"≤ {ratio_at_most:g} ×", ratio <= ratio_at_most
    return Row(what, middle, unit, min(values), max(values), named, ratio, target, met)


def number(value: float) -> str:
    """Three figures that count, with thousands separated.

    >>> number(151234.7), number(0.04567)
    ('151,235', '0.0457')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | median | spread | reference, same run | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        ratio = "" if r.ratio is None else f"{r.ratio:.2f} ×"
        met = {None: "", True: "yes", False: "**no**"}[r.met]
        spread = f"{number(r.low)} – {number(r.high)}"
        lines.append(
            f"| {r.what} | {number(r.value)} {r.unit} | {spread} | {r.reference} | {ratio} | {r.target} | {met} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What the numbers were measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def options(description: str) -> argparse.Namespace:
    """The options that every benchmark of this folder takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds; rougher numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    return parser.parse_args()


def publish(rows: Sequence[Row], options: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Print the table and the notes, and write them as JSON where that was asked for."""
    print(table(rows))
    for note in notes:
        print(f"\n{note}")
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": [asdict(r) for r in rows], "notes": list(notes)}, indent=1))
