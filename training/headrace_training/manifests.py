"""Dataset manifests: what a dataset was made of, and a hash over what it holds.

The same call on the same log versions gives the same rows in the same order, hence the same hash; a manifest has no clock in
it. What must not live here: making datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

import headrace as hr
from headrace.fingerprints import canonical_json

FORMAT = 1


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """What is known of a dataset.

    Attributes:
        mode: the notion of "knowable": "event-time", "as-available" or "as-served".
        lag_us: event time only: how long after its time an event became knowable.
        spine: where the rows came from.
        counts: rows by fate: in the dataset, and left out by reason.
        logs: version, rows considered and newest event time of each log that was read.
        fingerprints: of the model, its views and its transforms.
        columns: names and types, in order.
        span_us: first and last moment of the rows; None for no rows.
        label: the declared meaning of the label, if there is one.
        content: SHA-256 over columns, types and values.
    """

    mode: str
    lag_us: int
    spine: Mapping[str, object]
    counts: Mapping[str, int]
    logs: Mapping[str, Mapping[str, object]]
    fingerprints: Mapping[str, object]
    columns: Mapping[str, str]
    span_us: tuple[int, int] | None
    content: str
    label: Mapping[str, object] | None = None
    format: int = field(default=FORMAT)

    def to_json(self) -> dict[str, object]:
        """The manifest as plain data."""
        return {
            "format": self.format,
            "mode": self.mode,
            "lag_us": self.lag_us,
            "spine": dict(self.spine),
            "counts": dict(self.counts),
            "logs": {name: dict(facts) for name, facts in self.logs.items()},
            "fingerprints": dict(self.fingerprints),
            "columns": dict(self.columns),
            "span_us": None if self.span_us is None else list(self.span_us),
            "label": None if self.label is None else dict(self.label),
            "content": self.content,
        }

    @property
    def hash(self) -> str:
        """Sixteen hex characters over all of it."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The manifest as a file."""
        return (json.dumps({**self.to_json(), "hash": self.hash}, indent=1, sort_keys=True) + "\n").encode()


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values of a frame, independent of how it is chunked or stored.

    >>> content_hash(pl.DataFrame({"a": [1, None]})) == content_hash(pl.DataFrame({"a": [1]}).vstack(pl.DataFrame({"a": [None]}, {"a": pl.Int64})))
    True
    """
    digest = hashlib.sha256()
    for series in frame.rechunk():
        digest.update(f"{series.name}\0{series.dtype}\0{len(series)}\0".encode())
        digest.update(series.is_null().to_numpy().tobytes())
        if series.dtype.is_numeric() or series.dtype == pl.Boolean:
            digest.update(np.ascontiguousarray(series.fill_null(0).to_numpy()).tobytes())
        elif series.dtype.is_temporal():
            digest.update(series.to_physical().fill_null(0).to_numpy().tobytes())
        else:
            texts = series.cast(pl.String).fill_null("")
            digest.update(texts.str.len_bytes().to_numpy().tobytes())
            digest.update("".join(texts.to_list()).encode())
    return digest.hexdigest()


def fingerprints(views: tuple[hr.FeatureView, ...], model: hr.Model | None = None) -> dict[str, object]:
    """What the values of a dataset depend on."""
    pins = {v.name: {"layout": v.layout_fingerprint, "finalizers": v.finalizer_fingerprint} for v in views}
    if model is None:
        return {"views": pins}
    transforms = {transform.name: transform.fingerprint for transform in model.transforms}
    return {"model": model.fingerprint, "inputs": model.input_fingerprint, "views": pins, "transforms": transforms}
