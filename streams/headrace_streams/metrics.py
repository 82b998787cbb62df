"""Prometheus metrics of a worker and of the log writer, made when they are asked for from what the parts know anyway.

Nothing here costs anything per event. Counts begin at the start of the process, and a replay counts rows again: they are for
watching, the states are what is exact. What may not live here: counting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headrace import kernel
from headrace.errors import ConfigError
from headrace_schemas.settings import Settings
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.flusher import Flusher
from headrace_streams.folding import ViewFolder
from headrace_streams.source import KafkaSource

_OUTCOMES = {
    "folded": kernel.FOLDED,
    "repeat": kernel.DUPLICATE,
    "too_late": kernel.TOO_LATE,
    "filtered": kernel.FILTERED,
    "held": kernel.SKIPPED_OFFSET,
}


class Collector(Protocol):
    """What Prometheus asks."""

    def collect(self) -> Iterator[Metric]: ...


@contextmanager
def serve_metrics(settings: Settings, number: int, *collectors: Collector) -> Iterator[None]:
    """Answer `GET /metrics` while this lasts, if the project wants it.

    Args:
        settings: the project's; `metrics_port` 0 is none.
        number: of this process, counted from the port.
        collectors: what there is to tell.

    Raises:
        ConfigError: the port is taken.
    """
    if not settings.metrics_port:
        yield
        return
    registry, port = CollectorRegistry(), settings.metrics_port + number
    for collector in collectors:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, settings.metrics_host, registry)
    except OSError as error:
        raise ConfigError(
            f"[stream] metrics_port: {settings.metrics_host}:{port} must be free for worker {number}, but it is not "
            f"({error.strerror or error}); choose another, as many as there are workers and one more are needed from it on"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class SourceMetrics:
    """How far a source is, and how quiet its partitions are.

    Args:
        source: the source.
        box: where its rejects go.
        prefix: of the metrics' names.
    """

    def __init__(self, source: KafkaSource, box: DeadLetterBox, prefix: str = "headrace_stream") -> None:
        self._source, self._box, self._prefix = source, box, prefix

    def collect(self) -> Iterator[Metric]:
        place = ("topic", "partition")
        lag = GaugeMetricFamily(f"{self._prefix}_lag", "Records that are not read yet.", labels=place)
        idle = GaugeMetricFamily(
            f"{self._prefix}_idle_seconds", "Since a partition's last record, or since the start.", labels=place
        )
        for topic, partition, behind in self._source.lag():
            lag.add_metric((topic, str(partition)), behind)
            idle.add_metric((topic, str(partition)), time.monotonic() - self._source.heard_at(topic, partition))
        yield lag
        yield idle
        letters = CounterMetricFamily(
            f"{self._prefix}_dead_letters", "Events set aside, by reason; `future` are those beyond the tolerance.",
            labels=("topic", "code"),
        )  # fmt: skip
        for name, count in list(self._box.counts.items()):
            topic, _, code = name.rpartition("/")
            letters.add_metric((topic, code), count)
        yield letters
        yield CounterMetricFamily(
            f"{self._prefix}_clock_steps", "How often this machine's clock was set while it ran; nothing depends on it.",
            value=self._source.clock.steps,
        )  # fmt: skip


class WorkerMetrics:
    """What became of rows, and of flushes.

    Args:
        folders: the views in this shard.
        flusher: what sends its commits.
    """

    def __init__(self, folders: Sequence[ViewFolder], flusher: Flusher) -> None:
        self._folders, self._flusher = folders, flusher

    def collect(self) -> Iterator[Metric]:
        rows = CounterMetricFamily(
            "headrace_stream_rows",
            "Rows by what became of them: folded, repeat, too_late, filtered, or held already by the state.",
            labels=("view", "outcome"),
        )
        disorder = CounterMetricFamily(
            "headrace_stream_late_rows", "Rows older than the newest that the worker had seen.", labels=("view",)
        )
        newest = GaugeMetricFamily(
            "headrace_stream_newest_event_seconds", "The newest event time, in seconds since 1970.", labels=("view",)
        )
        cached = GaugeMetricFamily("headrace_stream_cached_entities", "States kept beside the store.", labels=("view",))
        for folder in self._folders:
            name = folder.view.name
            for outcome, status in _OUTCOMES.items():
                rows.add_metric((name, outcome), int(folder.counts[status]))
            disorder.add_metric((name,), folder.late)
            if folder.rows:
                newest.add_metric((name,), folder.newest_us / 1e6)
            cached.add_metric((name,), len(folder.cache))
        yield from (rows, disorder, newest, cached)
        counts = self._flusher.counts
        yield CounterMetricFamily("headrace_stream_flushes", "Flushes begun.", value=counts["flushes"])
        yield CounterMetricFamily(
            "headrace_stream_commits", "Commits sent for the first time.", value=counts["commits"]
        )
        yield CounterMetricFamily(
            "headrace_stream_commits_again",
            "Commits sent again, after a refusal or a lost answer.",
            value=counts["again"],
        )
        waiting = GaugeMetricFamily("headrace_stream_store_trouble", "1 while Redis refuses or is away.")
        waiting.add_metric((), float(self._flusher.in_trouble))
        yield waiting
