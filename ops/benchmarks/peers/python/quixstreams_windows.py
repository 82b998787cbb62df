"""Quix Streams' own windows, written when they close, state in RocksDB with changelog topics. One process."""

from __future__ import annotations

from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Min, Sum
from quixstreams.models.serializers.avro import AvroDeserializer
from workload import CONSUMER, GROUP, HOPPING, KAFKA, SCHEMA, STATE, TOPIC, WINDOWS_US, Results


def main() -> None:
    app = Application(
        broker_address=KAFKA,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        state_dir=STATE,
        consumer_extra_config=CONSUMER,
        loglevel="WARNING",
    )
    topic = app.topic(
        TOPIC,
        key_deserializer="str",
        value_deserializer=AvroDeserializer(schema=SCHEMA),
        timestamp_extractor=lambda value, headers, timestamp, kind: value["paid_at"] // 1000,
    )
    results = Results()

    def count(_payment: Any) -> None:
        results.counted(1)
        results.flush_if_due()

    def write(number: int) -> Any:
        def put(value: dict[str, Any], key: str, _timestamp: int, _headers: Any) -> None:
            results.put(key, number, value["start"] * 1000, value["n"], value["total"], value["least"], value["most"])

        return put

    payments = app.dataframe(topic)
    payments.update(count)
    for number, (length_us, slide_us) in enumerate(WINDOWS_US):
        length, slide = length_us // 1000, slide_us // 1000
        window = payments.hopping_window(length, slide) if HOPPING else payments.tumbling_window(length)
        features = {"n": Count(), "total": Sum("amount"), "least": Min("amount"), "most": Max("amount")}
        window.agg(**features).final().update(write(number), metadata=True)
    app.run()


if __name__ == "__main__":
    main()
