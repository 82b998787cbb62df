"""Model bundles: what training hands to serving, and nothing else: ``model.onnx`` and ``manifest.json``.

The manifest pins everything that a served value depends on: fingerprints of the model and its views, the inputs in order, the
names of the graph's ends. **The graph:** inputs ``numeric`` (float32 [N, p]) and/or ``categorical`` (string [N, q]), output
``output`` (float32 or float64, [N] or [N, 1]; for a binary task the probability of the positive class). Additions to the
manifest get a default, so that bundles of yesterday stay readable; whatever else changes raises `MANIFEST_FORMAT`.
What may not live here: files and directories (``stores/registry.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from headrace.errors import CodecError
from headrace.fingerprints import canonical_json

MANIFEST_FORMAT = 1

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None


@dataclass(frozen=True, slots=True)
class ViewPin:
    """The two fingerprints of a view that a model was trained on."""

    layout: str
    finalizers: str


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What a bundle's values depend on.

    Args:
        model: the whole meaning of the model, label and estimator included.
        inputs: what serving computes from: request fields, lookups, transforms.
        views: the pins of its views, by view name.
        transforms: the fingerprints of its on-demand transforms, by name.
    """

    model: str
    inputs: str
    views: Mapping[str, ViewPin]
    transforms: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One model input, in the order of the graph's columns.

    Args:
        name: as the model declares it.
        kind: ``request``, ``feature`` or ``transform``.
        dtype: ``float`` (a column of ``numeric``) or ``string`` (a column of ``categorical``).
    """

    name: str
    kind: str
    dtype: str


@dataclass(frozen=True, slots=True)
class GraphNames:
    """The ends of the ONNX graph; a model without inputs of one kind has no such input."""

    numeric_input: str | None = "numeric"
    categorical_input: str | None = None
    output: str = "output"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a bundle but its graph.

    Args:
        model: the model's name.
        task: ``binary`` or ``regression``.
        fingerprints: what its values depend on.
        inputs: its inputs in order.
        onnx: the graph's ends.
        metrics: how good it is, with intervals and the base rate; JSON.
        dataset: what it was trained on: manifest hash, rows, span; JSON.
        onnx_max_difference: the largest difference between the ONNX and the Python prediction on the hold-out.
        created_at: when it was made, ISO 8601.
        software: versions of what made it, by package.
        reference: reference statistics of inputs and predictions, for monitors; JSON.
    """

    model: str
    task: str
    fingerprints: Fingerprints
    inputs: tuple[InputSpec, ...]
    onnx: GraphNames
    metrics: Mapping[str, Json]
    dataset: Mapping[str, Json]
    onnx_max_difference: float
    created_at: str
    software: Mapping[str, str]
    reference: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The manifest file: one spelling per content, a line per key for people."""
        content = {
            "format": MANIFEST_FORMAT,
            "model": self.model,
            "task": self.task,
            "fingerprints": {
                "model": self.fingerprints.model,
                "inputs": self.fingerprints.inputs,
                "views": {
                    name: {"layout": pin.layout, "finalizers": pin.finalizers}
                    for name, pin in self.fingerprints.views.items()
                },
                "transforms": dict(self.fingerprints.transforms),
            },
            "inputs": [{"name": i.name, "kind": i.kind, "dtype": i.dtype} for i in self.inputs],
            "onnx": {
                "numeric_input": self.onnx.numeric_input,
                "categorical_input": self.onnx.categorical_input,
                "output": self.onnx.output,
            },
            "metrics": self.metrics,
            "dataset": self.dataset,
            "onnx_max_difference": self.onnx_max_difference,
            "created_at": self.created_at,
            "software": dict(self.software),
            "reference": self.reference,
        }
        # Through the canonical form first: it refuses NaN, which no other JSON reader would accept.
        try:
            plain = json.loads(canonical_json(content))
        except (TypeError, ValueError) as error:
            raise CodecError(
                f"manifest of model {self.model!r}", f"every value must be JSON, but {error}; give finite plain values"
            ) from error
        return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, what: str = "manifest") -> Manifest:
        """The manifest of a file's content.

        Args:
            data: the content.
            what: what to call it in a message, such as its path.

        Raises:
            CodecError: it is not a manifest, or of a newer format than this program reads.
        """
        try:
            content = json.loads(data)
            written = content["format"]
            if not isinstance(written, int) or written > MANIFEST_FORMAT:
                raise CodecError(
                    what,
                    f"its format {written!r} is newer than this program's {MANIFEST_FORMAT}; upgrade headrace here",
                )
            prints = content["fingerprints"]
            return cls(
                model=content["model"],
                task=content["task"],
                fingerprints=Fingerprints(
                    model=prints["model"],
                    inputs=prints["inputs"],
                    views={name: ViewPin(**pin) for name, pin in prints["views"].items()},
                    transforms=prints["transforms"],
                ),
                inputs=tuple(InputSpec(**item) for item in content["inputs"]),
                onnx=GraphNames(**content["onnx"]),
                metrics=content["metrics"],
                dataset=content["dataset"],
                onnx_max_difference=content["onnx_max_difference"],
                created_at=content["created_at"],
                software=content["software"],
                reference=content.get("reference", {}),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CodecError(
                what, f"it must be a bundle's manifest, but {type(error).__name__}: {error}; register the model again"
            ) from error
