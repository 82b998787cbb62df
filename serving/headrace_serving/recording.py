"""An answer as the prediction log's records, and what its reads found, counted.

Runs behind the response (``predictions_log``). What may not live here: Kafka, the record's encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace import kernel
from headrace_serving.metrics import Metrics
from headrace_serving.predicting import Answer, answered


class Recorder:
    """Turns answers into the log's records, and counts what their reads found.

    Args:
        metrics: where ages, missing entities and reads that came too late are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._views = metrics.views

    def encoded(self, answer: Answer) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each row's record: what an auditor needs to compute it again, bit for bit."""
        if not answer.defaulted:
            self._count(answer)
        rows = answered(answer)
        for name, value in zip(rows.ids, answer.predictor.encoder.encode(rows), strict=True):
            yield name.encode(), value

    def _count(self, answer: Answer) -> None:
        times = answer.rows.at_us.tolist()
        for lookup, newest in zip(answer.predictor.plan.lookups, answer.newest_us.tolist(), strict=True):
            metrics = self._views[lookup.read.view.name]
            for newest_us, at_us in zip(newest, times, strict=True):
                if newest_us == kernel.NEVER:
                    metrics.count_missing()
                    continue
                metrics.observe_age((at_us - newest_us) / 1e6)
                if newest_us >= at_us:
                    metrics.count_ahead()
