"""A hold-out is later than everything that was fitted, labels included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError
from headrace_training.splits import split_at, split_share

times = st.lists(st.integers(0, 50), min_size=2, max_size=60).map(lambda t: np.array(t, np.int64))


@given(times, st.integers(0, 50), st.integers(0, 20))
def test_every_fitted_label_was_known_when_the_holdout_begins(at_us, from_us, horizon_us):
    try:
        split = split_at(at_us, from_us, horizon_us=horizon_us)
    except ConfigError:
        assert not (at_us + horizon_us <= from_us).any() or not (at_us >= from_us).any() or (at_us >= from_us).all()
        return
    assert (at_us[split.fit] + horizon_us <= from_us).all()
    assert (at_us[split.fit] < from_us).all()
    assert (at_us[split.holdout] >= from_us).all()
    assert len(split.fit) + len(split.holdout) + split.purged == len(at_us)


@given(times, st.floats(0.05, 0.95))
def test_a_share_never_divides_one_moment(at_us, share):
    try:
        split = split_share(at_us, share)
    except ConfigError:
        return
    assert at_us[split.fit].max() < at_us[split.holdout].min()
    assert len(split.holdout) >= int(share * len(at_us))


def test_a_split_that_leaves_one_part_empty_names_the_span():
    with pytest.raises(ConfigError, match=r"split at 99 µs: .*0 at or after it; .*\(from 1 to 3 µs\)"):
        split_at(np.array([1, 2, 3]), 99)


@pytest.mark.parametrize("share", [0.0, 1.0, -1, 20])
def test_a_share_outside_zero_and_one_is_refused(share):
    with pytest.raises(ConfigError, match=f"a number between 0 and 1 is required, got {share}; write 0.2"):
        split_share(np.array([1, 2, 3]), share)


def test_a_share_of_no_rows_is_refused():
    with pytest.raises(ConfigError, match="the dataset has no rows"):
        split_share(np.array([], np.int64), 0.2)
