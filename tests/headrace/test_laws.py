"""Every aggregation that exists obeys every law."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.aggregations import Observation, Reading, algebras
from headrace.laws import LAWS, LawBroken, view_of


@pytest.mark.parametrize("aggregation", sorted(algebras()))
@pytest.mark.parametrize("law", sorted(set(LAWS) - {"bounded_size"}))
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_every_aggregation_obeys_every_law(aggregation: str, law: str, seed: int) -> None:
    LAWS[law](view_of(aggregation), seed)


@pytest.mark.parametrize("aggregation", sorted(algebras()))
def test_no_state_grows_with_the_number_of_its_events(aggregation: str) -> None:
    LAWS["bounded_size"](view_of(aggregation), 7)


def test_a_wrong_aggregation_breaks_a_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law that cannot fail proves nothing: a sum that forgets its first value is found out."""

    def wrong(observations: Sequence[Observation], reading: Reading) -> float:
        return float(sum(o.units for o in observations[1:])) / reading.scale

    monkeypatch.setattr(algebras()["sum"], "naive", staticmethod(wrong))
    with pytest.raises(LawBroken, match="sum breaks the law of recomputation"):
        LAWS["recomputation"](view_of("sum"), 3)
