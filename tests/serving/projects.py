"""A small project to serve: payments, folded into what is read; its states and bundles, made by hand.

The graph is linear in its numbers, with a fixed value for null and one weight per country, so that a test can compute a
prediction with numpy from the features that the service says it used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace_schemas.bundles import Fingerprints, GraphNames, InputSpec, Manifest, ViewPin
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.settings import Settings

NOW = 1_388_404_800_000_000  # 2013-12-30T12:00:00Z
MINUTE = 60_000_000
COUNTRIES = {"DE": 0.25, "NL": 0.5, "": 0.75}
OTHER_COUNTRY = 1.0
NULL = -7.0

payments = hr.Event(
    "payments",
    time="paid_at",
    id="payment_id",
    fields={
        "payment_id": hr.string(),
        "paid_at": hr.timestamp(),
        "card": hr.int64(ge=0),
        "merchant": hr.string(),
        "amount": hr.float64(quantum="0.01", ge=0, le=1_000_000),
        "country": hr.string(nullable=True),
        "online": hr.boolean(),
        "note": hr.string(nullable=True),
    },
)
chargebacks = hr.Event(
    "chargebacks",
    time="reported_at",
    fields={"payment_id": hr.string(), "reported_at": hr.timestamp(), "merchant": hr.string(), "lost": hr.float64()},
)
card = hr.Entity("card", keys={"card": hr.int64()})
merchant = hr.Entity("merchant", keys={"merchant": hr.string()})
pair = hr.Entity("pair", keys={"card": hr.int64(), "merchant": hr.string()})

of_cards = hr.FeatureView(
    "of_cards",
    entity=card,
    event=payments,
    features={
        "payments": hr.count().over("10m", "1h", "24h"),
        "amount": hr.sum("amount").over("1h", "24h"),
        "mean": hr.mean("amount").over("24h"),
        "online_share": hr.count(where=hr.col("online")).over("24h") / hr.count().over("24h"),
        "biggest": hr.max("amount").lifetime(),
        "since": hr.time_since_last().lifetime(),
    },
)
of_pairs = hr.FeatureView(
    "of_pairs",
    entity=pair,
    event=payments,
    features={"payments": hr.count().lifetime(), "last": hr.last("amount").over("24h")},
)
of_merchants = hr.FeatureView(
    "of_merchants",
    entity=merchant,
    event=chargebacks,
    features={"chargebacks": hr.count().over("7d"), "lost": hr.sum("lost").over("7d")},
)


@hr.on_demand(inputs={"amount": payments["amount"], "usual": of_cards.lookup()["mean_24h"]})
def times_usual(amount: npt.NDArray[Any], usual: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The amount as a multiple of the usual one."""
    return amount / usual


fraud = hr.Label(
    "fraud", event=chargebacks, join={"payment_id": "payment_id"}, value=hr.col("lost") > 0, horizon="7d", missing=0.0
)


def model(name: str = "fraud", **changes: Any) -> hr.Model:
    """A model of payments; by default it folds the request and falls back to defaults."""
    settings: dict[str, Any] = {
        "request": payments,
        "features": [payments["amount"], payments["country"], of_cards, of_pairs, of_merchants, times_usual],
        "label": fraud,
        "estimator": lambda: None,
        "task": "binary",
        "fold_request": True,
        "on_unavailable": "defaults",
    }
    return hr.Model(name, **{**settings, **changes})


folding = model()
strict = model("strict", fold_request=False, on_unavailable="error")

PAYMENT: dict[str, Any] = {
    "payment_id": "p1",
    "card": 7,
    "merchant": "shop",
    "amount": 12.5,
    "country": "DE",
    "online": True,
    "paid_at": "2013-12-30T12:00:00Z",
}


def loaded(
    root: Path,
    redis: str,
    kafka: str = "127.0.0.1:1",
    namespace: str = "test",
    models: Sequence[hr.Model] | None = None,
) -> LoadedProject:
    """The project as `load_project` would give it."""
    chosen = (folding, strict) if models is None else tuple(models)
    project = hr.Project.from_namespace("shop", {str(index): each for index, each in enumerate(chosen)})
    settings = Settings(
        name="shop",
        definitions="features.py",
        kafka=kafka,
        redis=redis,
        log_path=root / "log",
        registry_path=root / "registry",
        run_path=root / "run",
        namespace=namespace,
        host="127.0.0.1",
        port=0,
        workers=1,
        wedged_s=30,
        metrics_host="127.0.0.1",
        metrics_port=0,
        cache_kb=1024,
    )
    return LoadedProject(project=project, settings=settings, root=root)


# --- states -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies in Redis: key → state."""

    states: Mapping[bytes, bytes]


def fold(view: hr.FeatureView, namespace: str, events: Sequence[Mapping[str, Any]]) -> dict[bytes, bytes]:
    """The Redis keys and states of a view after some events, as the worker would have written them."""
    layout = Layout.of(view)
    keys = [encode_key([event[field] for field in view.key_fields]) for event in events]
    distinct = list(dict.fromkeys(keys))
    columns = {name: _column(view.event.fields[name], [event.get(name) for event in events]) for name in view.columns}
    ids = [encode_key([event[view.event.id]]) if view.event.id else b"%d" % n for n, event in enumerate(events)]
    batch = kernel.prepare(
        layout,
        columns,
        partition=np.zeros(len(events), dtype=np.int32),
        offset=np.arange(len(events), dtype=np.int64),
        id_hash=np.array([kernel.hash_bytes(each) for each in ids], dtype=np.uint64),
    )
    slot = np.array([distinct.index(key) for key in keys], dtype=np.int32)
    updated = kernel.update(layout, kernel.States.from_list([None] * len(distinct)), batch, slot)
    names = ViewKeys(namespace, view)
    return {
        names.locate(key): state
        for key, state in zip(distinct, updated.states.to_list(), strict=True)
        if state is not None
    }


def _column(field: hr.Field, values: list[Any]) -> npt.NDArray[Any]:
    if field.type is hr.FieldType.STRING:
        return np.array(values, dtype=object)
    if field.nullable or field.type is hr.FieldType.FLOAT64:
        return np.array(values, dtype=np.float64)
    return np.array(values, dtype=np.bool_ if field.type is hr.FieldType.BOOLEAN else np.int64)


# --- bundles ----------------------------------------------------------------------------------------------------------


def weights(model: hr.Model, seed: int = 0) -> npt.NDArray[np.float32]:
    """One weight per numeric input."""
    count = sum(each.dtype == "float" for each in model.inputs)
    return np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float32)


def graph(model: hr.Model, seed: int = 0) -> bytes:
    """output = Σ weight · number (null counts as `NULL`) + weight of the country."""
    numeric = weights(model, seed)
    ports = [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, [None, len(numeric)])]
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["absent"]),
        helper.make_node("Where", ["absent", "null", "numeric"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["sum"]),
    ]
    last = "sum"
    if any(each.dtype == "string" for each in model.inputs):
        ports.append(helper.make_tensor_value_info("categorical", TensorProto.STRING, [None, 1]))
        encoder = helper.make_node(
            "LabelEncoder",
            ["categorical"],
            ["country"],
            domain="ai.onnx.ml",
            keys_strings=list(COUNTRIES),
            values_floats=list(COUNTRIES.values()),
            default_float=OTHER_COUNTRY,
        )
        nodes += [encoder, helper.make_node("Add", ["sum", "country"], ["total"])]
        last = "total"
    nodes.append(helper.make_node("Identity", [last], ["output"]))
    constants = [
        numpy_helper.from_array(np.array(NULL, dtype=np.float32), "null"),
        numpy_helper.from_array(numeric, "weights"),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])
    body = helper.make_graph(nodes, "linear", ports, [output], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(body, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def manifest(model: hr.Model, /, **changes: Any) -> Manifest:
    """The manifest of a bundle that fits the model."""
    has_strings = any(each.dtype == "string" for each in model.inputs)
    content: dict[str, Any] = {
        "model": model.name,
        "task": model.task,
        "fingerprints": Fingerprints(
            model=model.fingerprint,
            inputs=model.input_fingerprint,
            views={
                each.view.name: ViewPin(each.view.layout_fingerprint, each.view.finalizer_fingerprint)
                for each in model.lookups
            },
            transforms={each.name: each.fingerprint for each in model.transforms},
        ),
        "inputs": tuple(InputSpec(each.name, each.kind, each.dtype) for each in model.inputs),
        "onnx": GraphNames("numeric", "categorical" if has_strings else None, "output"),
        "metrics": {"auc": 0.75},
        "dataset": {"rows": 100, "hash": hashlib.sha256(b"").hexdigest()},
        "onnx_max_difference": 0.0,
        "created_at": "2014-01-01T00:00:00Z",
        "software": {"headrace": hr.__version__},
    }
    return Manifest(**{**content, **changes})


def expected(model: hr.Model, features: Mapping[str, float | None], request: Mapping[str, Any], seed: int = 0) -> float:
    """The graph's answer to features as the service shows them, computed with numpy alone."""
    numbers = []
    for each in model.inputs:
        if each.dtype != "float":
            continue
        value = request[each.name] if each.kind == "request" else features[each.name]
        numbers.append(NULL if value is None else value)
    total = np.array(numbers, dtype=np.float32) @ weights(model, seed)[:, 0]
    return float(total) + COUNTRIES.get(request.get("country") or "", OTHER_COUNTRY)
