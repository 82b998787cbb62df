"""Metrics equal scikit-learn's; intervals cover; comparisons are paired."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from headrace.errors import ConfigError
from headrace_training import evaluating as ev


@given(st.integers(0, 10_000), st.integers(2, 200), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_metrics_equal_scikit_learns_also_with_ties_and_weights(seed, rows, levels):
    r = np.random.default_rng(seed)
    truth = r.integers(0, 2, rows).astype(float)
    truth[:2] = 0, 1
    predicted = r.integers(0, levels + 1, rows) / levels
    weights = r.integers(0, 4, rows).astype(float)
    weights[:2] = 1
    assert ev.auc(truth, predicted, weights) == pytest.approx(sk.roc_auc_score(truth, predicted, sample_weight=weights))
    assert ev.log_loss(truth, predicted, weights) == pytest.approx(
        sk.log_loss(truth, predicted, sample_weight=weights, labels=[0, 1]), rel=1e-9
    )
    assert ev.brier(truth, predicted, weights) == pytest.approx(
        sk.brier_score_loss(truth, predicted, sample_weight=weights)
    )
    assert ev.mae(truth, predicted, weights) == pytest.approx(
        sk.mean_absolute_error(truth, predicted, sample_weight=weights)
    )
    assert ev.rmse(truth, predicted, weights) == pytest.approx(
        sk.root_mean_squared_error(truth, predicted, sample_weight=weights)
    )


def test_a_95_percent_interval_covers_the_true_value_about_95_times_in_100():
    """The truth is known: the prediction is the very probability that the outcomes are drawn from."""
    covered = 0
    for seed in range(100):
        r = np.random.default_rng(seed)
        p = r.random(600)
        y = (r.random(600) < p).astype(float)
        e = ev.evaluate("binary", y, p, base=0.5, at_us=np.arange(600))
        covered += e.metrics["brier"].low <= 1 / 6 <= e.metrics["brier"].high  # E[p(1−p)] for uniform p
    assert 88 <= covered <= 99


def test_rows_that_share_their_block_of_time_widen_the_interval():
    """Each of fifty days is all good or all bad: there are fifty observations, not five thousand."""
    r = np.random.default_rng(1)
    days = np.repeat(np.arange(50), 100)
    y = np.tile([0.0, 1.0], 2500)
    p = np.where(r.random(50)[days] < 0.5, 0.5, 0.2 + 0.6 * y)
    by_day = ev.evaluate("binary", y, p, base=0.5, at_us=days).metrics["log_loss"]
    shuffled = r.permutation(len(days))
    by_row = ev.evaluate("binary", y[shuffled], p[shuffled], base=0.5, at_us=days).metrics["log_loss"]
    assert by_day.high - by_day.low > 4 * (by_row.high - by_row.low)


def test_the_baseline_is_the_fitting_parts_rate_and_skill_compares_with_it():
    y = np.array([0.0, 0.0, 0.0, 1.0] * 30)
    e = ev.evaluate("binary", y, np.full(120, 0.4), base=0.4, at_us=np.arange(120))
    assert e.baseline["brier"] == pytest.approx(np.mean((y - 0.4) ** 2))
    assert e.metrics["skill"].value == pytest.approx(0.0)
    better = ev.evaluate("binary", y, 0.1 + 0.8 * y, base=0.4, at_us=np.arange(120))
    assert better.metrics["skill"].low > 0.5


def test_the_same_rows_give_the_same_intervals():
    r = np.random.default_rng(3)
    y = r.integers(0, 2, 300).astype(float)
    p = r.random(300)
    first, second = (ev.evaluate("binary", y, p, base=0.5, at_us=np.arange(300)) for _ in range(2))
    assert first == second


def test_regression_has_its_own_metrics_and_baseline():
    r = np.random.default_rng(5)
    y = r.normal(10, 2, 400)
    e = ev.evaluate("regression", y, y + r.normal(0, 0.5, 400), base=10.0, at_us=np.arange(400))
    assert set(e.metrics) == {"rmse", "mae", "bias", "skill"}
    assert e.metrics["rmse"].low < 0.5 < e.metrics["rmse"].high
    assert e.metrics["skill"].value > 0.7
    assert e.to_json()["calibration"][0]["predicted"] < e.to_json()["calibration"][-1]["predicted"]


@given(st.integers(0, 999), st.integers(1, 80), st.integers(1, 5))
@settings(deadline=None)
def test_calibration_bins_hold_every_row_once_in_order(seed, rows, levels):
    r = np.random.default_rng(seed)
    p = r.integers(0, levels + 1, rows) / levels
    y = r.integers(0, 2, rows).astype(float)
    bins = ev.calibration(y, p)
    assert sum(b.rows for b in bins) == rows
    assert all(a.high < b.low for a, b in pairwise(bins))
    assert sum(b.rows * b.observed for b in bins) == pytest.approx(y.sum())


def test_a_paired_comparison_sees_a_small_steady_difference():
    """Both models fail on the same hard rows; unpaired intervals overlap, the paired one does not."""
    r = np.random.default_rng(7)
    y = r.integers(0, 2, 2000).astype(float)
    hard = r.random(2000) < 0.2
    old = np.where(hard, 0.5, 0.15 + 0.7 * y)
    new = np.where(hard, 0.5, 0.14 + 0.72 * y)
    c = ev.compare("binary", y, old, new, at_us=np.arange(2000))
    assert c.improvement.low > 0
    assert c.champion - c.challenger == pytest.approx(c.improvement.value)
    alone = [ev.evaluate("binary", y, p, base=0.5, at_us=np.arange(2000)).metrics["log_loss"] for p in (old, new)]
    assert alone[1].high > alone[0].low


def test_a_non_finite_prediction_is_refused():
    with pytest.raises(ConfigError, match=r"every prediction must be a finite number, but 1 of 2 are not; .*estimator"):
        ev.evaluate("binary", np.array([0.0, 1.0]), np.array([0.5, np.nan]), base=0.5, at_us=np.arange(2))


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"needs outcomes 0 and 1, but it has \[1.0\]; choose a longer hold-out"):
        ev.evaluate("binary", np.ones(3), np.full(3, 0.5), base=0.5, at_us=np.arange(3))


def test_no_rows_are_refused():
    with pytest.raises(ConfigError, match="at least one; got 0 predictions of 0 outcomes"):
        ev.evaluate("regression", np.ones(0), np.ones(0), base=0.5, at_us=np.arange(0))
