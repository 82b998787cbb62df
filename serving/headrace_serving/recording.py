"""An answer as prediction records: what an auditor needs to compute it again, bit for bit.

Runs behind the response (``predictions_log``). What may not live here: Kafka, the record's encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from headrace import kernel
from headrace_schemas.predictions import LookupRecord, PredictionCodec, PredictionRecord
from headrace_serving.metrics import Metrics
from headrace_serving.planning import LookupPlan
from headrace_serving.predicting import Answer
from headrace_serving.reading import State

_CODEC = PredictionCodec()
_CANONICAL = orjson.OPT_SORT_KEYS


def records(answer: Answer) -> Iterator[PredictionRecord]:
    """One record per row."""
    rows = answer.rows
    plan = answer.predictor.plan
    features = np.concatenate(answer.features, axis=1) if answer.features else np.zeros((rows.count, 0))
    features = np.ascontiguousarray(features, dtype="<f8")
    transforms = np.ascontiguousarray(answer.transforms, dtype="<f8")
    output = np.ascontiguousarray(answer.output, dtype="<f8")
    for row in range(rows.count):
        at_us = int(rows.at_us[row])
        yield PredictionRecord(
            prediction_id=answer.prediction_id(row),
            model=plan.model.name,
            bundle=answer.predictor.version,
            at_us=at_us,
            served_us=answer.served_us,
            batch_id=answer.batch_id,
            row=row,
            batch_size=rows.count,
            request=orjson.dumps(rows.records[row], option=_CANONICAL),
            lookups=tuple(
                _lookup(lookup, keys[row], states[row], at_us)
                for lookup, keys, states in zip(plan.lookups, answer.keys, answer.states, strict=True)
            ),
            features=features[row].tobytes(),
            transforms=transforms[row].tobytes(),
            output=output[row].tobytes(),
            defaulted=answer.defaulted,
        )


def _lookup(lookup: LookupPlan, key: bytes, state: State, at_us: int) -> LookupRecord:
    view = lookup.read.view
    header = None if state is None else kernel.header(state)
    return LookupRecord(
        alias=lookup.alias,
        view=view.name,
        layout=view.layout_fingerprint,
        key=key,
        found=header is not None,
        newest_us=0 if header is None else header.newest_us,
        offsets=() if header is None else header.offsets,
        ahead=header is not None and header.newest_us >= at_us,
        own=lookup.folds,
    )


class Recorder:
    """Turns answers into the log's records, and counts what their reads found.

    Args:
        metrics: where ages, missing entities and reads that came too late are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._views = metrics.views

    def encoded(self, answer: Answer) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each row's record."""
        for record in records(answer):
            if not record.defaulted:
                self._count(record)
            yield record.prediction_id.encode(), _CODEC.encode(record)

    def _count(self, record: PredictionRecord) -> None:
        for lookup in record.lookups:
            metrics = self._views[lookup.view]
            if not lookup.found:
                metrics.count_missing()
                continue
            metrics.observe_age((record.at_us - lookup.newest_us) / 1e6)
            if lookup.ahead:
                metrics.count_ahead()
