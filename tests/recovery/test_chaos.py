"""Everything breaks for a while, on each kind of services; nothing is lost, nothing counted twice. `make chaos` does it for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recovery.chaos.driver import run
from tests.recovery.chaos.setups import APACHE, KINDS, Missing
from tests.services import required

FAULTS = 17
SEEDS = {"embedded": 4, "sentinel": 5, "cluster": 6}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_faults_lose_nothing_and_count_nothing_twice(kind: str, tmp_path: Path) -> None:
    """Reads equal the naive oracle's, states those of one fold in order, the log the topic; each broken record is a dead letter."""
    try:
        report = run(kind, SEEDS[kind], FAULTS, tmp_path)
    except Missing as missing:
        if required():
            pytest.fail(f"HEADRACE_TEST_REQUIRE={os.environ['HEADRACE_TEST_REQUIRE']}, but {missing}", pytrace=False)
        pytest.skip(f"{kind} services: {missing}")
    print("\n".join(report.lines()))
    found = report.comparison
    assert found.well, found.wrong[:5]
    assert report.faults.total() == FAULTS
    assert report.struck.total() >= FAULTS * 2 // 3, "the faults strike nothing"
    assert report.starts > FAULTS // 4, "too few workers had to start again for that to prove anything"
    if kind in APACHE:
        assert report.transactions["committed"] > 20
        assert report.transactions["aborted"] > 20
        assert sum(report.hydrated) > 500, "no worker had to read the log"
    assert found.values > 5_000
    assert found.dead > 50
    assert all(account["repeats"] > 100 for account in found.accounts.values())
    assert found.accounts["pulse"]["too late"] > 1_000
