"""The service's Prometheus metrics, each with its labels bound once, outside the hot route.

One registry per app, so that several apps live in one process (tests do that) without counting each other's requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_LATENCY_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_AGE_S = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0)
_ROWS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class Outcome(StrEnum):
    """How a predict request ended. ``defaulted`` is an answer without the store, as the model declares it."""

    ANSWERED = "answered"
    DEFAULTED = "defaulted"
    INVALID = "invalid"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    ABANDONED = "abandoned"
    FAILED = "failed"


class ModelMetrics:
    """The metrics of one model, ready to count."""

    __slots__ = ("_outcomes", "observe_latency", "observe_rows")

    def __init__(self, name: str, requests: Counter, latency: Histogram, rows: Histogram) -> None:
        self._outcomes = {outcome: requests.labels(name, outcome.value).inc for outcome in Outcome}
        self.observe_latency: Callable[[float], None] = latency.labels(name).observe
        self.observe_rows: Callable[[float], None] = rows.labels(name).observe

    def count(self, outcome: Outcome) -> None:
        """One request ended so."""
        self._outcomes[outcome]()


class ViewMetrics:
    """The metrics of one view's reads."""

    __slots__ = ("count_ahead", "count_missing", "observe_age")

    def __init__(self, name: str, age: Histogram, missing: Counter, ahead: Counter) -> None:
        self.observe_age: Callable[[float], None] = age.labels(name).observe
        self.count_missing: Callable[[], None] = missing.labels(name).inc
        self.count_ahead: Callable[[], None] = ahead.labels(name).inc


class Metrics:
    """All metrics of one app.

    >>> metrics = Metrics(["delay"], ["origins"], in_flight=lambda: 3)
    >>> metrics.models["delay"].count(Outcome.ANSWERED)
    >>> [line for line in metrics.render().decode().splitlines() if line.startswith("headrace_requests_in_flight")]
    ['headrace_requests_in_flight 3.0']
    """

    def __init__(self, models: Iterable[str], views: Iterable[str], in_flight: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        requests = self._counter("headrace_predict_requests", "Predict requests by outcome.", "model", "outcome")
        latency = self._histogram(
            "headrace_predict_seconds", "From a request's start to its answer, answered requests.", _LATENCY_S, "model"
        )
        rows = self._histogram("headrace_predict_rows", "Rows of a predict request.", _ROWS, "model")
        self.models = {name: ModelMetrics(name, requests, latency, rows) for name in models}

        age = self._histogram(
            "headrace_feature_age_seconds", "Time of the read minus the newest event in the state.", _AGE_S, "view"
        )
        missing = self._counter("headrace_entities_missing", "Reads of an entity that has no state yet.", "view")
        ahead = self._counter("headrace_reads_ahead", "Reads at a time that the state has passed already.", "view")
        self.views = {name: ViewMetrics(name, age, missing, ahead) for name in views}

        self.swaps = self._counter("headrace_model_swaps", "Bundles taken into service.", "model")
        self.refused = self._gauge("headrace_model_refused", "1 while a model's bundle is refused.", "model")
        self._gauge("headrace_requests_in_flight", "Requests being answered.").set_function(in_flight)

    def watch_log(
        self, *, logged: Callable[[], float], pending: Callable[[], float], failures: dict[str, Callable[[], float]]
    ) -> None:
        """Show the prediction log's own counts."""
        self._gauge("headrace_predictions_logged", "Predictions handed to Kafka since the start.").set_function(logged)
        self._gauge("headrace_prediction_log_pending", "Predictions not yet acknowledged.").set_function(pending)
        lost = self._gauge("headrace_prediction_log_failures", "Predictions that were not logged, by reason.", "reason")
        for reason, read in failures.items():
            lost.labels(reason).set_function(read)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
