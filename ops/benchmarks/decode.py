"""From bytes on a topic to validated rows: the event codec beside fastavro, polars' own Avro reader and Python's JSON parser.

    python -m ops.benchmarks.decode [--quick] [--json FILE]

An event of six fields (two texts, a time, a nullable float, an integer, a float), with choices, bounds, the future check and the
hash of its id, in batches of 20,000. Rates are per second of CPU time of one thread, because the machine is shared. The peers decode
alone: they check no contract, and polars' reader is wrong or panics on a malformed datum (see docs/adr).
"""

from __future__ import annotations

import io
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is imported: rates are per core

import fastavro
import numpy as np
import polars as pl

import headrace as hr
from headrace_schemas.codecs import EventCodec, RawBatch
from ops.benchmarks.report import Row, options, publish, row

BATCH = 20_000
START_US = 1_356_998_400_000_000
_SYNC = b"0123456789abcdef"


def event(form: Literal["avro", "json"]) -> hr.Event:
    return hr.Event(
        "departures",
        fields={
            "flight_id": hr.string(),
            "origin": hr.string(one_of=["EWR", "JFK", "LGA"]),
            "departed_at": hr.timestamp(),
            "dep_delay": hr.float64(nullable=True),
            "distance": hr.int64(ge=0),
            "load": hr.float64(ge=0, le=1e9),
        },
        time="departed_at",
        id="flight_id",
        format=form,
    )


def record(n: int) -> dict[str, Any]:
    return {
        "flight_id": f"2013-01-{n}-UA-1545",
        "origin": ("EWR", "JFK", "LGA")[n % 3],
        "departed_at": START_US + n * 1000,
        "dep_delay": None if n % 7 == 0 else n * 0.5,
        "distance": n % 5000,
        "load": n / 3,
    }


def raw(values: Sequence[bytes]) -> RawBatch:
    n = len(values)
    return RawBatch(
        topic="departures",
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
        timestamp_us=np.full(n, START_US + n * 1000, np.int64),
        timestamp_type=np.zeros(n, np.uint8),
        received_us=0,
        keys=[None] * n,
        values=list(values),
    )


def rates(decode: Callable[[], object], rounds: int, repeats: int) -> list[float]:
    """Events per second of CPU time, one value per round; a round is the median of its repeats."""
    decode()
    found = []
    for _ in range(rounds):
        times = []
        for _ in range(repeats):
            started = time.process_time()
            decode()
            times.append(time.process_time() - started)
        found.append(BATCH / statistics.median(times))
    return found


def by_fastavro(schema: Mapping[str, Any], values: Sequence[bytes]) -> Callable[[], object]:
    parsed = fastavro.parse_schema(dict(schema))
    return lambda: [fastavro.schemaless_reader(io.BytesIO(value), parsed, None) for value in values]


def by_polars(schema: Mapping[str, Any], values: Sequence[bytes]) -> Callable[[], object]:
    header = io.BytesIO()
    fastavro.writer(header, fastavro.parse_schema(dict(schema)), [], sync_marker=_SYNC)

    def decode() -> pl.DataFrame:
        body = b"".join(values)
        sizes = io.BytesIO()
        for size in (len(values), len(body)):
            fastavro.schemaless_writer(sizes, "long", size)
        return pl.read_avro(io.BytesIO(header.getvalue() + sizes.getvalue() + body + _SYNC))

    return decode


def measure(rounds: int, repeats: int) -> list[Row]:
    avro, plain = EventCodec(event("avro")), EventCodec(event("json"))
    records = [record(n) for n in range(BATCH)]
    datums, objects = [avro.encode(r) for r in records], [plain.encode(r) for r in records]
    schema = avro.event.avro_schema

    def of(decode: Callable[[], object]) -> list[float]:
        return rates(decode, rounds, repeats)

    avro_rates, json_rates = of(lambda: avro.decode(raw(datums))), of(lambda: plain.decode(raw(objects)))
    polars = "polars.read_avro, decode alone", of(by_polars(schema, datums))
    python = "json.loads, parse alone", of(lambda: [json.loads(value) for value in objects])
    return [
        row("decode and validate, Avro", avro_rates, "events/s", reference=polars, at_least=1_500_000),
        row("the same", avro_rates, "events/s", reference=("fastavro, decode alone", of(by_fastavro(schema, datums)))),
        row("decode and validate, JSON", json_rates, "events/s", reference=python),
    ]


def main() -> None:
    chosen = options("Measure decoding and validation of events beside other decoders, in one run.")
    rounds, repeats = (3, 5) if chosen.quick else (5, 15)
    publish(measure(rounds, repeats), chosen)


if __name__ == "__main__":
    main()
