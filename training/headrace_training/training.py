"""Training: from a declaration and a log to a registered bundle, in one call.

    dataset ─► time-ordered split ─► fit ─► ONNX, compared with Python ─► evaluate ─► register ─► gate

What is evaluated is what is registered: predictions of the hold-out come from the ONNX graph in ONNX Runtime. What must not
live here: any of the steps themselves.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace.errors import ConfigError
from headrace_schemas.bundles import Fingerprints, InputSpec, Manifest, ViewPin
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.registry import CHAMPION, Bundle, Registry
from headrace_training import exporting
from headrace_training.datasets import Dataset, Mode, build_dataset
from headrace_training.evaluating import Bootstrap, Evaluation, evaluate
from headrace_training.exporting import Exported, Runtime, export
from headrace_training.fitting import Fitted, Floats, Inputs, fit
from headrace_training.lookups import Effort
from headrace_training.promoting import Decision, Holdout, pass_gate
from headrace_training.references import reference
from headrace_training.splits import Split, split_at, split_share

_SOFTWARE = ("headrace", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "polars")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training job made.

    Attributes:
        bundle: the registered bundle.
        dataset: what it was made of.
        split: rows that were fitted on and judged on.
        evaluation: quality on the hold-out, of the ONNX graph.
        exported: the graph, and how far it is from Python.
        decision: what the gate said; None if it was not asked.
        predicted: the graph's predictions of the hold-out, in the order of `split.holdout`.
    """

    bundle: Bundle
    dataset: Dataset
    split: Split
    evaluation: Evaluation
    exported: Exported
    decision: Decision | None
    predicted: NDArray[np.float64]

    def to_json(self) -> dict[str, object]:
        """The result as a command prints it."""
        return {
            "model": self.bundle.model,
            "version": self.bundle.version,
            "path": str(self.bundle.path),
            "dataset": {"hash": self.dataset.manifest.hash, "counts": dict(self.dataset.manifest.counts)},
            "fitted_rows": len(self.split.fit),
            "holdout_rows": len(self.split.holdout),
            "purged_rows": self.split.purged,
            "evaluation": self.evaluation.to_json(),
            "onnx_max_difference": self.exported.max_difference,
            "promotion": None if self.decision is None else self.decision.to_json(),
        }


def train(
    loaded: LoadedProject,
    model: hr.Model | str,
    *,
    created_at: datetime,
    from_us: int | None = None,
    until_us: int | None = None,
    evaluate_from_us: int | None = None,
    holdout_share: float = 0.2,
    mode: Mode = "event-time",
    lag_us: int = 0,
    registry: Registry | None = None,
    promote: Literal["gate", "always", "never"] = "gate",
    tolerance: float = exporting.TOLERANCE,
    bootstrap: Bootstrap | None = None,
    effort: Effort | None = None,
) -> TrainResult:
    """Train, evaluate, export and register a model.

    Args:
        loaded: the project.
        model: the model or its name.
        created_at: when the bundle is made; an aware time.
        from_us: request events from this moment on.
        until_us: request events strictly before this moment.
        evaluate_from_us: the hold-out is every row from this moment on; by default the latest `holdout_share` of rows.
        holdout_share: see there.
        mode: what "knowable" means; see `datasets`.
        lag_us: event time only: how long after its time an event becomes knowable.
        registry: where the bundle goes; by default the project's.
        promote: "gate" asks whether the new bundle may be the champion, "always" makes it so, "never" leaves it unnamed.
        tolerance: largest accepted difference between ONNX and Python; nothing is registered beyond it.
        bootstrap: how confidence intervals are made.
        effort: how to use the machine.

    Raises:
        ConfigError: no rows, one class only, an estimator that cannot be fitted or exported.
        NotFound: an unknown model.
    """
    model = loaded.project.model(model) if isinstance(model, str) else model
    if created_at.tzinfo is None:
        raise ConfigError(f"train: created_at must name its zone, got {created_at.isoformat()}; pass datetime.now(UTC)")
    effort = effort or Effort()
    dataset = build_dataset(loaded, model, from_us=from_us, until_us=until_us, mode=mode, lag_us=lag_us, effort=effort)
    split = _split(dataset, model, evaluate_from_us, holdout_share)
    inputs, truth = dataset.inputs(model), dataset.truth
    effort.progress(f"fit {model.name}", 0, len(split.fit))
    fitted = fit(model.estimator, inputs.take(split.fit), truth[split.fit], model.task, model=model.name)
    effort.progress(f"fit {model.name}", len(split.fit), len(split.fit))
    judged = inputs.take(split.holdout)
    exported = export(fitted, judged, model=model.name, tolerance=tolerance)
    predicted = Runtime(exported.onnx).run(judged)
    at_us = dataset.at_us[split.holdout]
    evaluation = evaluate(
        model.task, truth[split.holdout], predicted, base=fitted.base, at_us=at_us, bootstrap=bootstrap
    )
    manifest = _manifest(model, dataset, split, fitted, exported, evaluation, inputs.take(split.fit), predicted, created_at, until_us)  # fmt: skip
    registry = registry or Registry(loaded.settings.registry_path)
    bundle = registry.register(model.name, exported.onnx, manifest, alias=CHAMPION if promote == "always" else None)
    decision = None
    if promote == "gate":
        holdout = Holdout(judged, truth[split.holdout], at_us)
        decision = pass_gate(model, registry, bundle, holdout, bootstrap=bootstrap)
    return TrainResult(bundle, dataset, split, evaluation, exported, decision, predicted)


def _split(dataset: Dataset, model: hr.Model, from_us: int | None, share: float) -> Split:
    if not len(dataset):
        counts = ", ".join(f"{reason}: {count}" for reason, count in dataset.manifest.counts.items())
        raise ConfigError(
            f"model {model.name!r}: labelled rows are required to train on, but the dataset has none ({counts}); "
            "check that the log holds request and outcome events of this span"
        )
    horizon = model.label.horizon_us
    if from_us is None:
        return split_share(dataset.at_us, share, horizon_us=horizon)
    return split_at(dataset.at_us, from_us, horizon_us=horizon)


def _manifest(
    model: hr.Model,
    dataset: Dataset,
    split: Split,
    fitted: Fitted,
    exported: Exported,
    evaluation: Evaluation,
    inputs: Inputs,
    predicted: Floats,
    created_at: datetime,
    until_us: int | None,
) -> Manifest:
    views = dict.fromkeys(lookup.view for lookup in model.lookups)
    made_of: dict[str, Any] = {
        "hash": dataset.manifest.hash,
        "rows": len(dataset),
        "span_us": None if dataset.manifest.span_us is None else list(dataset.manifest.span_us),
        "mode": dataset.manifest.mode,
        "lag_us": dataset.manifest.lag_us,
        "until_us": until_us,
        "fitted_rows": fitted.rows,
        "fitted_until_us": int(dataset.at_us[split.fit].max()),
        "holdout_rows": len(split.holdout),
        "holdout_from_us": split.from_us,
        "purged_rows": split.purged,
        "manifest": dataset.manifest.to_json(),
    }
    metrics: Mapping[str, Any] = evaluation.to_json()
    return Manifest(
        model=model.name,
        task=model.task,
        fingerprints=Fingerprints(
            model=model.fingerprint,
            inputs=model.input_fingerprint,
            views={view.name: ViewPin(view.layout_fingerprint, view.finalizer_fingerprint) for view in views},
            transforms={transform.name: transform.fingerprint for transform in model.transforms},
        ),
        inputs=tuple(InputSpec(item.name, item.kind, item.dtype) for item in model.inputs),
        onnx=exported.names,
        metrics=metrics,
        dataset=made_of,
        onnx_max_difference=exported.max_difference,
        created_at=created_at.isoformat(),
        software=software(),
        reference=reference(inputs, predicted),
    )


def software() -> dict[str, str]:
    """Versions of what a bundle is made with."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _SOFTWARE}}
