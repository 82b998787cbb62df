"""``POST /v1/models/{name}/predict``: the hot route, a raw ASGI endpoint without per-field Python models.

    admit (429) ─▶ body (413) ─▶ JSON (400) ─▶ rows (422) ─▶ predict (503) ─▶ answer ─▶ prediction log, metrics

What follows the answer never delays it. Bodies::

    {"origin": "JFK", …}                                   one row; may carry "include" as well
    {"rows": [{…}, {…}], "include": ["features"]}          many rows

A list under ``rows`` or ``include`` can only be these, since no field of an event holds a list.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from headrace.errors import ContractError, HeadraceError, NotFound, StoreError
from headrace.suggestions import did_you_mean
from headrace_serving.bodies import (
    Disconnected,
    json_kind,
    parse_object,
    read_body,
    send_json,
    send_problem,
)
from headrace_serving.clocks import Clock
from headrace_serving.hosting import Hosting
from headrace_serving.limits import Admission, Limits
from headrace_serving.logs import LOGGER
from headrace_serving.metrics import Metrics, ModelMetrics, Outcome
from headrace_serving.predicting import Answer, Predictor, Reader
from headrace_serving.problems import InvalidRequest, Problem, Refusal, problem_of
from headrace_serving.requests import shown

_log = logging.getLogger(LOGGER)

_INCLUDABLE = ("features",)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's body, taken apart.

    Attributes:
        rows: the rows, not validated.
        include_features: answer with each feature's value and age.
    """

    rows: list[object]
    include_features: bool


class PredictRoute:
    """The endpoint of all models.

    Args:
        hosting: which predictor serves which model.
        reader: where states are.
        admission: the bound on requests in flight.
        limits: sizes and the deadline.
        metrics: what is counted.
        log: takes an answer after it was sent.
        clock: the service's clock.
        new_id: names a request.
    """

    def __init__(
        self,
        hosting: Hosting[Predictor],
        reader: Reader,
        admission: Admission,
        limits: Limits,
        metrics: Metrics,
        log: Callable[[Answer], None],
        clock: Clock,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._hosting, self._reader, self._admission, self._limits = hosting, reader, admission, limits
        self._metrics, self._log, self._clock, self._new_id = metrics, log, clock, new_id

    async def __call__(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for the model of that name."""
        started = time.perf_counter()
        metrics = self._metrics.models.get(name)
        try:
            self._admission.enter()
        except Refusal as refusal:
            _count(metrics, Outcome.OVERLOADED)
            await send_problem(send, problem_of(refusal))
            return
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                answer, body = await self._answer(name, scope, receive)
        except Disconnected:
            _count(metrics, Outcome.ABANDONED)
            return
        except TimeoutError:
            _count(metrics, Outcome.UNAVAILABLE)
            message = f"the answer was not ready within {self._limits.deadline_s:g} s; try again"
            await send_problem(send, Problem(503, "unavailable", message))
            return
        except HeadraceError as error:
            outcome = _outcome(error)
            if outcome is Outcome.FAILED:
                _log.exception("model %s: a request failed", name)
            _count(metrics, outcome)
            await send_problem(send, problem_of(error))
            return
        except Exception as error:  # noqa: BLE001  (a defect of ours is a 500 and a trace in the log)
            _log.exception("model %s: a request failed", name)
            _count(metrics, Outcome.FAILED)
            await send_problem(send, problem_of(error))
            return
        finally:
            self._admission.leave()
        await send_json(send, 200, body)
        self._log(answer)
        if metrics is not None:
            metrics.count(Outcome.DEFAULTED if answer.defaulted else Outcome.ANSWERED)
            metrics.observe_rows(answer.rows.count)
            metrics.observe_latency(time.perf_counter() - started)

    async def _answer(self, name: str, scope: Scope, receive: Receive) -> tuple[Answer, bytes]:
        predictor = self._hosting.serving.get(name)
        if predictor is None:
            raise self._absent(name)
        body = await read_body(scope, receive, self._limits.body_bytes)
        asked = take_apart(parse_object(body), self._limits.batch_rows)
        rows = predictor.plan.schema.read(asked.rows, self._clock())
        answer = await predictor.predict(self._new_id(), rows, self._reader)
        return answer, predictor.body(answer, include_features=asked.include_features)

    def _absent(self, name: str) -> HeadraceError:
        if name not in self._hosting.models:
            return NotFound("model", name, self._hosting.models)
        refused = self._hosting.refused.get(name)
        reason = refused.reason if refused is not None else "its bundle is being loaded"
        return Refusal(503, "unavailable", f"model {name!r} is not served: {reason}")


def take_apart(body: dict[str, object], most_rows: int) -> Asked:
    """The rows and options of a body.

    Raises:
        ContractError: ``rows`` or ``include`` is not what it must be.
        Refusal: 413, more rows than the limit.

    >>> take_apart({"rows": [{"origin": "JFK"}], "include": ["features"]}, 10)
    Asked(rows=[{'origin': 'JFK'}], include_features=True)
    >>> take_apart({"origin": "JFK"}, 10)
    Asked(rows=[{'origin': 'JFK'}], include_features=False)
    """
    include = False
    if type(body.get("include")) is list:
        include = _included(body.pop("include"))
    rows = body.get("rows")
    if type(rows) is not list:
        return Asked([body], include)
    if len(body) > 1:
        extra = next(name for name in body if name != "rows")
        raise ContractError(extra, "nothing beside 'rows' and 'include'", shown(body[extra]))
    if not rows:
        raise ContractError("rows", "at least one row", "an empty array")
    if len(rows) > most_rows:
        raise Refusal(
            413, "too_large", f"the batch has {len(rows)} rows, at most {most_rows} are taken; send it in parts"
        )
    return Asked(rows, include)


def _included(names: object) -> bool:
    assert isinstance(names, list)
    for name in names:
        if name not in _INCLUDABLE:
            got = did_you_mean(name, _INCLUDABLE) if isinstance(name, str) else json_kind(name)
            raise ContractError("include", "a list of what to answer with", f"{shown(name)}; {got}")
    return bool(names)


def _outcome(error: HeadraceError) -> Outcome:
    match error:
        case StoreError():
            return Outcome.UNAVAILABLE
        case Refusal(status=503):
            return Outcome.UNAVAILABLE
        case Refusal() | InvalidRequest() | ContractError() | NotFound():
            return Outcome.INVALID
        case _:
            return Outcome.FAILED


def _count(metrics: ModelMetrics | None, outcome: Outcome) -> None:
    # A name that no model has gets no metric of its own: anybody could make up names.
    if metrics is not None:
        metrics.count(outcome)


def predict_paths(models: Mapping[str, object]) -> dict[str, str]:
    """The hot route's paths, each with its model: one dictionary look-up instead of a routing table."""
    return {f"/v1/models/{name}/predict": name for name in models}
