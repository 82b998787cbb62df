"""The protocol holds in every history of the model, and each rule that carries weight is missed when it is gone."""

from __future__ import annotations

import pytest

from tests.recovery.model.histories import explore, first_failure, mutations
from tests.recovery.model.store import Rules

HISTORIES = 250
MOST = 2_000  # histories in which a missing rule has to show; most do within thirty


def test_no_history_loses_an_event_or_counts_one_twice() -> None:
    found = explore(Rules(), HISTORIES)
    print(f"{found.runs} histories; workers ended by {dict(found.ends)}")
    assert (found.lost, found.doubled) == (0, 0), f"seed {found.first}"
    # Histories in which nobody is ever refused would prove nothing.
    assert min(found.ends[end] for end in ("Fenced", "Stale", "Gap")) > 0


def test_the_lane_skip_is_a_second_guard_behind_the_offsets_of_the_states() -> None:
    """Alone it changes nothing in the model; docs/exactly-once.md says so, and has to be told if that ends."""
    found = explore(mutations()["lane_skip"], HISTORIES)
    assert (found.lost, found.doubled) == (0, 0)


@pytest.mark.parametrize("name", [name for name in mutations() if name != "lane_skip"])
def test_a_missing_rule_loses_or_doubles_events(name: str) -> None:
    seed = first_failure(mutations()[name], MOST)
    print(f"without {name}: seed {seed}")
    assert seed is not None
