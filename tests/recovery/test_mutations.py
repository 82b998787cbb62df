"""Each rule of the protocol carries weight: without it, a history exists that loses events or counts them twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recovery.mutations import histories
from tests.recovery.mutations.rig import Rig
from tests.recovery.mutations.table import MUTATIONS, Mutation, entities_not_skipped, lanes_not_skipped
from tests.services import Services


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_caught(services: Services, tmp_path: Path, mutation: Mutation) -> None:
    whole = mutation.run(services.redis, tmp_path, broken=False)
    assert whole.well, whole
    broken = mutation.run(services.redis, tmp_path, broken=True)
    print(f"without {mutation.name}: {broken}")
    assert not broken.well


def test_the_lane_skip_is_a_second_guard(services: Services, tmp_path: Path) -> None:
    """Alone it is not missed, because the states skip what they hold; docs/exactly-once.md says so."""
    row = next(mutation for mutation in MUTATIONS if mutation.name == "lane skip")
    for breaks in (lanes_not_skipped, entities_not_skipped):
        alone = Mutation(row.name, histories.lanes_of_two_heights, (breaks,))
        assert alone.run(services.redis, tmp_path, broken=True).well


def test_a_rig_that_is_left_leaves_nothing(services: Services) -> None:
    rig = Rig(services.redis, "left")
    rig.produce("card 0")
    rig.finish()
    assert rig.names()
    assert rig.compare().well
    rig.close()
    assert Rig(services.redis, "left").names() == []
