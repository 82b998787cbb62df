"""Every rule of labels, transforms, models and projects: the message says where, what was required, what came and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy import log as bare_log
from numpy import mean as bare_mean

import headrace as hr
from tests.headrace.declared import arrivals, departures, late, model, origin_view
from tests.headrace.refusals import Cases, named, refusal


def event(**changes: Any) -> hr.Event:
    return hr.Event("paid", **{"fields": {"at": hr.timestamp(), "card": hr.string()}, "time": "at", **changes})


def transform(function: Callable[..., Any], **inputs: Any) -> hr.OnDemand:
    return hr.on_demand(inputs=inputs or {"x": departures()["dep_delay"]})(function)


def one_argument(x):  # type: ignore[no-untyped-def]
    return x


def two_arguments(x, y):  # type: ignore[no-untyped-def]
    return x + y


def uses_exp(x):  # type: ignore[no-untyped-def]
    return np.exp(x)


def uses_bare_log(x):  # type: ignore[no-untyped-def]
    return bare_log(x)


def uses_bare_mean(x):  # type: ignore[no-untyped-def]
    return x - bare_mean(x)


def uses_arctan(x):  # type: ignore[no-untyped-def]
    return np.arctan(x)


def uses_power(x):  # type: ignore[no-untyped-def]
    return x**2 + x**1.5


def mixes_rows(x):  # type: ignore[no-untyped-def]
    return x - x.mean()


def uses_max(x):  # type: ignore[no-untyped-def]
    return max(x, 0.0)


def _without_source() -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(compile("def typed(x):\n    return x\n", "<prompt>", "exec"), namespace)
    function: Callable[..., Any] = namespace["typed"]
    return function


_LAMBDA = lambda x: x  # noqa: E731  (a lambda is what is refused)

LABELS: Cases = {
    "event that is none": (
        lambda: hr.Label("late", "arrivals", join={}, value=hr.col("x"), horizon="1h", missing=0),  # type: ignore[arg-type]
        "label 'late' (HERE): event is an hr.Event, but 'arrivals' was given; pass the event that brings the outcome",
    ),
    "no join": (
        lambda: late(join={}),
        'label \'late\' (HERE): join names at least one field, but it is empty; write join={"flight_id": "flight_id"}',
    ),
    "join on an unknown field": (
        lambda: late(join={"flight_id": "flight"}),
        (
            "label 'late' (HERE): join names fields of event 'arrivals' on its right side, but it has no field 'flight'; "
            "did you mean 'flight_id'? known: flight_id, arrived_at, arr_delay, status"
        ),
    ),
    "value that is a text": (
        lambda: late(value=hr.col("status")),
        (
            "label 'late' (HERE): a label is a condition or a number, but status is of type string; "
            "compare it, as in hr.col('status') == 'refunded'"
        ),
    ),
    "value that is no expression": (
        lambda: late(value="arr_delay"),
        (
            "label 'late' (HERE): value is an expression over the outcome's fields, but 'arr_delay' was given; "
            'write value=hr.col("delay") > 30'
        ),
    ),
    "value of an unknown field": (
        lambda: late(value=hr.col("delay") > 30),
        (
            "label 'late' (HERE): an expression uses fields of event 'arrivals', but it has no field 'delay'; "
            "did you mean 'arr_delay'? known: flight_id, arrived_at, arr_delay, status"
        ),
    ),
    "horizon of nothing": (
        lambda: late(horizon="0s"),
        "label 'late' (HERE): a horizon is longer than nothing, but '0s' was given; write horizon='24h'",
    ),
    "missing that says nothing": (
        lambda: late(missing=None),
        (
            "label 'late' (HERE): missing says what no outcome means: 'drop', or a number, but missing=None was given; "
            "write missing='drop' to leave such requests out, or missing=0.0 to count them as negative"
        ),
    ),
}

TRANSFORMS: Cases = {
    "lambda": (
        lambda: transform(_LAMBDA),
        (
            "on-demand transform '<lambda>' (HERE): a transform is a function written with def, because its name names the feature, "
            f"but {_LAMBDA!r} was given; write @hr.on_demand(inputs={{…}}) above def some_name(…):"
        ),
    ),
    "argument without an input": (
        lambda: transform(two_arguments),
        (
            "on-demand transform 'two_arguments' (HERE): inputs names each argument of the function once, "
            "but the function takes (x, y) and inputs names (x); give every argument an input of its name"
        ),
    ),
    "input that is none": (
        lambda: transform(one_argument, x="dep_delay"),
        (
            "on-demand transform 'one_argument' (HERE): an input is a request field or a looked-up feature, "
            "but input 'x' is 'dep_delay'; write event['field'] or view.lookup(…)['feature']"
        ),
    ),
    "numpy's exp": (
        lambda: transform(uses_exp),
        (
            "on-demand transform 'uses_exp' (HERE): a transform gives the same bits for one row and for many, on every machine, "
            "but it uses np.exp, which does not; write hr.exp"
        ),
    ),
    "numpy's log by its own name": (
        lambda: transform(uses_bare_log),
        (
            "on-demand transform 'uses_bare_log' (HERE): a transform gives the same bits for one row and for many, on every "
            "machine, but it uses bare_log, which does not; write hr.log"
        ),
    ),
    "numpy's mean by its own name": (
        lambda: transform(uses_bare_mean),
        (
            "on-demand transform 'uses_bare_mean' (HERE): a transform computes each row by itself, but it uses bare_mean, which "
            "mixes rows; use arithmetic between the arguments; for sums over events declare an aggregation"
        ),
    ),
    "numpy's arctan": (
        lambda: transform(uses_arctan),
        (
            "on-demand transform 'uses_arctan' (HERE): a transform gives the same bits for one row and for many, on every machine, "
            "but it uses np.arctan, which does not; use + - * / and the functions hr.exp, hr.log, hr.sin …"
        ),
    ),
    "a power": (
        lambda: transform(uses_power),
        (
            "on-demand transform 'uses_power' (HERE): a transform gives the same bits for one row and for many, "
            "but it uses x ** 1.5; write hr.pow(x, y)"
        ),
    ),
    "a sum over rows": (
        lambda: transform(mixes_rows),
        (
            "on-demand transform 'mixes_rows' (HERE): a transform computes each row by itself, but it uses x.mean, which mixes rows; "
            "use arithmetic between the arguments; for sums over events declare an aggregation"
        ),
    ),
    "a builtin for one value": (
        lambda: transform(uses_max),
        (
            "on-demand transform 'uses_max' (HERE): a transform computes arrays, each row by itself, but it uses max(…), "
            "which works on one value; write hr.maximum"
        ),
    ),
    "a function without source": (
        lambda: transform(_without_source()),
        (
            "on-demand transform 'typed' (HERE): the source of function 'typed' can be read, because its fingerprint is made of it, "
            "but <prompt>:1 does not hold it; define the function in a file (not in a prompt or through exec), and restart after "
            "editing it"
        ),
    ),
}

MODELS: Cases = {
    "request that is none": (
        lambda: model(request="departures"),
        "model 'arrival_delay' (HERE): request is an hr.Event, but request='departures' was given; pass the event",
    ),
    "label that is none": (
        lambda: model(label="late"),
        "model 'arrival_delay' (HERE): label is an hr.Label, but label='late' was given; declare one and pass it",
    ),
    "no features": (
        lambda: model(features=[]),
        "model 'arrival_delay' (HERE): a model has at least one feature, but features is empty; list views, fields or transforms",
    ),
    "feature by its name": (
        lambda: model(features=["distance"]),
        (
            "model 'arrival_delay' (HERE): features lists views, lookups, request fields and on-demand transforms, but 'distance' is "
            "in it; write view, view.lookup(…), view['feature'], event['field'] or the transform's name without quotes"
        ),
    ),
    "estimator that is an object": (
        lambda: model(estimator=3),
        (
            "model 'arrival_delay' (HERE): estimator is a function that makes an unfitted estimator, but 3 was given; "
            "write estimator=lambda: HistGradientBoostingClassifier()"
        ),
    ),
    "unknown task": (
        lambda: model(task="regresion"),
        (
            "model 'arrival_delay' (HERE): task is 'binary' or 'regression', but task='regresion' was given; "
            "did you mean 'regression'? known: binary, regression"
        ),
    ),
    "unknown behaviour": (
        lambda: model(on_unavailable="default"),
        (
            "model 'arrival_delay' (HERE): on_unavailable is 'error' or 'defaults', but on_unavailable='default' was given; "
            "did you mean 'defaults'? known: error, defaults"
        ),
    ),
    "label joined on an unknown field": (
        lambda: model(label=late(join={"flight": "flight_id"})),
        (
            "model 'arrival_delay' (HERE): label 'late' joins on fields of request event 'departures', but it has no field 'flight'; "
            "did you mean 'flight_id'? known: flight_id, origin, dest, departed_at, dep_delay, distance, charter, carrier"
        ),
    ),
    "label joined on fields of two types": (
        lambda: model(label=late(join={"distance": "flight_id"})),
        (
            "model 'arrival_delay' (HERE): label 'late' joins fields of one type, but 'distance' is int64 and 'flight_id' of event "
            "'arrivals' is string; join on other fields, or declare both alike"
        ),
    ),
    "field of another event": (
        lambda: model(features=[arrivals()["arr_delay"]]),
        (
            "model 'arrival_delay' (HERE): a model's request field belongs to the request event 'departures', "
            "but 'arr_delay' belongs to event 'arrivals'; declare a feature view over that event and look it up"
        ),
    ),
    "transform of another event's field": (
        lambda: model(features=[transform(one_argument, x=arrivals()["arr_delay"])]),
        (
            "model 'arrival_delay' (HERE): input 'x' of on-demand transform 'one_argument' belongs to the request event 'departures', "
            "but 'arr_delay' belongs to event 'arrivals'; declare a feature view over that event and look it up"
        ),
    ),
    "timestamp as input": (
        lambda: model(features=[departures()["departed_at"]]),
        (
            "model 'arrival_delay' (HERE): a model's inputs are numbers, booleans and texts, but field 'departed_at' is a timestamp; "
            "derive a number from it in an on-demand transform, such as the hour of the day"
        ),
    ),
    "an input twice": (
        lambda: model(features=[departures()["distance"], departures()["distance"]]),
        (
            "model 'arrival_delay' (HERE): the inputs of a model have different names, but 'distance' comes twice; "
            "list it once, or rename one"
        ),
    ),
    "lookup by an unknown field": (
        lambda: model(features=[origin_view().lookup(airport="orgin")]),
        (
            "model 'arrival_delay' (HERE): key 'airport' of view 'origin_departures' comes from a field of request event 'departures', "
            "but it has no field 'orgin'; write origin_departures.lookup(airport='…'); did you mean 'origin'? known: flight_id, "
            "origin, dest, departed_at, dep_delay, distance, charter, carrier"
        ),
    ),
    "lookup by a field of another type": (
        lambda: model(features=[origin_view().lookup(airport="distance")]),
        (
            "model 'arrival_delay' (HERE): key 'airport' of view 'origin_departures' and its request field are of one type, "
            "but the key is string and field 'distance' is int64; write origin_departures.lookup(airport='…') with another field"
        ),
    ),
    "one lookup, two aliases": (
        lambda: model(features=[origin_view().lookup(alias="a"), origin_view().lookup(alias="b")]),
        (
            "model 'arrival_delay' (HERE): one lookup of a view has one alias, but view 'origin_departures' by origin has 'a' and 'b'; "
            "use one of them in both places"
        ),
    ),
    "two lookups, one alias": (
        lambda: model(features=[origin_view(), origin_view().lookup(airport="dest")]),
        (
            "model 'arrival_delay' (HERE): two lookups have two names, but 'origin_departures' stands for view 'origin_departures' by "
            "origin and for view 'origin_departures' by dest; give one an alias: origin_departures.lookup(…, alias='…')"
        ),
    ),
    "request folded without an id": (
        lambda: model(
            request=departures(id=None),
            features=[origin_view(event=departures(id=None))],
            fold_request=True,
        ),
        (
            "model 'arrival_delay' (HERE): fold_request=True needs the id of the request event, so that it counts once when it also "
            "arrives, but event 'departures' declares none; declare hr.Event('departures', …, id='…')"
        ),
    ),
    "request folded into a view without memory": (
        lambda: model(features=[origin_view(dedupe=0)], fold_request=True),
        (
            "model 'arrival_delay' (HERE): fold_request=True needs views that remember event ids, so that a request counts once "
            "when it also arrives, but view 'origin_departures' has dedupe=0; raise its dedupe, or leave fold_request out"
        ),
    ),
    "request folded into nothing": (
        lambda: model(features=[origin_view().lookup(airport="dest")], fold_request=True),
        (
            "model 'arrival_delay' (HERE): fold_request=True counts the request in views of its own event, keyed by the same fields, "
            "but the model looks up none; leave fold_request out, or add such a view"
        ),
    ),
}

PROJECTS: Cases = {
    "two events on one topic": (
        lambda: hr.Project(
            "p", events=(event(topic="t"), hr.Event("b", fields={"at": hr.timestamp()}, time="at", topic="t"))
        ),
        (
            "event 'paid' (HERE): one event has one topic, but topic 't' is already that of event 'b' (HERE); "
            "use that event, or another topic"
        ),
    ),
    "two views of one name": (
        lambda: hr.Project("p", views=(origin_view(), origin_view(lanes=2))),
        (
            "feature view 'origin_departures' (HERE): feature view names are unique, but 'origin_departures' is also declared at HERE; "
            "rename one of them"
        ),
    ),
}


@pytest.mark.parametrize(
    ("declaration", "message"), named(label=LABELS, transform=TRANSFORMS, model=MODELS, project=PROJECTS)
)
def test_broken_rule_is_told_with_its_place_and_its_remedy(declaration: Callable[[], object], message: str) -> None:
    assert refusal(declaration, __file__) == message
