"""ONNX Runtime: the one module that knows it. A bundle's graph in, a function from model inputs to outputs out.

The graph's contract: inputs ``numeric`` float32 [N, p] and/or ``categorical`` string [N, q], output ``output`` float [N]
or [N, 1]. One intra-op thread and no spinning: a prediction is small, the service scales by requests, and the result does
not depend on how many cores the machine has.
"""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from headrace.errors import CodecError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Strings = npt.NDArray[np.object_]


class _Port(Protocol):
    """What ONNX Runtime says of an input or output."""

    name: str
    type: str
    shape: list[int | str | None]


class Scorer:
    """A loaded graph.

    Args:
        what: names the graph in errors, such as ``model 'delay' version 3f2a``.
        onnx: the graph's bytes.
        numeric: (name, columns) of the float32 input, or None.
        categorical: (name, columns) of the string input, or None.
        output: the name of the output.

    Raises:
        CodecError: the bytes are no graph, or its inputs and outputs are not those that were announced.
    """

    __slots__ = ("_categorical", "_numeric", "_outputs", "_run")

    def __init__(
        self, what: str, onnx: bytes, numeric: tuple[str, int] | None, categorical: tuple[str, int] | None, output: str
    ) -> None:
        session = _session(what, onnx)
        inputs = {port.name: port for port in cast("list[_Port]", session.get_inputs())}
        outputs = {port.name: port for port in cast("list[_Port]", session.get_outputs())}
        announced = {}
        for port, kind in ((numeric, "tensor(float)"), (categorical, "tensor(string)")):
            if port is not None:
                announced[port[0]] = (kind, port[1])
        found = {name: (port.type, port.shape[-1]) for name, port in inputs.items()}
        if found != announced:
            raise CodecError(what, f"its graph takes {_ports(found)}, but its manifest announces {_ports(announced)}")
        if output not in outputs:
            raise CodecError(what, f"its graph gives {', '.join(outputs)}, but its manifest announces {output!r}")
        self._run = session.run
        self._numeric = numeric[0] if numeric else None
        self._categorical = categorical[0] if categorical else None
        self._outputs = [output]

    def score(self, numeric: Float32, categorical: Strings) -> Float64:
        """One output per row."""
        feed: dict[str, Float32 | Strings] = {}
        if self._numeric is not None:
            feed[self._numeric] = numeric
        if self._categorical is not None:
            feed[self._categorical] = categorical
        (output,) = self._run(self._outputs, feed)
        return np.asarray(output, dtype=np.float64).reshape(-1)


def _session(what: str, onnx: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
        raise CodecError(what, f"ONNX Runtime cannot load its graph: {error}") from error


def _ports(ports: dict[str, tuple[str, int | str | None]] | dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name!r} {kind} [N, {columns}]" for name, (kind, columns) in ports.items()) or "nothing"
