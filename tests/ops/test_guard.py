"""The guard of ratios: what fell is told, and chance is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.benchmarks.guard import commit, committed, fallen
from ops.benchmarks.report import Row


def row(what: str, ratio: float | None, unit: str = "events/s") -> Row:
    return Row(what, 1.0, unit, 1.0, 1.0, "floor", ratio)


@pytest.mark.parametrize(
    ("unit", "now", "falls"),
    [("events/s", 0.71, False), ("events/s", 0.69, True), ("events/s", 3.0, False), ("ms", 1.42, False), ("ms", 1.45, True),
     ("ms", 0.2, False)],
)  # fmt: skip
def test_a_rate_falls_downwards_and_a_time_upwards(unit: str, now: float, falls: bool) -> None:
    assert bool(fallen([row("a", now, unit)], {"a": 1.0})) is falls


def test_rows_without_a_ratio_or_without_a_past_are_passed_over() -> None:
    assert fallen([row("a", None), row("b", 0.1)], {"a": 1.0, "c": 1.0}) == []


def test_what_is_committed_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "measured" / "quick.json"
    assert committed(file) == {}
    commit([row("a", 1.23456), row("b", None)], "a machine", file)
    assert committed(file) == {"a": 1.235}
