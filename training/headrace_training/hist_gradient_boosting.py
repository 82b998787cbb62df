"""HistGradientBoosting → ONNX, exactly: a converter of our own, registered with skl2onnx.

skl2onnx's converter rounds the float64 thresholds of these trees to the *nearest* float32, which can move a training
value to the other side of its split; it also ignores categorical splits. Here:

    threshold t (float64), values x are float32:      x ≤ t   ⇔   x ≤ ⌊t⌋₃₂     (the largest float32 not above t)

so every row takes the same path in ONNX as in Python, missing values (NaN) included, and only the float32 sum of the
leaves differs. What must not live here: anything about other estimators.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

Nodes = NDArray[np.void]
OPSET_ML = 1


class Variable(Protocol):
    """A tensor of the graph being built."""

    full_name: str


class Operator(Protocol):
    """The estimator that is being converted, with its tensors."""

    raw_operator: Any
    input_full_names: list[str]
    outputs: list[Variable]


class Scope(Protocol):
    """Where unique names come from."""

    def get_unique_variable_name(self, seed: str) -> str: ...
    def get_unique_operator_name(self, seed: str) -> str: ...


class Container(Protocol):
    """The graph being built."""

    def add_node(self, op_type: str, inputs: object, outputs: object, **attributes: object) -> None: ...
    def add_initializer(self, name: str, kind: int, shape: list[int], content: list[float]) -> None: ...


def round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above each float64.

    >>> float(round_down(np.array([0.1]))[0]) <= 0.1 < float(np.nextafter(round_down(np.array([0.1])), np.float32(1))[0])
    True
    """
    nearest = thresholds.astype(np.float32)
    lower = np.nextafter(nearest, np.float32(-np.inf))
    return cast(NDArray[np.float32], np.where(nearest > thresholds, lower, nearest))


def tree_attributes(model: Any) -> dict[str, object]:
    """Attributes of one ONNX TreeEnsembleRegressor that gives the model's raw prediction.

    Raises:
        NotImplementedError: on several trees per iteration, or splits over categories.
    """
    if any(len(iteration) != 1 for iteration in model._predictors):
        raise NotImplementedError("several trees per iteration (more than two classes)")
    trees = [iteration[0].nodes for iteration in model._predictors]
    nodes: Nodes = np.concatenate(trees)
    if nodes["is_categorical"].any():
        raise NotImplementedError(
            "splits over categories (categorical_features=…); encode them with OneHotEncoder or OrdinalEncoder"
        )
    tree = np.repeat(np.arange(len(trees)), [len(t) for t in trees])
    node = np.concatenate([np.arange(len(t)) for t in trees])
    leaf = nodes["is_leaf"] != 0
    inner = {
        "nodes_featureids": nodes["feature_idx"],
        "nodes_truenodeids": nodes["left"],
        "nodes_falsenodeids": nodes["right"],
        "nodes_missing_value_tracks_true": nodes["missing_go_to_left"],
    }
    return {
        "n_targets": 1,
        "base_values": [float(np.ravel(model._baseline_prediction)[0])],
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": node.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": round_down(np.where(leaf, 0.0, nodes["num_threshold"])).tolist(),
        **{name: np.where(leaf, 0, column).astype(np.int64).tolist() for name, column in inner.items()},
        "target_treeids": tree[leaf].tolist(),
        "target_nodeids": node[leaf].tolist(),
        "target_ids": [0] * int(leaf.sum()),
        "target_weights": nodes["value"][leaf].astype(np.float32).tolist(),
    }


def _raw(scope: Scope, operator: Operator, container: Container, output: str) -> None:
    container.add_node(
        "TreeEnsembleRegressor",
        operator.input_full_names,
        output,
        op_domain="ai.onnx.ml",
        op_version=OPSET_ML,
        name=scope.get_unique_operator_name("TreeEnsembleRegressor"),
        **tree_attributes(operator.raw_operator),
    )


def _convert_classifier(scope: Scope, operator: Operator, container: Container) -> None:
    label, probabilities = (variable.full_name for variable in operator.outputs)
    raw, positive, negative, one = (
        scope.get_unique_variable_name(seed) for seed in ("raw", "positive", "negative", "one")
    )
    _raw(scope, operator, container, raw)
    container.add_initializer(one, 1, [1], [1.0])
    unique = scope.get_unique_operator_name
    container.add_node("Sigmoid", raw, positive, name=unique("Sigmoid"))
    container.add_node("Sub", [one, positive], negative, name=unique("Sub"))
    container.add_node("Concat", [negative, positive], probabilities, name=unique("Concat"), axis=1)
    container.add_node("ArgMax", probabilities, label, name=unique("ArgMax"), axis=1, keepdims=0)


_LINKS = {"IdentityLink": None, "LogLink": "Exp"}


def _convert_regressor(scope: Scope, operator: Operator, container: Container) -> None:
    link = type(operator.raw_operator._loss.link).__name__
    if link not in _LINKS:
        raise NotImplementedError(f"the link function {link}")
    output, inverse = operator.outputs[0].full_name, _LINKS[link]
    if inverse is None:
        _raw(scope, operator, container, output)
        return
    raw = scope.get_unique_variable_name("raw")
    _raw(scope, operator, container, raw)
    container.add_node(inverse, raw, output, name=scope.get_unique_operator_name(inverse))


def register() -> None:
    """Tell skl2onnx to use these converters; calling it again changes nothing."""
    update_registered_converter(
        HistGradientBoostingClassifier,
        "HeadraceHistGradientBoostingClassifier",
        calculate_linear_classifier_output_shapes,
        _convert_classifier,
        options={"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]},
    )
    update_registered_converter(
        HistGradientBoostingRegressor,
        "HeadraceHistGradientBoostingRegressor",
        calculate_linear_regressor_output_shapes,
        _convert_regressor,
    )
