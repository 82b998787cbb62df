"""A predictor: one bundle of one model, from validated rows to the bytes of the answer.

    rows ─▶ entity keys ─▶ one MGET for all views and rows ─▶ read (virtual fold) ─▶ assemble ─▶ ONNX ─▶ answer

The same core functions as in training do the reading and the assembling; nothing here computes a value of its own. What may
not live here: HTTP, the prediction log's encoding, choosing the bundle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import orjson

import headrace as hr
from headrace import kernel
from headrace.assembly import assemble
from headrace.errors import ServiceUnavailable
from headrace_schemas.prediction_encoder import AnsweredRows, LookupFacts, PredictionEncoder
from headrace_schemas.stores.registry import Bundle
from headrace_serving.clocks import Clock, moment
from headrace_serving.openapi import row_example
from headrace_serving.pins import check_fit
from headrace_serving.planning import ModelPlan
from headrace_serving.reading import Float64, State
from headrace_serving.requests import Rows
from headrace_serving.scoring import Scorer

# Above this many rows × lookups the arithmetic leaves the event loop, so that one large batch does not hold up the others.
_INLINE_READS = 256
_JSON = orjson.OPT_UTC_Z


class Reader(Protocol):
    """Reads states from the online store."""

    async def fetch_names(self, names: list[bytes]) -> list[bytes | None]:
        """The values of Redis keys; raises ServiceUnavailable."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was computed for one request, whole: enough for the response, the log and the metrics.

    Attributes:
        predictor: who answered.
        batch_id: names the request.
        rows: the validated rows.
        keys: for each lookup the entity key of each row.
        states: as they were read: of the first lookup one per row, then of the second one per row, and so on.
        newest_us: [lookups, rows]: the newest event time in each state, `kernel.NEVER` where there is none.
        features: for each lookup its features, one row per row.
        transforms: the on-demand transforms' values.
        output: one value per row.
        defaulted: the store did not answer; the features are those of entities without events.
        served_us: when it was computed.
    """

    predictor: Predictor
    batch_id: str
    rows: Rows
    keys: list[list[bytes]]
    states: kernel.States
    newest_us: npt.NDArray[np.int64]
    features: list[Float64]
    transforms: Float64
    output: Float64
    defaulted: bool
    served_us: int

    def prediction_ids(self) -> list[str]:
        """Names the prediction of each row."""
        count = self.rows.count
        return [self.batch_id] if count == 1 else [f"{self.batch_id}-{row}" for row in range(count)]


class Predictor:
    """Answers for one bundle.

    Args:
        plan: the model's plan.
        bundle: a bundle that was trained on these very definitions.
        clock: the service's clock, in microseconds.

    Raises:
        Misfit: the bundle was trained on other definitions.
        CodecError: its graph cannot be loaded.
    """

    def __init__(self, plan: ModelPlan, bundle: Bundle, clock: Clock) -> None:
        check_fit(plan.model, bundle.version, bundle.manifest)
        self.plan = plan
        self.version = bundle.version
        self.manifest = bundle.manifest
        self._clock = clock
        self._scorer = _scorer(plan.model, bundle)
        self.encoder = PredictionEncoder(
            plan.model.name,
            bundle.version,
            [
                LookupFacts(each.alias, each.read.view.name, each.read.view.layout_fingerprint, each.folds)
                for each in plan.lookups
            ],
        )
        self._opening = orjson.dumps({"model": plan.model.name, "version": bundle.version})[:-1] + b',"predictions":'

    def warm(self) -> None:
        """Answer once, without the store, so that the first request meets compiled code and touched memory."""
        rows = self.plan.schema.read([row_example(self.plan.schema)], self._clock())
        answer = self._compute("warm", rows, self.plan.entity_keys(rows), None)
        self.body(answer, include_features=True)
        list(self.encoder.encode(answered(answer)))

    async def predict(self, batch_id: str, rows: Rows, reader: Reader) -> Answer:
        """The answer to validated rows.

        Args:
            batch_id: names the request.
            rows: the validated rows.
            reader: where states are.

        Raises:
            ServiceUnavailable: the store does not answer, and the model does not declare defaults for that.
            ContractError: an entity key is too long.
        """
        keys = self.plan.entity_keys(rows)
        names = self.plan.locate(keys) if keys else []
        found: Sequence[State] | None
        try:
            found = await _fetch(reader, names) if names else []
        except ServiceUnavailable:
            if not self.plan.defaults_when_lost:
                raise
            found = None
        if len(names) <= _INLINE_READS:
            return self._compute(batch_id, rows, keys, found)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._compute, batch_id, rows, keys, found)

    def _compute(self, batch_id: str, rows: Rows, keys: list[list[bytes]], found: Sequence[State] | None) -> Answer:
        count = rows.count * len(keys)
        states = kernel.States.empty(count) if found is None else kernel.States.from_list(found)
        looked = self.plan.look_up(states, rows)
        assembled = assemble(self.plan.model, rows.columns, looked.features)
        output = self._scorer.score(assembled.numeric, assembled.categorical)
        return Answer(
            predictor=self,
            batch_id=batch_id,
            rows=rows,
            keys=keys,
            states=states,
            newest_us=looked.newest_us,
            features=looked.features,
            transforms=assembled.transforms,
            output=output,
            defaulted=found is None,
            served_us=self._clock(),
        )

    def body(self, answer: Answer, *, include_features: bool) -> bytes:
        """The response's body."""
        predictions = []
        times, newest = answer.rows.at_us.tolist(), answer.newest_us.tolist()
        latest = [max(own) for own in zip(*newest, strict=True)] if newest else [kernel.NEVER] * len(times)
        for row, (value, name) in enumerate(zip(answer.output.tolist(), answer.prediction_ids(), strict=True)):
            prediction: dict[str, object] = {"prediction": value, "prediction_id": name, "at": moment(times[row])}
            if answer.defaulted:
                prediction["defaulted"] = True
            if latest[row] >= times[row]:
                prediction["ahead"] = True  # a state that was read holds events at or after the row's time
            if include_features:
                prediction["features"] = self._features(answer, row, times[row], newest)
            predictions.append(prediction)
        return self._opening + orjson.dumps(predictions, option=_JSON) + b"}"

    def _features(self, answer: Answer, row: int, at_us: int, newest: list[list[int]]) -> dict[str, object]:
        shown: dict[str, object] = {}
        for lookup, values, own in zip(self.plan.lookups, answer.features, newest, strict=True):
            age = age_s(own[row], at_us)
            for name, value in zip(lookup.names, values[row].tolist(), strict=True):
                shown[name] = {"value": value, "age_s": age}
        for name, value in zip(self.plan.transforms, answer.transforms[row].tolist(), strict=True):
            shown[name] = {"value": value}
        return shown


def age_s(newest_us: int, at_us: int) -> float | None:
    """How old a state's newest event is at a moment; negative if it lies behind it, None without a state."""
    return None if newest_us == kernel.NEVER else (at_us - newest_us) / 1e6


def answered(answer: Answer) -> AnsweredRows:
    """What the prediction log keeps of an answer."""
    rows = answer.rows
    return AnsweredRows(
        ids=answer.prediction_ids(),
        batch_id=answer.batch_id,
        at_us=rows.at_us,
        served_us=answer.served_us,
        requests=[orjson.dumps(record, option=orjson.OPT_SORT_KEYS) for record in rows.records],
        keys=answer.keys,
        states=answer.states,
        newest_us=answer.newest_us,
        features=answer.features,
        transforms=answer.transforms,
        output=answer.output,
        defaulted=answer.defaulted,
    )


async def _fetch(reader: Reader, names: list[bytes]) -> Sequence[State]:
    """The states of all names; an entity that many rows share is read once."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) == len(names):
        return await reader.fetch_names(names)
    found = dict(zip(distinct, await reader.fetch_names(distinct), strict=True))
    return [found[name] for name in names]


def _scorer(model: hr.Model, bundle: Bundle) -> Scorer:
    counts = {"float": 0, "string": 0}
    for each in model.inputs:
        counts[each.dtype] += 1
    names = bundle.manifest.onnx
    return Scorer(
        f"model {model.name!r} version {bundle.version}",
        bundle.onnx,
        (names.numeric_input, counts["float"]) if names.numeric_input else None,
        (names.categorical_input, counts["string"]) if names.categorical_input else None,
        names.output,
    )
