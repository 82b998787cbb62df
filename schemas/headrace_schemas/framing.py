"""The Confluent wire format: a zero byte, the schema's id in four bytes, then the record.

Every record says by which schema it was written. A batch is cut by schema and each part is decoded in columns; which schemas there
are is asked of a registry once for each id. What may not live here: HTTP (``stores/schema_registry.py``), Avro, JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace.errors import CodecError, NotFound
from headrace_schemas.columns import Columnar, Fault
from headrace_schemas.tables import frame_fields

UNKNOWN = "schema"  # the code of records whose schema is unknown or does not fit
_HEADER = struct.Struct(">bI")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema as a registry keeps it.

    Args:
        kind: ``AVRO``, ``JSON``, ``PROTOBUF``.
        text: the schema.
        references: the schemas that it names, each before those that need it.
    """

    kind: str
    text: str
    references: tuple[str, ...] = ()

    def record(self) -> Mapping[str, Any]:
        """The Avro record.

        Raises:
            CodecError: it is none.
        """
        found = json.loads(self.text) if self.kind == "AVRO" else None
        if not isinstance(found, Mapping) or found.get("type") != "record":
            raise CodecError("schema", f"an Avro record is required, but it is {self.kind} {self.text[:60]!r}")
        return found


class Schemas(Protocol):
    """Knows schemas by their ids."""

    def schema(self, schema_id: int) -> WriterSchema:
        """The schema of an id.

        Raises:
            NotFound: nobody knows it.
            ServiceUnavailable: whoever knows is away.
        """
        ...

    def register(self, subject: str, schema: WriterSchema) -> int:
        """The id of a schema, made known under a subject."""
        ...


class Decoder(Protocol):
    """Decodes records of one schema."""

    def decode(self, values: Sequence[bytes]) -> Columnar: ...


def subject_of(topic: str) -> str:
    """The subject of the values of a topic.

    >>> subject_of("paid")
    'paid-value'
    """
    return f"{topic}-value"


def framed(schema_id: int, datum: bytes) -> bytes:
    """A record with its header.

    >>> framed(7, b"x").hex()
    '000000000778'
    """
    return _HEADER.pack(0, schema_id) + datum


def schema_ids(values: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """The schema of each record; −1 for a record without the header."""
    headers = b"".join([value[:HEADER_BYTES] if len(value) >= HEADER_BYTES else b"\xff" * 5 for value in values])
    columns = np.frombuffer(headers, np.dtype([("magic", "u1"), ("id", ">u4")]))
    return np.where(columns["magic"] == 0, columns["id"].astype(np.int64), -1)


@dataclass(slots=True)
class FramedDecoder:
    """Records with headers to a frame of an event's fields.

    Args:
        event: the event.
        decoder_of: the decoder of the records of a schema; raises NotFound or CodecError where there can be none.
    """

    event: hr.Event
    decoder_of: Callable[[int], Decoder]
    _known: dict[int, Decoder] = field(default_factory=dict)

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good records in their order, their rows, and what is wrong with the others.

        Raises:
            ServiceUnavailable: a schema is not known yet, and the registry is away.
        """
        ids = schema_ids(values)
        parts, faults = [], []
        for schema_id in np.unique(ids).tolist():
            rows = np.flatnonzero(ids == schema_id)
            try:
                decoder = self._decoder(schema_id)
            except (NotFound, CodecError) as error:
                faults += [Fault(row, str(error), UNKNOWN) for row in rows.tolist()]
                continue
            part = decoder.decode([values[row][HEADER_BYTES:] for row in rows.tolist()])
            faults += [Fault(int(rows[fault.row]), fault.reason, fault.code) for fault in part.faults]
            parts.append((part.frame, rows[part.rows]))
        if len(parts) == 1:
            return Columnar(parts[0][0], parts[0][1], faults)
        empty = pl.DataFrame(schema=frame_fields(self.event))
        rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in parts)])
        order = np.argsort(rows)
        return Columnar(pl.concat([empty, *(frame for frame, _ in parts)])[order], rows[order], faults)

    def _decoder(self, schema_id: int) -> Decoder:
        if schema_id < 0:
            raise CodecError(
                f"event {self.event.name!r}",
                "a record begins with a zero byte and its schema's id, but this one does not",
            )
        if schema_id not in self._known:
            self._known[schema_id] = self.decoder_of(schema_id)
        return self._known[schema_id]
