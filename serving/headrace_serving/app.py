"""The app: FastAPI for documentation and control, with the hot route in front of it.

    POST /v1/models/{name}/predict   `route`           answered before FastAPI's middleware: it needs none of it
    POST /v1/features                `features_route`
    GET  /v1/models, /v1/models/{name}
    GET  /health/live, /health/ready `health`
    GET  /metrics                    `metrics`
    GET  /docs, /redoc, /openapi.json

``create_app`` only builds; bundles are loaded and connections opened when the app starts (its lifespan), and closed, with the
prediction log flushed, when it ends. What may not live here: anything that runs once per request, but the choice of route.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import headrace as hr
from headrace import kernel
from headrace.errors import NotFound
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import prediction_topic
from headrace_schemas.stores.async_online import AsyncOnlineReader
from headrace_schemas.stores.kafka import producer
from headrace_schemas.stores.registry import Bundle, Registry
from headrace_serving import catalog
from headrace_serving.clocks import Clock, system_clock
from headrace_serving.features_route import FeaturesRoute
from headrace_serving.health import readiness
from headrace_serving.hosting import Hosting
from headrace_serving.limits import Admission, Limits
from headrace_serving.metrics import CONTENT_TYPE, Metrics
from headrace_serving.openapi import described, features_operation, predict_operation
from headrace_serving.planning import ModelPlan
from headrace_serving.predicting import Answer, Predictor
from headrace_serving.predictions_log import PRODUCER_SETTINGS, PredictionLog, Sink
from headrace_serving.problems import Problem, problem_of
from headrace_serving.recording import Recorder
from headrace_serving.route import PredictRoute, predict_paths

Json = dict[str, Any]

_FEATURES_PATH = "/v1/features"


@dataclass(frozen=True, slots=True)
class Options:
    """How the service behaves, beside the project's settings.

    Args:
        limits: sizes, requests in flight, the deadline.
        follow_s: how often the registry's aliases are looked at.
        store_timeout_s: how long one read of the store may take; shorter than the deadline, so that defaults can be given.
        flush_s: how long the end waits for the prediction log.
    """

    limits: Limits = field(default_factory=Limits)
    follow_s: float = 1.0
    store_timeout_s: float = 0.5
    flush_s: float = 10.0


class ServingApp(FastAPI):
    """The service of one project; made by ``create_app``.

    Attributes:
        hosting: which bundle serves which model.
        prediction_log: what was answered, on its way to Kafka.
        metrics: what is counted.
    """

    hosting: Hosting[Predictor]
    prediction_log: PredictionLog[Answer]
    metrics: Metrics
    predict: PredictRoute
    features: FeaturesRoute
    predict_paths: dict[str, str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the two data routes straight to their endpoints, and everything else through FastAPI."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            name = self.predict_paths.get(path)
            if name is not None:
                await self.predict(name, scope, receive, send)
                return
            if path == _FEATURES_PATH:
                await self.features(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(
    loaded: LoadedProject,
    *,
    registry: Registry | None = None,
    clock: Clock = system_clock,
    options: Options | None = None,
    sink: Sink | None = None,
) -> ServingApp:
    """The app of a project.

    Args:
        loaded: the project and its settings.
        registry: where bundles come from; by default the settings' registry.
        clock: the time of requests that do not send their own; integer microseconds.
        options: limits and intervals.
        sink: where predictions are logged; by default a Kafka producer.

    Nothing is connected or loaded before the app's lifespan begins.
    """
    options = options or Options()
    settings = loaded.settings
    project = loaded.project
    plans = {model.name: ModelPlan.of(settings.namespace, model) for model in project.models}
    admission = Admission(options.limits.in_flight)
    metrics = Metrics(plans, (view.name for view in project.views), lambda: admission.in_flight)

    def build(bundle: Bundle) -> Predictor:
        predictor = Predictor(plans[bundle.model], bundle, clock)
        predictor.warm()
        return predictor

    hosting = Hosting(
        registry or Registry(settings.registry_path),
        plans,
        build,
        on_swap=lambda name: metrics.swaps.labels(name).inc(),
    )
    for name in plans:
        metrics.refused.labels(name).set_function(partial(_is_refused, hosting, name))
    reader = AsyncOnlineReader(settings.redis, timeout_s=options.store_timeout_s)
    recorder = Recorder(metrics)
    log = PredictionLog(
        sink if sink is not None else producer(settings.kafka, **PRODUCER_SETTINGS),
        prediction_topic(settings.namespace),
        recorder.encoded,
        lambda answer: answer.rows.count,
    )
    _watch_log(metrics, log)

    def lifespan(_app: FastAPI) -> contextlib.AbstractAsyncContextManager[None]:
        return _lifetime(hosting, log, reader, options)

    app = ServingApp(title=f"{project.name}: predictions", version=hr.__version__, lifespan=lifespan)
    app.hosting, app.prediction_log, app.metrics = hosting, log, metrics
    app.predict = PredictRoute(hosting, reader, admission, options.limits, metrics, log.append, clock)
    app.features = FeaturesRoute(settings.namespace, project.views, reader, admission, options.limits, clock)
    app.predict_paths = predict_paths(plans)
    _add_control_routes(app, plans, reader)
    app.add_exception_handler(hr.HeadraceError, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    app.openapi = described(app.openapi, _operations(project, plans, app.predict_paths, options.limits))  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifetime(
    hosting: Hosting[Predictor], log: PredictionLog[Answer], reader: AsyncOnlineReader, options: Options
) -> AsyncIterator[None]:
    """Load the champions, follow the registry; at the end send what is still to be logged."""
    await asyncio.get_running_loop().run_in_executor(None, _load, hosting)
    log.start()
    following = asyncio.create_task(hosting.watch(options.follow_s))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await log.close(options.flush_s)
        await reader.close()


def _watch_log(metrics: Metrics, log: PredictionLog[Answer]) -> None:
    metrics.watch_log(
        logged=lambda: log.counts.produced,
        pending=lambda: log.pending,
        failures={
            "overflowed": lambda: log.counts.overflowed,
            "undelivered": lambda: log.counts.undelivered,
            "unencodable": lambda: log.counts.unencodable,
        },
    )


def _operations(
    project: hr.Project, plans: Mapping[str, ModelPlan], predict_paths: Mapping[str, str], limits: Limits
) -> dict[str, Json]:
    """The routes that FastAPI does not know, as OpenAPI describes them."""
    paths = {
        path: predict_operation(name, plans[name].model.description, plans[name].schema, limits)
        for path, name in predict_paths.items()
    }
    views = {view.name: view.entity.keys for view in project.views}
    return paths | {_FEATURES_PATH: features_operation(views, limits)}


def _is_refused(hosting: Hosting[Predictor], name: str) -> float:
    return float(name in hosting.refused)


def _load(hosting: Hosting[Predictor]) -> None:
    kernel.warm()
    hosting.load()
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not look at it again during requests


def _add_control_routes(app: ServingApp, plans: Mapping[str, ModelPlan], reader: AsyncOnlineReader) -> None:
    @app.get("/v1/models", tags=["models"], summary="The project's models")
    async def models() -> Json:
        return {"models": [catalog.described(plan, app.hosting) for plan in plans.values()]}

    @app.get("/v1/models/{name}", tags=["models"], summary="One model")
    async def model(name: str) -> Json:
        if name not in plans:
            raise NotFound("model", name, plans)
        return catalog.described(plans[name], app.hosting)

    @app.get("/health/live", tags=["health"], summary="Does the process answer?")
    async def live() -> Json:
        return {"status": "ok"}

    @app.get("/health/ready", tags=["health"], summary="Can it predict?")
    async def ready(response: Response) -> Json:
        found = await readiness(app.hosting, reader, app.prediction_log)
        response.status_code = found.http
        return found.facts

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(app.metrics.render(), media_type=CONTENT_TYPE)

    @app.post("/v1/models/{name}/predict", include_in_schema=False)
    async def unknown_model(name: str) -> None:
        # The paths of known models never come here.
        raise NotFound("model", name, plans)


async def _answer_problem(_request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return Response(problem.body(), problem.status, media_type="application/json")


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        problem = Problem(405, "method_not_allowed", f"{path} does not take {request.method}; see /docs")
    elif error.status_code == 404:
        problem = Problem(404, "not_found", f"there is no path {path}; see /docs")
    else:
        problem = Problem(error.status_code, "refused", str(error.detail))
    return Response(problem.body(), problem.status, headers=error.headers, media_type="application/json")
