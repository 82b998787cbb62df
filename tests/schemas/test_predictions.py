"""Prediction records: every field back as it was, alone, in batches, and through the log."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import CodecError
from headrace.kernel import hash_bytes
from headrace_schemas.batches import RawBatch
from headrace_schemas.predictions import (
    LookupRecord,
    PredictionCodec,
    PredictionRecord,
    prediction_fields,
    prediction_schema,
    records,
)
from headrace_schemas.stores.log import LogTable

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
LONG = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.lists(st.floats(), max_size=4).map(lambda values: struct.pack(f"<{len(values)}d", *values))
LOOKUPS = st.builds(
    LookupRecord,
    alias=TEXT,
    view=TEXT,
    layout=TEXT,
    key=st.binary(max_size=10),
    found=st.booleans(),
    newest_us=LONG,
    offsets=st.lists(st.tuples(st.integers(0, 2**31 - 1), LONG), max_size=3).map(tuple),
    ahead=st.booleans(),
    own=st.booleans(),
)
RECORDS = st.builds(
    PredictionRecord,
    prediction_id=TEXT,
    model=TEXT,
    bundle=TEXT,
    at_us=LONG,
    served_us=LONG,
    batch_id=TEXT,
    row=st.integers(0, 1000),
    batch_size=st.integers(1, 1000),
    request=st.binary(max_size=20),
    lookups=st.lists(LOOKUPS, max_size=3).map(tuple),
    features=FLOATS,
    transforms=FLOATS,
    output=FLOATS,
    defaulted=st.booleans(),
)
CODEC = PredictionCodec()


def batch(values: list[bytes | None]) -> RawBatch:
    n = len(values)
    return RawBatch(
        topic="x.predictions",
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
        timestamp_us=np.full(n, 5, np.int64),
        timestamp_type=np.zeros(n, np.uint8),
        received_us=7,
        keys=[None] * n,
        values=values,
    )


@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: PredictionRecord) -> None:
    assert CODEC.decode(CODEC.encode(record)) == record


@given(st.lists(RECORDS, max_size=5))
def test_a_batch_comes_back_as_it_was(found: list[PredictionRecord]) -> None:
    decoded = CODEC.decode_batch(batch([CODEC.encode(record) for record in found]))
    assert decoded.rejects == []
    assert decoded.frame.schema == prediction_schema().frame_schema
    assert records(decoded.frame) == found
    assert decoded.frame["_event_time_us"].to_list() == [record.at_us for record in found]
    assert decoded.frame["_id_hash"].to_list() == [hash_bytes(record.prediction_id.encode()) for record in found]


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_a_batch_comes_back_through_the_log(
    tmp_path_factory: pytest.TempPathFactory, found: list[PredictionRecord]
) -> None:
    table = LogTable.open(tmp_path_factory.mktemp("log"), prediction_schema(), "t")
    table.append(CODEC.decode_batch(batch([CODEC.encode(record) for record in found])).frame, {0: (0, len(found))})
    assert records(table.scan().sort("_offset").collect()) == found


def test_what_is_no_prediction_is_rejected_and_the_others_pass(tmp_path: Path) -> None:
    record = PredictionRecord("p", "m", "b", 1, 2, "q", 0, 1, b"{}", (), b"", b"", b"", defaulted=False)
    good = CODEC.encode(record)
    decoded = CODEC.decode_batch(batch([good, None, b"\xff", good + b"x", good]))
    assert decoded.frame["_offset"].to_list() == [0, 4]
    assert [(reject.row, reject.code) for reject in decoded.rejects] == [(n, "undecodable") for n in (1, 2, 3)]
    assert decoded.rejects[0].reason == "prediction: it must be an Avro record, but it has no value"
    assert "it is not the Avro record of a prediction" in decoded.rejects[1].reason
    assert decoded.rejects[2].reason == "prediction: 1 bytes are left behind the Avro record of a prediction"


def test_bytes_that_are_no_prediction_are_refused() -> None:
    with pytest.raises(CodecError, match="it is not the Avro record of a prediction"):
        CODEC.decode(b"\x02")


def test_the_record_and_its_schema_name_the_same_fields() -> None:
    assert prediction_fields() == list(PredictionRecord.__dataclass_fields__)
