"""``POST /v1/features``: the values of a view's features now, or at a moment, for some entities.

    {"view": "origin_departures", "keys": [{"airport": "JFK"}, {"airport": "EWR"}], "at": "2013-12-30T12:00:00Z"}

A read changes nothing and is not logged. States are read as the predictor reads them, so the values are those that a
prediction would use at that moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from starlette.types import Receive, Scope, Send

import headrace as hr
from headrace import kernel
from headrace.errors import ContractError, HeadraceError, NotFound
from headrace.suggestions import did_you_mean
from headrace_serving.bodies import Disconnected, json_kind, parse_object, read_body, send_json, send_problem
from headrace_serving.clocks import Clock, microseconds, moment
from headrace_serving.limits import Admission, Limits
from headrace_serving.logs import LOGGER
from headrace_serving.predicting import Reader, age_s
from headrace_serving.problems import Problem, Refusal, problem_of
from headrace_serving.reading import ViewPlan, newest_us
from headrace_serving.requests import FIRST_US, LAST_US, shown

_log = logging.getLogger(LOGGER)

_FIELDS = ("view", "keys", "at")


@dataclass(frozen=True, slots=True)
class _Asked:
    plan: ViewPlan
    keys: list[dict[str, str | int]]
    at_us: int


class FeaturesRoute:
    """The endpoint of all views.

    Args:
        namespace: the project's.
        views: its feature views.
        reader: where states are.
        admission: the bound on requests in flight, shared with predictions.
        limits: sizes and the deadline.
        clock: the service's clock.
    """

    def __init__(
        self,
        namespace: str,
        views: Iterable[hr.FeatureView],
        reader: Reader,
        admission: Admission,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._plans = {view.name: ViewPlan.of(namespace, view, view.entity.keys) for view in views}
        self._reader, self._admission, self._limits, self._clock = reader, admission, limits, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            with self._admission.admitted():
                async with asyncio.timeout(self._limits.deadline_s):
                    asked = self._parse(parse_object(await read_body(scope, receive, self._limits.body_bytes)))
                    body = await self._answer(asked)
        except Disconnected:
            return
        except TimeoutError:
            message = f"the answer was not ready within {self._limits.deadline_s:g} s; try again"
            await send_problem(send, Problem(503, "unavailable", message))
        except HeadraceError as error:
            problem = problem_of(error)
            if problem.status == 500:
                _log.exception("a request for features failed")
            await send_problem(send, problem)
        except Exception as error:  # noqa: BLE001  (a defect of ours is a 500 and a trace in the log)
            _log.exception("a request for features failed")
            await send_problem(send, problem_of(error))
        else:
            await send_json(send, 200, body)

    def _parse(self, body: Mapping[str, object]) -> _Asked:
        for name in body:
            if name not in _FIELDS:
                raise ContractError(name, "a field of the request", f"an unknown one; {did_you_mean(name, _FIELDS)}")
        view = body.get("view")
        if not isinstance(view, str):
            raise ContractError("view", "the name of a feature view", shown(view) if "view" in body else "no value")
        plan = self._plans.get(view)
        if plan is None:
            raise NotFound("feature view", view, self._plans)
        keys = body.get("keys")
        if not isinstance(keys, list) or not keys:
            raise ContractError("keys", "a list of one or more entity keys", _kind(body, "keys"))
        if len(keys) > self._limits.batch_rows:
            most = self._limits.batch_rows
            raise Refusal(
                413, "too_large", f"the batch has {len(keys)} keys, at most {most} are taken; send it in parts"
            )
        checked = [_checked_key(plan.view.entity, key, number) for number, key in enumerate(keys)]
        return _Asked(plan, checked, self._at(body.get("at")))

    def _at(self, value: object) -> int:
        if value is None:
            return self._clock()
        at: int | None = None
        if type(value) is int:
            at = value
        elif isinstance(value, str):
            try:
                at = microseconds(value)
            except ValueError:
                at = None
        if at is None or not FIRST_US <= at <= LAST_US:
            raise ContractError("at", "a time (ISO 8601 with a zone, or microseconds since 1970)", shown(value))
        return at

    async def _answer(self, asked: _Asked) -> bytes:
        plan = asked.plan
        keys = plan.encode([[key[name] for key in asked.keys] for name in plan.key_fields])
        states = await self._reader.fetch_names(plan.keys.locate_all(keys, kernel.hash_list(keys)))
        values = plan.read(states, np.full(len(keys), asked.at_us, dtype=np.int64))
        names = plan.view.feature_names
        entities = []
        for key, state, row in zip(asked.keys, states, values.tolist(), strict=True):
            newest = newest_us(state)
            entities.append(
                {
                    "key": key,
                    "found": state is not None,
                    "ahead": newest >= asked.at_us,
                    "age_s": age_s(newest, asked.at_us),
                    "features": dict(zip(names, row, strict=True)),
                }
            )
        answer = {"view": plan.view.name, "version": plan.view.version, "at": moment(asked.at_us), "entities": entities}
        return orjson.dumps(answer, option=orjson.OPT_UTC_Z)


def _checked_key(entity: hr.Entity, key: object, number: int) -> dict[str, str | int]:
    if not isinstance(key, dict):
        raise ContractError("keys", f"an object of {_named(entity.keys)}", json_kind(key), number)
    for name in key:
        if name not in entity.keys:
            got = f"an unknown one; {did_you_mean(name, entity.keys)}"
            raise ContractError(name, f"a key of entity {entity.name!r}", got, number)
    return {name: _checked_value(name, field, key, number) for name, field in entity.keys.items()}


def _checked_value(name: str, field: hr.Field, key: Mapping[str, object], number: int) -> str | int:
    value = key.get(name)
    if field.type is hr.FieldType.STRING:
        if isinstance(value, str):
            return value
    elif type(value) is int and -(2**63) <= value < 2**63:
        return value
    raise ContractError(name, field.expected, shown(value) if name in key else "no value", number)


def _named(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names)


def _kind(body: Mapping[str, object], name: str) -> str:
    if name not in body:
        return "no value"
    return "an empty array" if body[name] == [] else json_kind(body[name])
