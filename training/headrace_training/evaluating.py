"""How good predictions are: metrics with confidence intervals, against the base rate, and paired between two models.

Invariants:
    - every metric is computed from row *weights*, so that a bootstrap resample is one vector of counts and costs O(rows);
    - the baseline is a constant learnt from the fitting part (its base rate or mean), never from the rows being judged;
    - intervals resample blocks of time, not rows: neighbours in time share weather, queues and windows, and resampling
      them one by one would promise far too narrow intervals (Künsch 1989, block bootstrap);
    - everything is seeded: the same rows give the same intervals.

What must not live here: models, files, or any notion of where predictions came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.errors import ConfigError

Task = Literal["binary", "regression"]
Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats, Floats], float]
"""(truth, predicted, weights) → value."""

SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [SMALLEST, 1 − SMALLEST] before a logarithm, as scikit-learn does for float64."""

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "mae", "rmse"})
PRIMARY: Mapping[Task, str] = {"binary": "log_loss", "regression": "rmse"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its bootstrap confidence interval.

    >>> str(Estimate(0.7312, 0.7204, 0.7419))
    '0.7312 (0.7204 to 0.7419)'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"

    def to_json(self) -> dict[str, float | None]:
        """Value and bounds; what could not be computed (one class in every resample) is null, since JSON knows no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: number if np.isfinite(number) else None for name, number in numbers.items()}


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of a calibration table: what was predicted on average, and what happened."""

    low: float
    high: float
    rows: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality of predictions on one set of rows.

    Attributes:
        task: "binary" or "regression".
        rows: how many rows were judged.
        base: the constant of the baseline: base rate or mean of the fitting part.
        metrics: name → estimate; `skill` is 1 − primary metric / the baseline's primary metric.
        baseline: the same metrics of the constant prediction, without intervals.
        calibration: rows in ten bins of equal count, by predicted value.
        blocks: how many blocks of time were resampled (0: single rows).
    """

    task: Task
    rows: int
    base: float
    metrics: Mapping[str, Estimate]
    baseline: Mapping[str, float]
    calibration: tuple[Bin, ...]
    blocks: int
    confidence: float = 0.95

    def to_json(self) -> dict[str, object]:
        """The evaluation as a bundle's manifest keeps it."""
        return {
            "task": self.task,
            "rows": self.rows,
            "base": self.base,
            "confidence": self.confidence,
            "blocks": self.blocks,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "baseline": dict(self.baseline),
            "calibration": [
                {"low": b.low, "high": b.high, "rows": b.rows, "predicted": b.predicted, "observed": b.observed}
                for b in self.calibration
            ],
        }


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made.

    Args:
        samples: resamples; 200 place a 95 % bound to about a tenth of the interval's width.
        blocks: equal spans of time that are resampled as wholes; fewer than ten that hold rows fall back to single rows.
        confidence: coverage of the interval.
        seed: of the resampling.
    """

    samples: int = 200
    blocks: int = 50
    confidence: float = 0.95
    seed: int = 0


def evaluate(
    task: Task,
    truth: Floats,
    predicted: Floats,
    *,
    base: float,
    at_us: NDArray[np.int64],
    bootstrap: Bootstrap | None = None,
) -> Evaluation:
    """Judge predictions.

    Args:
        task: "binary" (probabilities of the positive class) or "regression".
        truth: outcome of each row; 0 or 1 for "binary".
        predicted: prediction of each row.
        base: constant prediction to compare with, from the fitting part.
        at_us: time of each row; rows close in time are resampled together.
        bootstrap: how intervals are made.

    Raises:
        ConfigError: on no rows, on non-finite numbers, or if a binary outcome has one class only.

    >>> r = np.random.default_rng(0)
    >>> p = r.random(2000); y = (r.random(2000) < p).astype(float)
    >>> e = evaluate("binary", y, p, base=0.5, at_us=np.arange(2000))
    >>> e.metrics["auc"].low < 0.83 < e.metrics["auc"].high
    True
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    _validate(task, truth, predicted)
    how = bootstrap or Bootstrap()
    functions = _METRICS[task]
    weights, blocks = _resamples(at_us, how)
    constant = np.full(len(truth), base)
    ones = np.ones(len(truth))
    primary = functions[PRIMARY[task]]
    fixed = {name: f(truth, constant, ones) for name, f in functions.items() if name != "auc"}
    prepared = {name: _prepare(name, f, truth, predicted) for name, f in functions.items()}
    prepared["skill"] = lambda w: 1.0 - primary(truth, predicted, w) / primary(truth, constant, w)
    samples: dict[str, list[float]] = {name: [] for name in prepared}
    for resample in weights:
        for name, metric in prepared.items():
            samples[name].append(metric(resample))
    metrics = {name: _interval(metric(ones), np.array(samples[name]), how) for name, metric in prepared.items()}
    return Evaluation(
        task, len(truth), float(base), metrics, fixed, calibration(truth, predicted), blocks, how.confidence
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same rows, by the primary metric of their task.

    Attributes:
        improvement: champion's metric − challenger's (positive: the challenger is better), with its paired interval.
    """

    metric: str
    rows: int
    champion: float
    challenger: float
    improvement: Estimate

    def to_json(self) -> dict[str, object]:
        """The comparison as plain data."""
        return {
            "metric": self.metric,
            "rows": self.rows,
            "champion": self.champion,
            "challenger": self.challenger,
            "improvement": self.improvement.to_json(),
        }


def compare(
    task: Task,
    truth: Floats,
    champion: Floats,
    challenger: Floats,
    *,
    at_us: NDArray[np.int64],
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Compare two models' predictions of the same rows; resamples are shared, so what both find hard cancels out.

    >>> y = np.tile([0.0, 1.0], 100)
    >>> c = compare("binary", y, np.full(200, 0.5), 0.2 + 0.6 * y, at_us=np.arange(200))
    >>> c.improvement.low > 0
    True
    """
    for predicted in (champion, challenger):
        _validate(task, truth, predicted)
    how = bootstrap or Bootstrap()
    metric = _METRICS[task][PRIMARY[task]]
    weights, _ = _resamples(at_us, how)
    ones = np.ones(len(truth))
    old, new = metric(truth, champion, ones), metric(truth, challenger, ones)
    samples = np.array([metric(truth, champion, w) - metric(truth, challenger, w) for w in weights])
    return Comparison(PRIMARY[task], len(truth), old, new, _interval(old - new, samples, how))


def calibration(truth: Floats, predicted: Floats, bins: int = 10) -> tuple[Bin, ...]:
    """Rows in bins of equal count by predicted value; equal predictions share a bin.

    >>> calibration(np.array([0., 0., 1., 1.]), np.array([.1, .2, .8, .9]), bins=2)
    (Bin(low=0.1, high=0.2, rows=2, predicted=0.15..., observed=0.0), Bin(low=0.8, high=0.9, rows=2, predicted=0.85..., observed=1.0))
    """
    order = np.argsort(predicted, kind="stable")
    p, y = predicted[order], truth[order]
    edges = np.unique(np.searchsorted(p, p[np.linspace(0, len(p), bins + 1).astype(int)[1:-1]], side="left"))
    cuts = [0, *edges[edges > 0].tolist(), len(p)]
    return tuple(
        Bin(float(p[a]), float(p[b - 1]), b - a, float(p[a:b].mean()), float(y[a:b].mean()))
        for a, b in pairwise(cuts)
        if b > a
    )


def auc(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Area under the ROC curve: the chance that a positive is ranked above a negative, ties counting half.

    O(rows log rows). NaN where the weights leave one class only.

    >>> auc(np.array([0., 0., 1., 1.]), np.array([.1, .4, .35, .8]), np.ones(4))
    0.75
    """
    return _ranked_auc(truth, predicted)(weights)


def _ranked_auc(truth: Floats, predicted: Floats) -> Callable[[Floats], float]:
    # The order is found once; a resample only sums its weights along it. Shape of the data for one tie at 0.4:
    #   predicted sorted   .1  .4  .4  .8        ties   0  1  1  2
    order = np.argsort(predicted, kind="stable")
    p, positive = predicted[order], truth[order] > 0
    ties = np.concatenate([[0], np.cumsum(p[1:] != p[:-1])])
    groups = int(ties[-1]) + 1

    def area(weights: Floats) -> float:
        w = weights[order]
        up = np.bincount(ties, np.where(positive, w, 0.0), groups)
        down = np.bincount(ties, np.where(positive, 0.0, w), groups)
        below = np.cumsum(down) - down
        pairs = up.sum() * down.sum()
        return float((up * (below + 0.5 * down)).sum() / pairs) if pairs else float("nan")

    return area


def log_loss(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Mean negative log likelihood of the outcomes.

    >>> round(log_loss(np.array([1., 0.]), np.array([.9, .2]), np.ones(2)), 4)
    0.1643
    """
    p = np.clip(predicted, SMALLEST, 1.0 - SMALLEST)
    return float(np.average(np.where(truth > 0, -np.log(p), -np.log1p(-p)), weights=weights))


def brier(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Mean squared error of the probabilities (Brier 1950).

    >>> round(brier(np.array([1., 0.]), np.array([.9, .2]), np.ones(2)), 4)
    0.025
    """
    return float(np.average((predicted - truth) ** 2, weights=weights))


def rmse(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Root of the mean squared error, in the label's unit.

    >>> rmse(np.array([0., 0.]), np.array([3., -3.]), np.ones(2))
    3.0
    """
    return float(np.sqrt(np.average((predicted - truth) ** 2, weights=weights)))


def mae(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Mean absolute error, in the label's unit.

    >>> mae(np.array([0., 0.]), np.array([1., -3.]), np.ones(2))
    2.0
    """
    return float(np.average(np.abs(predicted - truth), weights=weights))


def bias(truth: Floats, predicted: Floats, weights: Floats) -> float:
    """Mean of predicted − observed.

    >>> bias(np.array([0., 0.]), np.array([1., -3.]), np.ones(2))
    -1.0
    """
    return float(np.average(predicted - truth, weights=weights))


_METRICS: Mapping[Task, Mapping[str, Metric]] = {
    "binary": {"auc": auc, "log_loss": log_loss, "brier": brier, "bias": bias},
    "regression": {"rmse": rmse, "mae": mae, "bias": bias},
}


def _prepare(name: str, metric: Metric, truth: Floats, predicted: Floats) -> Callable[[Floats], float]:
    if name == "auc":
        return _ranked_auc(truth, predicted)
    return lambda weights: metric(truth, predicted, weights)


def _resamples(at_us: NDArray[np.int64], how: Bootstrap) -> tuple[Iterator[Floats], int]:
    """One vector of row counts per resample (one at a time in memory), and how many blocks of time were drawn from."""
    generator = np.random.default_rng(how.seed)
    span = int(at_us.max()) - int(at_us.min()) + 1
    block = (at_us - at_us.min()) * how.blocks // span
    used, block = np.unique(block, return_inverse=True)
    by_time = len(used) >= 10
    units = len(used) if by_time else len(at_us)
    draws = (generator.multinomial(units, np.full(units, 1.0 / units)) for _ in range(how.samples))
    weights = ((drawn[block] if by_time else drawn).astype(np.float64) for drawn in draws)
    return weights, len(used) if by_time else 0


def _interval(value: float, samples: Floats, how: Bootstrap) -> Estimate:
    tail = (1.0 - how.confidence) / 2.0
    good = samples[np.isfinite(samples)]
    if not len(good):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(good, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))


def _validate(task: Task, truth: Floats, predicted: Floats) -> None:
    if len(truth) != len(predicted) or not len(truth):
        raise ConfigError(
            f"evaluation: as many predictions as outcomes are required, and at least one; got {len(predicted)} predictions "
            f"of {len(truth)} outcomes; choose a hold-out that has labelled rows"
        )
    for what, values in (("outcome", truth), ("prediction", predicted)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ConfigError(
                f"evaluation: every {what} must be a finite number, but {bad} of {len(values)} are not; "
                "declare what a missing outcome means in the label, or mend the estimator"
            )
    if task == "binary":
        classes = np.unique(truth)
        if not np.isin(classes, (0.0, 1.0)).all() or len(classes) < 2:
            raise ConfigError(
                f"evaluation: a binary hold-out needs outcomes 0 and 1, but it has {classes.tolist()[:5]}; "
                "choose a longer hold-out, or declare task='regression'"
            )
