"""Infinite numbers made null, in place and in one pass.

What may not live here: deciding what is null otherwise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from headrace.kernel.compiling import entry


@entry
def null_infinite(values: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
    """Write NaN where a value is infinite.

    Args:
        values: C-contiguous, of any shape; changed in place.

    >>> values = np.array([[1.0, np.inf], [-np.inf, np.nan]])
    >>> null_infinite(values)
    >>> values
    array([[ 1., nan],
           [nan, nan]])
    """
    flat = values.ravel()
    for i in range(flat.size):
        if math.isinf(flat[i]):
            flat[i] = math.nan
