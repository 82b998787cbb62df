"""A source whose batches go on only when the schemas of their records are known.

A registry that is away is nobody's fault: nothing is set aside, nothing is lost, the batch waits and so do those behind it, while
the lanes stay ours. The registry is asked on a thread of its own, so that its time-outs hold up nobody. What may not live here:
what becomes of a record whose schema nobody knows (`headrace_schemas.framing`).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from headrace.errors import NotFound, ServiceUnavailable
from headrace.events import Event
from headrace_schemas.framing import schema_ids
from headrace_schemas.stores.schema_registry import SchemaRegistry
from headrace_streams.items import Polled
from headrace_streams.journal import Journal
from headrace_streams.source import KafkaSource

_PAUSE_S = 0.5
_OUTAGE_S = 60.0


def schemas_known(
    source: KafkaSource,
    events: Iterable[Event],
    registry: SchemaRegistry | None,
    journal: Journal,
    *,
    outage_s: float = _OUTAGE_S,
) -> KafkaSource | SchemasKnown:
    """The source itself, or one that waits for schemas where there are events that need a registry."""
    topics = {event.topic for event in events if event.framing == "confluent" and event.format == "avro"}
    return source if registry is None or not topics else SchemasKnown(source, topics, registry, journal, outage_s)


class SchemasKnown:
    """A source that waits for the schemas of its records.

    Args:
        source: the source.
        topics: whose records name a schema.
        registry: knows them.
        journal: where an outage is reported.
        outage_s: how long the registry may be away.
    """

    def __init__(
        self, source: KafkaSource, topics: set[str], registry: SchemaRegistry, journal: Journal, outage_s: float
    ) -> None:
        self.pause_ms = source.pause_ms
        self._source, self._topics, self._registry = source, topics, registry
        self._journal, self._outage_s = journal, outage_s
        self._waiting: deque[tuple[Polled, list[int]]] = deque()
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="schemas")
        self._asked: Future[None] | None = None
        self._away_since: float | None = None
        self._ask_at = 0.0

    def poll(self) -> Sequence[Polled]:
        """What has arrived and can be decoded; see `KafkaSource.poll`.

        Raises:
            ServiceUnavailable: the registry has been away for too long.
        """
        if not self._waiting:
            polled = self._source.poll()
            if all(not self._unknown(batch) for batch in polled):
                return polled
            self._waiting.extend((batch, self._unknown(batch)) for batch in polled)
        ready: list[Polled] = []
        while self._waiting and self._learnt(self._waiting[0][1]):
            ready.append(self._waiting.popleft()[0])
        return ready

    def _unknown(self, batch: Polled) -> list[int]:
        if batch.raw.topic not in self._topics:
            return []
        ids = np.unique(schema_ids([value for value in batch.raw.values if value])).tolist()
        return [found for found in ids if found >= 0 and not self._registry.knows(found)]

    def _learnt(self, ids: list[int]) -> bool:
        """Whether all of these are known, or known to be unknown; asks for one that is not."""
        if self._asked is not None:
            if not self._asked.done():
                return False
            self._heard(self._asked)
            self._asked = None
        left = [found for found in ids if not self._registry.knows(found)]
        if left and time.monotonic() >= self._ask_at:
            self._asked = self._asker.submit(self._ask, left[0])
        return not left

    def _ask(self, schema_id: int) -> None:
        with contextlib.suppress(NotFound):  # that is an answer: its records go to the dead letters
            self._registry.schema(schema_id)

    def _heard(self, asked: Future[None]) -> None:
        error = asked.exception()
        now = time.monotonic()
        if error is None:
            if self._away_since is not None:
                self._journal.note("schema-registry-back", seconds=round(now - self._away_since, 1))
            self._away_since = None
        elif not isinstance(error, ServiceUnavailable):
            raise error
        elif self._away_since is None:
            self._away_since, self._ask_at = now, now + _PAUSE_S
            self._journal.note("schema-registry-away", reason=error.reason, address=error.address)
        elif now - self._away_since > self._outage_s:
            raise error
        else:
            self._ask_at = now + _PAUSE_S

    def close(self) -> None:
        """Leave the broker."""
        self._asker.shutdown(wait=False, cancel_futures=True)
        self._registry.close()
        self._source.close()
