"""Prediction records from whole answers: the bytes of `PREDICTION_SCHEMA`, without an object per record and per look-up.

What is the same for all answers of a bundle is encoded once; what differs from state to state in one call into compiled code.
Whatever writes Avro by that schema writes these bytes. What may not live here: the schema (`predictions.py`), producing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from headrace import kernel
from headrace_schemas.compiled.lookups import encode_lookups

_SHORT = 64
_FALSE, _TRUE, _END = b"\0", b"\1", b"\0"
_FLOAT_BYTES = 8


@dataclass(frozen=True, slots=True)
class LookupFacts:
    """What is the same of all records of a lookup; see `headrace_schemas.predictions.LookupRecord`."""

    alias: str
    view: str
    layout: str
    own: bool


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """One answer, whole.

    Args:
        ids: names each row's prediction.
        batch_id: names the request.
        at_us: the moment of each row.
        served_us: when the answer was given.
        requests: each row's fields as validated, canonical JSON.
        keys: for each lookup the entity key of each row.
        states: of the first lookup one per row, then of the second one per row, and so on.
        newest_us: [lookups, rows]: of each state, as `kernel.JointRead` has it.
        features: for each lookup float64 [rows, its features].
        transforms: float64 [rows, transforms].
        output: float64 [rows].
        defaulted: the store did not answer.
    """

    ids: Sequence[str]
    batch_id: str
    at_us: npt.NDArray[np.int64]
    served_us: int
    requests: Sequence[bytes]
    keys: Sequence[Sequence[bytes]]
    states: kernel.States
    newest_us: npt.NDArray[np.int64]
    features: Sequence[npt.NDArray[np.float64]]
    transforms: npt.NDArray[np.float64]
    output: npt.NDArray[np.float64]
    defaulted: bool


class PredictionEncoder:
    """Encodes the answers of one bundle.

    Args:
        model: the model's name.
        bundle: the version that answers.
        lookups: the model's, in its order.
    """

    def __init__(self, model: str, bundle: str, lookups: Sequence[LookupFacts]) -> None:
        self._names = _text(model) + _text(bundle)
        heads = [_text(each.alias) + _text(each.view) + _text(each.layout) for each in lookups]
        owns = [_TRUE if each.own else _FALSE for each in lookups]
        # What stands before each lookup's key: the end of the one before it, and its own beginning.
        befores = [_long(len(heads)) if heads else b"", *owns]
        self._before = [before + head for before, head in zip(befores, heads, strict=False)]
        self._behind = befores[-1] + _END

    def encode(self, answer: AnsweredRows) -> Iterator[bytes]:
        """One datum per row."""
        rows = len(answer.ids)
        pieces = self._pieces(answer)
        numbers = self._numbers(answer, rows)
        batch, size = _text(answer.batch_id), _long(rows)
        served, behind = _long(answer.served_us), _TRUE if answer.defaulted else _FALSE
        for row, (name, at_us, request) in enumerate(
            zip(answer.ids, answer.at_us.tolist(), answer.requests, strict=True)
        ):
            parts = [
                _text(name), self._names, _long(at_us), served, batch, _long(row), size, _long(len(request)), request,
            ]  # fmt: skip
            for i, before in enumerate(self._before):
                key = answer.keys[i][row]
                parts += (before, _long(len(key)), key, pieces[i * rows + row])
            parts += (self._behind, numbers[row], behind)
            yield b"".join(parts)

    def _pieces(self, answer: AnsweredRows) -> list[bytes]:
        if not self._before:
            return []
        included = kernel.included(answer.states)
        data, ends = encode_lookups(
            answer.newest_us.reshape(-1), kernel.NEVER, answer.at_us, included.ends, included.partition, included.offset
        )
        packed = data.tobytes()
        return [packed[begin:end] for begin, end in pairwise([0, *ends.tolist()])]

    def _numbers(self, answer: AnsweredRows, rows: int) -> list[bytes]:
        """Features, transforms and output of each row, each with its length."""
        found = [b""] * rows
        features = np.concatenate(answer.features, axis=1) if answer.features else np.empty((rows, 0))
        for block in (features, answer.transforms, answer.output.reshape(rows, 1)):
            packed, width = np.ascontiguousarray(block, dtype="<f8").tobytes(), block.shape[1] * _FLOAT_BYTES
            length = _long(width)
            found = [before + length + packed[row * width : row * width + width] for row, before in enumerate(found)]
        return found


def _zigzag(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    found = bytearray()
    while rest > 0x7F:
        found.append((rest & 0x7F) | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


_SHORTS = [_zigzag(value) for value in range(_SHORT)]


def _long(value: int) -> bytes:
    r"""A zigzag varint.

    >>> _long(1), _long(-1), _long(300)
    (b'\x02', b'\x01', b'\xd8\x04')
    """
    return _SHORTS[value] if 0 <= value < _SHORT else _zigzag(value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _long(len(encoded)) + encoded
