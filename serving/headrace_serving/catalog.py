"""What ``GET /v1/models`` says of a model: its declaration, and the bundle that serves it."""

from __future__ import annotations

from typing import Any

from headrace_serving.hosting import Hosting
from headrace_serving.planning import ModelPlan
from headrace_serving.predicting import Predictor

Json = dict[str, Any]


def described(plan: ModelPlan, hosting: Hosting[Predictor]) -> Json:
    """One model: what it takes and reads, and whether and with what it serves."""
    model = plan.model
    predictor, refused = hosting.serving.get(model.name), hosting.refused.get(model.name)
    facts: Json = {
        "name": model.name,
        "description": model.description,
        "task": model.task,
        "alias": hosting.alias,
        "serving": predictor is not None,
        "version": predictor.version if predictor is not None else None,
        "request": {
            each.name: {"type": each.field.type.value, "required": each.required, "expected": each.field.expected}
            for each in model.request_fields
        },
        "views": {lookup.alias: lookup.read.view.name for lookup in plan.lookups},
        "features": [name for lookup in plan.lookups for name in lookup.names],
        "transforms": list(plan.transforms),
        "fold_request": model.fold_request,
        "on_unavailable": model.on_unavailable,
    }
    if predictor is not None:
        manifest = predictor.manifest
        facts |= {
            "created_at": manifest.created_at,
            "metrics": manifest.metrics,
            "dataset": manifest.dataset,
            "onnx_max_difference": manifest.onnx_max_difference,
        }
    if refused is not None:
        facts["refused"] = {"version": refused.version, "reason": refused.reason}
    return facts
