"""Reference statistics: how inputs and predictions were distributed where a model was fitted and judged.

They travel in the bundle, so that a monitor can tell drift without the training data. What must not live here: monitors.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from headrace_schemas.bundles import Json
from headrace_training.fitting import Inputs

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
TOP = 50


def reference(inputs: Inputs, predictions: NDArray[np.float64]) -> dict[str, Json]:
    """Statistics of each input over the fitted rows, and of the predictions over the hold-out.

    >>> numbers = np.array([[1.0], [np.nan], [3.0]], np.float32)
    >>> found = reference(Inputs(("delay",), (), numbers, np.empty((3, 0), object)), np.array([0.5]))
    >>> found["inputs"]["delay"]["mean"], round(found["inputs"]["delay"]["missing"], 3)
    (2.0, 0.333)
    """
    stats: dict[str, Json] = {n: numbers(inputs.numeric[:, j]) for j, n in enumerate(inputs.numeric_names)}
    stats |= {n: words(inputs.categorical[:, j]) for j, n in enumerate(inputs.categorical_names)}
    return {"quantiles": list(QUANTILES), "inputs": stats, "predictions": numbers(predictions)}


def numbers(values: NDArray[np.float32] | NDArray[np.float64]) -> dict[str, Json]:
    """Share of missing values, mean, standard deviation and `QUANTILES` of the others."""
    known = values[np.isfinite(values)].astype(np.float64)
    missing = 1.0 - len(known) / len(values) if len(values) else 0.0
    if not len(known):
        return {"kind": "number", "rows": len(values), "missing": missing}
    return {
        "kind": "number",
        "rows": len(values),
        "missing": missing,
        "mean": float(known.mean()),
        "std": float(known.std()),
        "at_quantiles": [float(q) for q in np.quantile(known, QUANTILES)],
    }


def words(values: NDArray[np.object_]) -> dict[str, Json]:
    """Shares of the most frequent words; "" is a missing value."""
    counts = Counter(values.tolist())
    total = max(1, len(values))
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {
        "kind": "text",
        "rows": len(values),
        "distinct": len(counts),
        "shares": {word: count / total for word, count in top},
    }
