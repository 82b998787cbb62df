"""A single, patient reader of the topic, made without the pipeline: it keeps every record that it has read, for good.

Before records expire it reads them, so the expectation has them when nobody else but the log does. It judges by rules of its own.
What may not live here: comparing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro

from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import kafka
from tests.recovery.chaos.payments import MINUTE_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FUTURE_US = 60 * MINUTE_US + 1_000  # the declared hour, and the millisecond that Kafka's time is cut to
_PATIENCE_S = 120.0
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """The topic's records, judged: the events, and the ids of those that are none."""

    topic_id: str
    events: list[Row]
    broken: set[str]


class Reader:
    """Reads what the topic has gained since the last time.

    Args:
        bootstrap: addresses of brokers.
        loaded: the project.
    """

    def __init__(self, bootstrap: str, loaded: LoadedProject) -> None:
        self._bootstrap = bootstrap
        self._event = loaded.project.event("paid")
        self._kept: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._last: dict[int, int] = {}

    def keep(self) -> None:
        """Read up to the end of the topic as it is now."""
        # From the last record on, once more: a reader that begins at the very end hears of no position.
        firsts = kafka.first_offsets(self._bootstrap, self._event.topic, patience_s=_PATIENCE_S)
        starts = {partition: max(first, self._last.get(partition, 0)) for partition, first in firsts.items()}
        with kafka.TopicReader(self._bootstrap, self._event.topic, starts, patience_s=_PATIENCE_S) as reader:
            for message in reader.read_to_end():
                partition, offset = int(message.partition() or 0), int(message.offset() or 0)
                self._kept[partition, offset] = message.value() or b"", message.timestamp()[1] * 1000
                self._last[partition] = offset

    def places(self) -> set[tuple[int, int]]:
        """Partitions and offsets of what it has."""
        return set(self._kept)

    def read(self) -> Read:
        """Everything, by partition and offset."""
        self.keep()
        topic_id = kafka.topic_identity(self._bootstrap, self._event.topic).topic_id
        schema = fastavro.parse_schema(dict(self._event.avro_schema))
        events, broken = [], set()
        for (partition, offset), (value, arrived_us) in sorted(self._kept.items()):
            row = _judge(schema, value, arrived_us)
            if row is None:
                broken.add(f"{topic_id}/{partition}/{offset}")
            else:
                events.append({**row, "_partition": partition, "_offset": offset})
        return Read(topic_id, events, broken)


def _judge(schema: Any, value: bytes, arrived_us: int) -> Row | None:
    """The event that a record is, or None."""
    data = io.BytesIO(value)
    try:
        row: Any = fastavro.schemaless_reader(data, schema, None)
    except Exception:  # noqa: BLE001  (whatever fastavro makes of garbage)
        return None
    if data.tell() != len(value) or not isinstance(row["at"], datetime):
        return None
    row["at"] = (row["at"] - _EPOCH) // timedelta(microseconds=1)
    if row["amount"] is not None and not -1000 <= row["amount"] <= 1000:
        return None
    return None if row["at"] > arrived_us + _FUTURE_US else row
