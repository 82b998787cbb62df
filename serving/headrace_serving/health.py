"""Is the service alive, and can it answer? What a balancer, a person and a test ask.

    live     200 while the event loop turns
    ready    200 when every request that the project declares a model for has a chance of an answer, or some have:
             ok        all models serve, the store answers, every prediction is logged
             degraded  still 200: a model is refused or lags behind its alias, predictions are missing from the log, or the
                       store is lost and some model answers with its defaults
             down      503: no model serves, or the store is lost and no model declares defaults

A refused model must not take the others out of the balancer; the body says which is which.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from headrace.errors import ServiceUnavailable
from headrace_serving.hosting import Hosting
from headrace_serving.predicting import Predictor
from headrace_serving.predictions_log import LogCounts

_PROBE_S = 1.0


class Status(StrEnum):
    """The service's state in one word."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


class Store(Protocol):
    """What answers a probe."""

    async def ping(self) -> None:
        """Raises ServiceUnavailable."""


class Log(Protocol):
    """What health asks of the prediction log."""

    @property
    def pending(self) -> int: ...

    @property
    def counts(self) -> LogCounts: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of ``/health/ready``."""

    status: Status
    facts: dict[str, object]

    @property
    def http(self) -> int:
        """The HTTP status."""
        return 503 if self.status is Status.DOWN else 200


async def readiness(hosting: Hosting[Predictor], store: Store, log: Log) -> Readiness:
    """Look at every part of the service."""
    lost = await _lost(store)
    survivors = [each for each in hosting.serving.values() if each.plan.defaults_when_lost]
    if not hosting.serving or (lost and not survivors):
        status = Status.DOWN
    elif lost or hosting.refused or log.counts.failures:
        status = Status.DEGRADED
    else:
        status = Status.OK
    counts = log.counts
    return Readiness(
        status,
        {
            "status": status,
            "models": {name: _model(hosting, name) for name in hosting.models},
            "store": {"status": "lost", "reason": lost} if lost else {"status": "ok"},
            "prediction_log": {
                "produced": counts.produced,
                "pending": log.pending,
                "lost": counts.failures,
                "reasons": {
                    "overflowed": counts.overflowed,
                    "undelivered": counts.undelivered,
                    "unencodable": counts.unencodable,
                },
            },
        },
    )


async def _lost(store: Store) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_S):
            await store.ping()
    except ServiceUnavailable as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {_PROBE_S:g} s"
    return None


def _model(hosting: Hosting[Predictor], name: str) -> dict[str, object]:
    serving, refused = hosting.serving.get(name), hosting.refused.get(name)
    facts: dict[str, object] = {
        "status": "serving" if serving and not refused else "outdated" if serving else "refused",
        "version": serving.version if serving else None,
    }
    if refused is not None:
        facts |= {"refused_version": refused.version, "reason": refused.reason}
    return facts
