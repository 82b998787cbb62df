"""Redis keys of the online store: entity keys as bytes, and the names of a view's keys in Redis.

An entity key is a byte string that both sides build alike: the worker from the columns of a batch, a reader from the fields
of a request. One key field gives its own bytes (a text its UTF-8, an integer 8 bytes, little-endian); several give for each
field its length (u16, little-endian) and its bytes, so that ``("a", "bc")`` and ``("ab", "c")`` differ.

    {flights:origin_departures:1f0c9a7be2d45c66:3}sJFK      the state of one entity
    {flights:origin_departures:1f0c9a7be2d45c66:3}lane      the lane record (`headrace_schemas.stores.lanes`)
    {flights:origin_departures:1f0c9a7be2d45c66}progress    what is committed, as a hint (`headrace_schemas.stores.online`)

The braces are a Redis hash tag: a lane lies in one cluster slot. The layout's fingerprint is part of every name, so a view
whose layout changed never meets the states of the old one. What may not live here: connections, values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from headrace.errors import CodecError, ContractError

if TYPE_CHECKING:
    import polars as pl

MAX_KEY_BYTES = 1024

_INT64 = range(-(2**63), 2**63)


class KeyedView(Protocol):
    """What names need of a feature view."""

    @property
    def name(self) -> str: ...
    @property
    def layout_fingerprint(self) -> str: ...
    @property
    def lanes(self) -> int: ...


@dataclass(frozen=True, slots=True, init=False)
class ViewKeys:
    """The names of one view's keys in Redis.

    Args:
        namespace: the project's namespace.
        view: the feature view.

    >>> from types import SimpleNamespace
    >>> view = SimpleNamespace(name="origin_departures", layout_fingerprint="1f0c9a7be2d45c66", lanes=16)
    >>> keys = ViewKeys("flights", view)
    >>> keys.state_key(3, b"JFK")
    b'{flights:origin_departures:1f0c9a7be2d45c66:3}sJFK'
    >>> keys.lane_key(3)
    b'{flights:origin_departures:1f0c9a7be2d45c66:3}lane'
    """

    namespace: str
    view: str
    layout_fingerprint: str
    lanes: int
    state_prefixes: tuple[bytes, ...]  # by lane; resolved once, because readers need one per key

    def __init__(self, namespace: str, view: KeyedView) -> None:
        self._set(namespace, view.name, view.layout_fingerprint, view.lanes)

    def _set(self, namespace: str, view: str, layout_fingerprint: str, lanes: int) -> None:
        stem = f"{namespace}:{view}:{layout_fingerprint}"
        object.__setattr__(self, "namespace", namespace)
        object.__setattr__(self, "view", view)
        object.__setattr__(self, "layout_fingerprint", layout_fingerprint)
        object.__setattr__(self, "lanes", lanes)
        prefixes = tuple(f"{{{stem}:{lane}}}s".encode() for lane in range(lanes))
        object.__setattr__(self, "state_prefixes", prefixes)

    @classmethod
    def of(cls, namespace: str, view: str, layout_fingerprint: str, lanes: int) -> ViewKeys:
        """The names of a view that is known from its registration, not from its definition."""
        keys = cls.__new__(cls)
        keys._set(namespace, view, layout_fingerprint, lanes)
        return keys

    def lane_of(self, key_hash: int) -> int:
        """The lane of an entity, from the 64-bit hash of its key (`headrace.kernel.hash_bytes`)."""
        return key_hash % self.lanes

    def lanes_of(self, key_hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """`lane_of` for many."""
        return (key_hashes % np.uint64(self.lanes)).astype(np.int32)

    def state_key(self, lane: int, key: bytes) -> bytes:
        """The Redis key of an entity's state."""
        return self.state_prefixes[lane] + key

    def locate(self, key: bytes) -> bytes:
        """The Redis key of an entity's state, its lane computed from the key."""
        from headrace.kernel import hash_bytes

        return self.state_prefixes[hash_bytes(key) % self.lanes] + key

    def locate_all(self, keys: Sequence[bytes], hashes: Sequence[int]) -> list[bytes]:
        """`locate` for many keys whose hashes are known."""
        prefixes, lanes = self.state_prefixes, self.lanes
        return [prefixes[key_hash % lanes] + key for key, key_hash in zip(keys, hashes, strict=True)]

    def lane_key(self, lane: int) -> bytes:
        """The Redis key of a lane's record."""
        return self.state_prefixes[lane][:-1] + b"lane"

    @property
    def progress_key(self) -> bytes:
        """The Redis key of the progress hint."""
        return f"{{{self.namespace}:{self.view}:{self.layout_fingerprint}}}progress".encode()


def views_key(namespace: str) -> bytes:
    """The Redis key of the namespace's registered views.

    >>> views_key("flights")
    b'{flights}views'
    """
    return f"{{{namespace}}}views".encode()


def events_key(namespace: str) -> bytes:
    """The Redis key of the namespace's registered events.

    >>> events_key("flights")
    b'{flights}events'
    """
    return f"{{{namespace}}}events".encode()


def encode_key(values: Sequence[str | int]) -> bytes:
    r"""The bytes of an entity key.

    Args:
        values: the key fields' values, in the entity's order.

    Raises:
        ContractError: a value is neither text nor a 64-bit integer, or the key is longer than 1,024 bytes.

    >>> encode_key(["JFK"]), encode_key([258]), encode_key(["a", "bc"])
    (b'JFK', b'\x02\x01\x00\x00\x00\x00\x00\x00', b'\x01\x00a\x02\x00bc')
    """
    parts = [_encode_value(value) for value in values]
    if len(parts) == 1:
        encoded = parts[0]
    else:
        encoded = b"".join(min(len(part), 0xFFFF).to_bytes(2, "little") + part for part in parts)
    if len(encoded) > MAX_KEY_BYTES:
        raise _too_long(len(encoded))
    return encoded


def encode_column(values: Sequence[str] | Sequence[int]) -> list[bytes] | None:
    r"""`encode_key` of many keys of one field; None where not all are plain, which `encode_key` then explains.

    >>> encode_column(["JFK", "ä"]), encode_column([258]), encode_column(["JFK", 1])
    ([b'JFK', b'\xc3\xa4'], [b'\x02\x01\x00\x00\x00\x00\x00\x00'], None)
    """
    kinds = set(map(type, values))
    try:
        if kinds == {str}:
            keys = [value.encode() for value in values]  # type: ignore[union-attr]
            return keys if max(map(len, keys)) <= MAX_KEY_BYTES else None
        if kinds == {int}:
            return [value.to_bytes(8, "little", signed=True) for value in values]  # type: ignore[union-attr]
    except (UnicodeEncodeError, OverflowError):
        return None
    return None


def _encode_value(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ContractError("entity key", "text that UTF-8 can hold", repr(value)) from None
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) in _INT64:
        return int(value).to_bytes(8, "little", signed=True)
    raise ContractError("entity key", "text or a 64-bit integer", repr(value))


def _too_long(length: int, row: int | None = None) -> ContractError:
    return ContractError("entity key", f"at most {MAX_KEY_BYTES} bytes in all", f"{length} bytes", row)


def decode_key(key: bytes, types: Sequence[type[str] | type[int]]) -> tuple[str | int, ...]:
    """The values of an entity key.

    Args:
        key: what `encode_key` made.
        types: `str` or `int` for each key field, in the entity's order.

    Raises:
        CodecError: the bytes are not a key of these types.

    >>> decode_key(encode_key(["JFK", 7]), [str, int])
    ('JFK', 7)
    """
    parts = [key] if len(types) == 1 else _split(key, len(types))
    values: list[str | int] = []
    for part, kind in zip(parts, types, strict=True):
        if kind is int:
            if len(part) != 8:
                raise CodecError("entity key", f"an integer has 8 bytes, not {len(part)}")
            values.append(int.from_bytes(part, "little", signed=True))
        else:
            try:
                values.append(part.decode())
            except UnicodeDecodeError as error:
                raise CodecError("entity key", f"not UTF-8: {error.reason}") from None
    return tuple(values)


def _split(key: bytes, count: int) -> list[bytes]:
    parts, at = [], 0
    for _ in range(count):
        length = int.from_bytes(key[at : at + 2], "little")
        parts.append(key[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(key) or len(key) < 2 * count:
        raise CodecError("entity key", f"{len(key)} bytes do not hold {count} key fields")
    return parts


def encode_keys(frame: pl.DataFrame, fields: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The entity keys of a batch, the same bytes as `encode_key` row by row.

    Args:
        frame: the batch; key columns are texts or integers without nulls.
        fields: its key columns, in the entity's order.

    Returns:
        All keys in one array, and where each begins and the last ends (n + 1 offsets).

    Raises:
        ContractError: a key is null, of another type, or longer than 1,024 bytes; it names the row.
    """
    columns = [_column(frame, field) for field in fields]
    data, offsets = columns[0] if len(columns) == 1 else _interleave(columns, frame.height)
    lengths = np.diff(offsets)
    if frame.height and int(lengths.max()) > MAX_KEY_BYTES:
        row = int(lengths.argmax())
        raise _too_long(int(lengths[row]), row)
    return data, offsets


def _column(frame: pl.DataFrame, field: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    import polars as pl

    series = frame[field]
    if series.null_count():
        raise ContractError(field, "an entity key that is not null", "null", int(series.is_null().arg_max() or 0))
    if series.dtype.is_integer():
        data = np.ascontiguousarray(series.cast(pl.Int64).to_numpy()).view(np.uint8)
        return data, np.arange(frame.height + 1, dtype=np.int64) * 8
    if series.dtype != pl.String:
        raise ContractError(field, "a text or integer column as entity key", str(series.dtype))
    if frame.height == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    texts = series.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, body = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + frame.height + 1]
    data = np.frombuffer(body, np.uint8) if body is not None else np.zeros(0, np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


def _interleave(
    columns: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]], height: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Length, bytes, length, bytes … row by row.

    A byte at position x of a column's data lands at x shifted by (where its row's part begins in the result) − (where the row
    begins in the column), so one scatter per column places all of its rows.
    """
    lengths = np.stack([np.diff(offsets) for _, offsets in columns], axis=1)  # [rows, columns]
    if height and int(lengths.max()) > MAX_KEY_BYTES:
        row = int(lengths.max(axis=1).argmax())
        raise _too_long(int(lengths[row].sum()), row)
    sizes = lengths + 2
    begins = np.concatenate([[0], np.cumsum(sizes.ravel())]).astype(np.int64)
    result = np.zeros(int(begins[-1]), np.uint8)
    starts = begins[:-1].reshape(sizes.shape)
    result[starts] = (lengths & 0xFF).astype(np.uint8)
    result[starts + 1] = (lengths >> 8).astype(np.uint8)
    for index, (data, offsets) in enumerate(columns):
        shift = starts[:, index] + 2 - offsets[:-1]
        result[np.arange(len(data)) + np.repeat(shift, lengths[:, index])] = data
    return result, begins[:: len(columns)].copy()
