"""The protocol holds in every history of the model, and each rule that carries weight is missed when it is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.recovery.model.histories import explore, first_failure, mutations
from tests.recovery.model.store import Rules

HISTORIES = 250
SECOND_GUARDS = {"lane_skip": "entity_skip", "owner_check": "read_with_head"}
MOST = 2_000  # histories in which a missing rule has to show; most do within thirty


def test_no_history_loses_an_event_or_counts_one_twice() -> None:
    found = explore(Rules(), HISTORIES)
    print(f"{found.runs} histories; workers ended by {dict(found.ends)}")
    assert (found.lost, found.doubled) == (0, 0), f"seed {found.first}"
    # Histories in which nobody is ever refused would prove nothing.
    assert min(found.ends[end] for end in ("Fenced", "Stale", "Gap")) > 0


@pytest.mark.parametrize("name", SECOND_GUARDS)
def test_a_second_guard_is_missed_only_together_with_the_first(name: str) -> None:
    """Alone it changes nothing in the model; docs/exactly-once.md says so, and has to be told if that ends."""
    found = explore(mutations()[name], HISTORIES)
    assert (found.lost, found.doubled) == (0, 0)
    first = SECOND_GUARDS[name]
    without_first = first_failure(mutations()[first], MOST)
    without_both = first_failure(replace(mutations()[name], **{first: False}), MOST)
    print(f"without {first}: seed {without_first}; without {name} too: seed {without_both}")
    assert without_both is not None
    assert without_first is None or without_both <= without_first


@pytest.mark.parametrize("name", [name for name in mutations() if name not in SECOND_GUARDS])
def test_a_missing_rule_loses_or_doubles_events(name: str) -> None:
    seed = first_failure(mutations()[name], MOST)
    print(f"without {name}: seed {seed}")
    assert seed is not None
