"""Columns between the compiled readers and polars: Arrow buffers, handed over without a copy.

What may not live here: formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.errors import CodecError

_LARGEST_BODY = 2**31 - 1  # positions in Arrow's string views have 32 bits


@dataclass(frozen=True, slots=True)
class Fault:
    """A value that could not be decoded: its row, why, and the kind of reason."""

    row: int
    reason: str
    code: str = "undecodable"


@dataclass(slots=True)
class Columnar:
    """What some values hold.

    Args:
        frame: the good ones in their order.
        rows: the row of each of them.
        faults: the others.
    """

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    faults: list[Fault]


class PackedValues(Sequence[bytes | None]):
    """Byte strings one behind the other; a string is made when it is asked for.

    Args:
        data: the bytes, writable, perhaps with more behind the last string.
        offsets: where each begins, and where the last ends.
        absent: which are None.

    >>> packed = PackedValues(np.frombuffer(bytearray(b"abc"), np.uint8), np.array([0, 2, 2, 3]), np.array([False, True, False]))
    >>> list(packed), packed[-1], packed.all_filled
    ([b'ab', None, b'c'], b'c', False)
    """

    __slots__ = ("_absent", "data", "offsets")

    def __init__(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], absent: npt.NDArray[np.bool_]
    ) -> None:
        self.data, self.offsets, self._absent = data, offsets, absent

    def __len__(self) -> int:
        return len(self._absent)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return None if self._absent[row] else self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    @property
    def all_filled(self) -> bool:
        """Whether none is None or empty."""
        return bool((np.diff(self.offsets) > 0).all())


def join_values(values: Sequence[bytes] | PackedValues) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Values one behind the other, and where each begins and the last ends."""
    if isinstance(values, PackedValues):
        _check_size(int(values.offsets[-1]))
        return values.data, values.offsets
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
    _check_size(int(offsets[-1]))
    return np.frombuffer(
        bytearray().join(values), np.uint8
    ), offsets  # a bytearray is writable: compiled code asks for it


def _check_size(size: int) -> None:
    if size > _LARGEST_BODY:
        raise CodecError("batch", f"it must be at most 2 GiB, but it has {size} bytes; read smaller batches")


def frame_of(
    names: Sequence[str],
    dtypes: Sequence[pl.DataType],
    numbers: Sequence[npt.NDArray[np.int64]],
    valid: Sequence[npt.NDArray[np.uint8]],
    views: Sequence[npt.NDArray[np.uint8] | None],
    nullable: Sequence[bool],
    body: npt.NDArray[np.uint8],
) -> pl.DataFrame:
    """A frame of columns in the compiled readers' form.

    Args:
        names: column names.
        dtypes: Int64, Float64, Boolean or String.
        numbers: values; floats as their bits. Unused for texts.
        valid: 1 where there is a value.
        views: Arrow's string views of a text column.
        nullable: whether `valid` counts.
        body: what the views point into.
    """
    arrays = []
    for dtype, number, has_value, view, optional in zip(dtypes, numbers, valid, views, nullable, strict=True):
        mask = pa.py_buffer(np.packbits(has_value, bitorder="little")) if optional else None
        buffers: list[Any]
        if view is not None:
            kind, buffers = pa.string_view(), [mask, pa.py_buffer(np.ascontiguousarray(view)), pa.py_buffer(body)]
        elif dtype == pl.Boolean():
            kind, buffers = pa.bool_(), [mask, pa.py_buffer(np.packbits(number.astype(bool), bitorder="little"))]
        else:
            kind, buffers = pa.float64() if dtype == pl.Float64() else pa.int64(), [mask, pa.py_buffer(number)]
        arrays.append(pa.Array.from_buffers(kind, len(number), buffers))
    frame = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, list(names)))
    assert isinstance(frame, pl.DataFrame)
    return frame
