"""A fitted estimator as an ONNX graph that keeps the contract of serving, and the proof that both predict the same.

The graph::

    numeric      float32 [N, p] ──┐
                                  ├── scaling, encoding, imputation, the estimator ──► output  float32 [N, 1]
    categorical  string  [N, q] ──┘      (absent where p or q is 0)                    (binary: P(positive class))

Invariants:
    - one output; label and other by-products of the conversion are pruned, so serving computes nothing that it drops;
    - a graph is returned only with the largest difference from Python on given rows, measured in ONNX Runtime as serving
      runs it (one intra-op thread), and only if that difference is within a declared tolerance;
    - the same estimator gives the same bytes.

What must not live here: registries and metrics.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer

from headrace.errors import ConfigError
from headrace_schemas.bundles import GraphNames
from headrace_training.fitting import Fitted, Inputs

NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "output"
OPSET = {"": 18, "ai.onnx.ml": 3}
"""ONNX 1.13 of 2022: everything that scikit-learn models need, and every ONNX Runtime since 1.14 runs it."""

TOLERANCE = 1e-5
"""Largest accepted difference, relative to max(1, largest prediction): about a hundred float32 roundings."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A graph and how far it is from Python.

    Attributes:
        onnx: the serialised graph.
        names: its inputs and output.
        max_difference: the largest absolute difference over the rows compared.
        rows: how many rows were compared.
        tolerance: the largest difference that would have been accepted.
    """

    onnx: bytes
    names: GraphNames
    max_difference: float
    rows: int
    tolerance: float


def export(fitted: Fitted, inputs: Inputs, *, model: str, tolerance: float = TOLERANCE) -> Exported:
    """Convert a fitted estimator and compare both on some rows.

    Args:
        fitted: the estimator.
        inputs: rows to compare on, which it was not fitted on.
        model: name of the model, for the graph and for messages.
        tolerance: largest accepted difference, relative to max(1, largest |prediction|).

    Raises:
        ConfigError: if a part of the estimator has no ONNX form, or the two predictions differ by more than the tolerance.
    """
    graph = convert(fitted, inputs, model=model)
    expected = fitted.predict(inputs)
    found = Runtime(graph).run(inputs)
    bound = tolerance * max(1.0, float(np.abs(expected).max(initial=0.0)))
    differences = np.abs(expected - found)
    worst = float(differences.max(initial=0.0))
    if not worst <= bound:
        over = int((~(differences <= bound)).sum())
        raise ConfigError(
            f"model {model!r}: ONNX and Python predictions must agree within {bound:.3g}, but they differ by up to "
            f"{worst:.3g} ({over} of {len(inputs)} rows are over); serving would not predict what was evaluated. "
            "Leave numbers that go into trees unscaled (rounding can move one across a split), avoid CalibratedClassifierCV "
            "around estimators with a decision_function (skl2onnx calibrates their probabilities), or declare a larger "
            "tolerance"
        )
    names = GraphNames(
        numeric_input=NUMERIC if inputs.numeric_names else None,
        categorical_input=CATEGORICAL if inputs.categorical_names else None,
        output=OUTPUT,
    )
    return Exported(graph, names, worst, len(inputs), bound)


class Runtime:
    """A graph in ONNX Runtime, set up as serving does: one thread, CPU."""

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._wanted = {port.name for port in self._session.get_inputs()}
        self._output = self._session.get_outputs()[0].name

    def run(self, inputs: Inputs) -> NDArray[np.float64]:
        """One number per row."""
        feed = {NUMERIC: inputs.numeric, CATEGORICAL: inputs.categorical}
        (output,) = self._session.run([self._output], {n: v for n, v in feed.items() if n in self._wanted})
        return np.asarray(output, np.float64).reshape(len(inputs))


def convert(fitted: Fitted, inputs: Inputs, *, model: str) -> bytes:
    """The graph of a fitted estimator, unchecked.

    Raises:
        ConfigError: if a part of the estimator has no ONNX form.
    """
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    from headrace_training import hist_gradient_boosting

    hist_gradient_boosting.register()
    ends = [(NUMERIC, FloatTensorType([None, len(inputs.numeric_names)]))] if inputs.numeric_names else []
    if inputs.categorical_names:
        ends.append((CATEGORICAL, StringTensorType([None, len(inputs.categorical_names)])))
    options = {"zipmap": False} if fitted.task == "binary" else None
    twin = _by_position(fitted.estimator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = skl2onnx.convert_sklearn(twin, model, ends, options=options, target_opset=OPSET)
    except Exception as error:
        raise ConfigError(
            f"model {model!r}: every step of its estimator needs an ONNX form, but the conversion of "
            f"{type(fitted.estimator).__name__} failed: {_first_line(error)}; replace the step by one that skl2onnx converts"
        ) from error
    _keep_one_output(proto.graph, positive_class=fitted.task == "binary")
    _declare_ends(proto.graph, inputs)
    proto.producer_name, proto.producer_version, proto.doc_string = "headrace", "", ""
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _by_position(estimator: object) -> object:
    """A copy in which column transformers select by position instead of by name.

    The table's columns are the graph's columns in the same order, so position j means the same in both.
    """
    twin = copy.deepcopy(estimator)
    seen: set[int] = set()

    def visit(part: Any) -> None:
        if id(part) in seen or isinstance(part, str | bytes | int | float | np.ndarray | None):
            return
        seen.add(id(part))
        if isinstance(part, ColumnTransformer) and hasattr(part, "transformers_"):
            positions = part._transformer_to_input_indices
            part.transformers_ = [
                (name, step, [int(j) for j in positions[name]])
                for name, step, _ in part.transformers_
                if len(positions[name])
            ]
        if isinstance(part, dict):
            children: Any = part.values()
        elif isinstance(part, list | tuple):
            children = part
        else:
            estimator_like = hasattr(part, "get_params") or hasattr(part, "predict")
            children = getattr(part, "__dict__", {}).values() if estimator_like else ()
        for child in list(children):
            visit(child)

    visit(twin)
    return twin


def _keep_one_output(graph: Any, *, positive_class: bool) -> None:
    """Make the wanted tensor the only output, and drop the nodes and constants that nothing uses then."""
    wanted = graph.output[1 if positive_class else 0].name
    if positive_class:
        graph.initializer.append(helper.make_tensor("headrace_positive", TensorProto.INT64, [1], [1]))
        last = helper.make_node("Gather", [wanted, "headrace_positive"], [OUTPUT], name="headrace_output", axis=1)
    else:
        graph.initializer.append(helper.make_tensor("headrace_column", TensorProto.INT64, [2], [-1, 1]))
        last = helper.make_node("Reshape", [wanted, "headrace_column"], [OUTPUT], name="headrace_output")
    kind = graph.output[1 if positive_class else 0].type.tensor_type.elem_type
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, kind or TensorProto.FLOAT, [None, 1]))
    used, kept = {OUTPUT}, [last]
    used.update(last.input)
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    del graph.value_info[:]


def _declare_ends(graph: Any, inputs: Inputs) -> None:
    """Both inputs in the announced order and shape, also one that the estimator ignores."""
    ends = (
        (NUMERIC, TensorProto.FLOAT, inputs.numeric_names),
        (CATEGORICAL, TensorProto.STRING, inputs.categorical_names),
    )
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(n, kind, [None, len(names)]) for n, kind, names in ends if names)


def _first_line(error: Exception) -> str:
    # skl2onnx prints whole trees in its messages.
    text = str(error).strip().split("\n", 1)[0]
    return text if len(text) <= 300 else text[:300] + " …"
