"""Fitting an estimator on a model's inputs, exactly as serving will hand them over: float32 numbers and strings, by name.

Invariants:
    - an estimator sees one table, its columns named and ordered like the model's inputs: numbers (float32) first, then
      strings; what serving cannot hand over (float64, categories, dates) cannot be fitted on;
    - everything that is learnt from data (scaling, encoding, imputation) is part of the estimator, so that it is fitted
      on the fitting part only and is exported with it.

What must not live here: where rows come from, and ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import ConfigError
from headrace_training.evaluating import Task

Floats = NDArray[np.float64]


class Estimator(Protocol):
    """What is asked of a scikit-learn estimator or pipeline."""

    def fit(self, X: pl.DataFrame, y: NDArray[np.float64] | NDArray[np.int64]) -> object: ...

    def predict(self, X: pl.DataFrame) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """A model's inputs for some rows, as serving assembles them.

    Attributes:
        numeric_names: names of the columns of `numeric`.
        categorical_names: names of the columns of `categorical`.
        numeric: float32 [rows, p], NaN where a value is missing.
        categorical: strings [rows, q], "" where a value is missing.
    """

    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    numeric: NDArray[np.float32]
    categorical: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.numeric) if self.numeric_names else len(self.categorical)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the table that the estimator sees."""
        return (*self.numeric_names, *self.categorical_names)

    def table(self) -> pl.DataFrame:
        """The rows as the table that the estimator sees.

        >>> numbers, words = np.array([[1.5], [np.nan]], np.float32), np.array([["a"], [""]], object)
        >>> Inputs(("delay",), ("carrier",), numbers, words).table()
        shape: (2, 2)
        ┌───────┬─────────┐
        │ delay ┆ carrier │
        │ ---   ┆ ---     │
        │ f32   ┆ str     │
        ╞═══════╪═════════╡
        │ 1.5   ┆ a       │
        │ NaN   ┆         │
        └───────┴─────────┘
        """
        columns = [pl.Series(n, np.ascontiguousarray(self.numeric[:, j])) for j, n in enumerate(self.numeric_names)]
        words = [pl.Series(n, self.categorical[:, j].tolist(), pl.String) for j, n in enumerate(self.categorical_names)]
        return pl.DataFrame([*columns, *words])

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """Some of the rows."""
        numeric, categorical = self.numeric[rows], self.categorical[rows]
        return Inputs(self.numeric_names, self.categorical_names, numeric, categorical)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted estimator and what it was fitted on.

    Attributes:
        base: base rate (binary) or mean (regression) of the rows it was fitted on: what a constant would predict.
    """

    estimator: Estimator
    task: Task
    names: tuple[str, ...]
    rows: int
    base: float

    def predict(self, inputs: Inputs) -> Floats:
        """One number per row: the probability of the positive class, or the predicted value."""
        table = inputs.table()
        if self.task == "regression":
            return np.asarray(self.estimator.predict(table), np.float64).reshape(len(inputs))
        probabilities: Callable[[pl.DataFrame], Floats] = self.estimator.predict_proba  # type: ignore[attr-defined]
        return np.asarray(probabilities(table), np.float64)[:, 1]


def fit(make: Callable[[], object], inputs: Inputs, truth: Floats, task: Task, *, model: str) -> Fitted:
    """Fit a fresh estimator.

    Args:
        make: returns an unfitted scikit-learn estimator or pipeline; its table has `inputs.names` as columns.
        inputs: rows to fit on.
        truth: outcome of each row; 0 or 1 for "binary".
        task: "binary" or "regression".
        model: name of the model, for messages.

    Raises:
        ConfigError: if there are no rows, one class only, or the estimator refuses the table.
    """
    _validate(truth, task, model)
    estimator = make()
    if not hasattr(estimator, "fit") or not hasattr(estimator, "predict"):
        raise ConfigError(
            f"model {model!r}: its estimator function must return an unfitted scikit-learn estimator, got "
            f"{type(estimator).__name__}; write estimator=lambda: HistGradientBoostingClassifier()"
        )
    unfitted = cast(Estimator, estimator)
    if task == "binary" and not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"model {model!r}: a binary model needs an estimator with predict_proba, got {type(estimator).__name__}; "
            "choose a probabilistic classifier, or wrap it in CalibratedClassifierCV"
        )
    y = truth.astype(np.int64) if task == "binary" else truth
    try:
        unfitted.fit(inputs.table(), y)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"model {model!r}: its estimator could not be fitted on {_shape(inputs.names, len(inputs))}: {error}; "
            "numbers are float32 with NaN for missing values, text must be encoded inside the estimator "
            "(ColumnTransformer with OneHotEncoder or OrdinalEncoder)"
        ) from error
    return Fitted(unfitted, task, inputs.names, len(inputs), float(truth.mean()))


def _validate(truth: Floats, task: Task, model: str) -> None:
    if not len(truth):
        raise ConfigError(f"model {model!r}: rows to fit on are required, got none; choose a span with labelled events")
    if not np.isfinite(truth).all():
        raise ConfigError(
            f"model {model!r}: every label must be a finite number, but {int((~np.isfinite(truth)).sum())} are not; "
            "declare what a missing outcome means in the label"
        )
    classes = np.unique(truth)
    if task == "binary" and classes.tolist() != [0.0, 1.0]:
        raise ConfigError(
            f"model {model!r}: a binary label needs both 0 and 1 among the rows to fit on, got {classes.tolist()[:5]}; "
            "choose a longer span, mend the label's value, or declare task='regression'"
        )


def _shape(names: Sequence[str], rows: int) -> str:
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return f"{rows} rows × {len(names)} columns ({shown})"
