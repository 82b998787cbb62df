"""The event codec: from raw records to good rows with their places, and every other record with its reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace.errors import CodecError, ContractError
from headrace.kernel import hash_bytes
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec, frame_columns
from headrace_schemas.keys import encode_key
from headrace_schemas.tables import event_schema

START_US = 1_356_998_400_000_000
Format = Literal["avro", "json"]


def event(form: Format = "avro", event_id: str | None = "flight") -> hr.Event:
    return hr.Event(
        "departures",
        fields={
            "flight": hr.string(),
            "number": hr.int64(),
            "origin": hr.string(one_of=["EWR", "JFK"]),
            "at": hr.timestamp(),
            "delay": hr.float64(nullable=True),
            "night": hr.boolean(nullable=True),
        },
        time="at",
        id=event_id,
        format=form,
    )


def flight(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "flight": f"flight number {n}",
        "number": n,
        "origin": "JFK",
        "at": START_US + n,
        "delay": None if n % 3 == 0 else n / 7,
        "night": None if n % 2 else True,
    } | changes


def batch(values: list[bytes | None], *, kind: int = 0, received_us: int = START_US) -> RawBatch:
    n = len(values)
    stamp = START_US if kind != 255 else -1
    return RawBatch(
        topic="departures",
        partition=np.arange(n, dtype=np.int32) % 2,
        offset=np.arange(n, dtype=np.int64) + 100,
        timestamp_us=np.full(n, stamp, np.int64),
        timestamp_type=np.full(n, kind, np.uint8),
        received_us=received_us,
        keys=[None] * n,
        values=values,
    )


@pytest.fixture(params=["avro", "json"])
def codec(request: pytest.FixtureRequest) -> EventCodec:
    return EventCodec(event(request.param))


def test_records_come_back_with_their_places(codec: EventCodec) -> None:
    records = [flight(n) for n in range(50)]
    decoded = codec.decode(batch([codec.encode(record) for record in records]))
    assert decoded.rejects == []
    assert decoded.frame.schema == event_schema(codec.event).frame_schema
    assert decoded.frame.select(codec.event.fields.keys()).to_dicts() == records
    assert decoded.frame["_offset"].to_list() == list(range(100, 150))
    assert decoded.frame["_partition"].to_list() == [0, 1] * 25
    assert decoded.frame["_event_time_us"].to_list() == [record["at"] for record in records]
    assert decoded.frame["_timestamp_us"].unique().to_list() == [START_US]
    assert decoded.frame["_received_us"].unique().to_list() == [START_US]


def test_each_bad_record_is_told_with_its_row_and_the_good_ones_pass(codec: EventCodec) -> None:
    values: list[bytes | None] = [codec.encode(flight(n)) for n in range(8)]
    values[1], values[3], values[4] = None, b"", values[4][:-1] if values[4] else None
    values[6] = codec.encode(flight(6, origin="LHR"))
    decoded = codec.decode(batch(values))
    assert decoded.frame["number"].to_list() == [0, 2, 5, 7]
    assert decoded.frame["_offset"].to_list() == [100, 102, 105, 107]
    assert [(reject.row, reject.code) for reject in decoded.rejects] == [
        (1, "empty"),
        (3, "empty"),
        (4, "undecodable"),
        (6, "choice"),
    ]
    assert decoded.rejects[0].reason == "the record must have a value, but it has none"
    assert decoded.rejects[1].reason == "the record's value must not be empty"
    assert "departures" in decoded.rejects[2].reason


def test_warming_up_changes_nothing(codec: EventCodec) -> None:
    codec.warm()
    assert codec.decode(batch([codec.encode(flight(1))])).frame["number"].to_list() == [1]


@pytest.mark.parametrize("values", [[], [None], [b""], [b"\xff\xff"]])
def test_a_batch_without_a_good_record_gives_an_empty_frame(codec: EventCodec, values: list[bytes | None]) -> None:
    decoded = codec.decode(batch(values))
    assert decoded.frame.height == 0
    assert decoded.frame.schema == event_schema(codec.event).frame_schema
    assert len(decoded.rejects) == len(values)


def test_the_id_hash_is_that_of_the_declared_id(codec: EventCodec) -> None:
    decoded = codec.decode(batch([codec.encode(flight(n)) for n in range(3)]))
    assert decoded.frame["_id_hash"].to_list() == [hash_bytes(encode_key([f"flight number {n}"])) for n in range(3)]


def test_an_integer_id_hashes_as_its_key_does() -> None:
    codec = EventCodec(event(event_id="number"))
    decoded = codec.decode(batch([codec.encode(flight(n)) for n in range(3)]))
    assert decoded.frame["_id_hash"].to_list() == [hash_bytes(encode_key([n])) for n in range(3)]


def test_without_an_id_the_hash_is_that_of_the_record() -> None:
    codec = EventCodec(event(event_id=None))
    values: list[bytes | None] = [codec.encode(flight(0)), b"\xff", codec.encode(flight(1)), codec.encode(flight(0))]
    hashes = codec.decode(batch(values)).frame["_id_hash"].to_list()
    assert hashes == [hash_bytes(values[0] or b""), hash_bytes(values[2] or b""), hash_bytes(values[3] or b"")]
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_future_is_judged_by_the_records_timestamp_and_not_by_the_reader(codec: EventCodec) -> None:
    """A replay a year later, or a second reader of the topic, sets the same records aside."""
    values: list[bytes | None] = [codec.encode(flight(0)), codec.encode(flight(0, at=START_US + 10**9))]
    for received_us in (START_US, START_US + 10**12):
        decoded = codec.decode(batch(values, received_us=received_us))
        assert [(reject.row, reject.code) for reject in decoded.rejects] == [(1, "future")]


def test_without_a_timestamp_the_receive_time_is_the_arrival(codec: EventCodec) -> None:
    values: list[bytes | None] = [codec.encode(flight(0, at=START_US + 10**9))]
    assert len(codec.decode(batch(values, kind=255, received_us=START_US)).rejects) == 1
    assert len(codec.decode(batch(values, kind=255, received_us=START_US + 10**9)).rejects) == 0


def test_times_may_be_datetimes_of_any_zone(codec: EventCodec) -> None:
    new_york = timezone(timedelta(hours=-5))
    moment = datetime(2013, 1, 1, 0, 0, 0, 5, tzinfo=new_york)
    assert codec.encode(flight(0, at=moment)) == codec.encode(flight(0, at=moment.astimezone(UTC)))
    decoded = codec.decode(batch([codec.encode(flight(0, at=moment))], kind=255, received_us=START_US * 2))
    assert decoded.frame["at"].to_list() == [START_US + 5 * 3_600_000_000 + 5]


def test_a_time_without_a_zone_is_refused(codec: EventCodec) -> None:
    naive = datetime(2013, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(
        ContractError, match="field 'at': required a time with a zone, got 2013-01-01T00:00:00 without one"
    ):
        codec.encode(flight(0, at=naive))


def test_a_record_that_lacks_a_field_is_not_encoded(codec: EventCodec) -> None:
    with pytest.raises(CodecError, match="departures"):
        codec.encode({"flight": "a"})
    whole = flight(0)
    del whole["delay"]
    assert codec.encode(whole) == codec.encode(flight(0))


def test_an_avsc_schema_is_read_as_it_is_written() -> None:
    avsc = {
        "type": "record",
        "name": "Departure",
        "namespace": "airline.events",
        "fields": [
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "gate", "type": ["int", "null"]},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["day", "night"]}},
            {"name": "load", "type": "float"},
        ],
    }
    codec = EventCodec(hr.Event.from_avsc("departures", avsc, time="at"))
    records = [
        {"at": START_US, "gate": 4, "kind": "day", "load": 0.5},
        {"at": START_US, "gate": None, "kind": "night", "load": 1.0},
    ]
    decoded = codec.decode(batch([codec.encode(record) for record in records]))
    assert decoded.rejects == []
    assert decoded.frame.select("at", "gate", "kind", "load").to_dicts() == records


def test_columns_follow_the_conventions_of_the_core() -> None:
    codec = EventCodec(event())
    frame = codec.decode(batch([codec.encode(flight(n)) for n in range(4)])).frame
    columns = frame_columns(frame, codec.event, ["flight", "number", "at", "delay", "night"])
    assert {name: column.dtype.str for name, column in columns.items()} == {
        "flight": "|O",
        "number": "<i8",
        "at": "<i8",
        "delay": "<f8",
        "night": "<f8",
    }
    assert columns["flight"].tolist() == [f"flight number {n}" for n in range(4)]
    np.testing.assert_array_equal(columns["delay"], [np.nan, 1 / 7, 2 / 7, np.nan])
    np.testing.assert_array_equal(columns["night"], [1.0, np.nan, 1.0, np.nan])
    assert all(column.flags.c_contiguous for column in columns.values())


def test_columns_of_an_empty_frame_have_their_types() -> None:
    frame = event_schema(event()).frame_schema.to_frame()
    columns = frame_columns(frame, event(), ["flight", "number", "delay"])
    assert [(column.dtype.str, len(column)) for column in columns.values()] == [("|O", 0), ("<i8", 0), ("<f8", 0)]


def test_a_null_where_none_is_declared_is_refused() -> None:
    frame = pl.DataFrame({"number": [1, None]})
    with pytest.raises(ContractError, match="row 1, field 'number': required an integer, got null"):
        frame_columns(frame, event(), ["number"])
