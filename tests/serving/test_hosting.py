"""Bundles are followed, checked and swapped; what does not fit is refused with its reason, and the others serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace_schemas.bundles import Fingerprints, GraphNames, InputSpec, Manifest, ViewPin
from headrace_schemas.stores.registry import Registry
from headrace_serving.app import Options, ServingApp, create_app
from headrace_serving.pins import Misfit, check_fit
from tests.serving.clients import Client
from tests.serving.fakes import FakeSink
from tests.serving.projects import PAYMENT, folding, fraud, graph, loaded, manifest, model, of_cards, of_pairs, strict

NO_REDIS = "redis://127.0.0.1:1/0"


def app_of(tmp_path: Path, **options: Any) -> tuple[ServingApp, Registry]:
    """An app without a store; its two models answer with defaults or not at all."""
    project = loaded(tmp_path, NO_REDIS)
    registry = Registry(project.settings.registry_path)
    return create_app(project, sink=FakeSink(), options=Options(follow_s=0.02, **options)), registry


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def fingerprints(base: Manifest, **changes: Any) -> Fingerprints:
    old = base.fingerprints
    return Fingerprints(
        **{"model": old.model, "inputs": old.inputs, "views": old.views, "transforms": old.transforms, **changes}
    )


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_a_bundle_of_these_definitions_fits() -> None:
    check_fit(folding, "3f2a", manifest(folding))


def test_a_view_with_another_layout_is_named() -> None:
    base = manifest(folding)
    pins = {**base.fingerprints.views, "of_cards": ViewPin("0" * 16, of_cards.finalizer_fingerprint)}
    with pytest.raises(Misfit) as caught:
        check_fit(folding, "3f2a", manifest(folding, fingerprints=fingerprints(base, views=pins)))
    assert str(caught.value) == (
        "model 'fraud' version 3f2a was trained on other definitions: feature view 'of_cards' has layout "
        f"{of_cards.layout_fingerprint} and had 0000000000000000. Train again with `headrace train fraud`, or restore the "
        "definitions that it was trained on"
    )


def test_a_view_that_the_bundle_did_not_know_is_named() -> None:
    base = manifest(folding)
    pins = {name: pin for name, pin in base.fingerprints.views.items() if name != "of_pairs"}
    with pytest.raises(Misfit, match="feature view 'of_pairs' was not among its views"):
        check_fit(folding, "3f2a", manifest(folding, fingerprints=fingerprints(base, views=pins)))


def test_another_transform_is_named() -> None:
    base = manifest(folding)
    changed = fingerprints(base, inputs="0" * 16, transforms={"times_usual": "0" * 16})
    with pytest.raises(
        Misfit, match=r"on-demand transform 'times_usual' is another one; the fingerprint of its inputs is"
    ):
        check_fit(folding, "3f2a", manifest(folding, fingerprints=changed))


def test_features_that_are_declared_otherwise_are_named() -> None:
    base = manifest(folding)
    pins = {**base.fingerprints.views, "of_cards": ViewPin(of_cards.layout_fingerprint, "0" * 16)}
    with pytest.raises(Misfit, match="the features of view 'of_cards' are declared otherwise"):
        check_fit(folding, "3f2a", manifest(folding, fingerprints=fingerprints(base, views=pins, inputs="0" * 16)))


def test_a_further_feature_of_a_view_that_the_model_does_not_read_is_no_misfit() -> None:
    base = manifest(folding)
    pins = {**base.fingerprints.views, "of_pairs": ViewPin(of_pairs.layout_fingerprint, "0" * 16)}
    check_fit(folding, "3f2a", manifest(folding, fingerprints=fingerprints(base, views=pins)))


def test_other_inputs_and_another_models_bundle_are_named() -> None:
    base = manifest(folding)
    inputs = (*base.inputs[:1], InputSpec("country", "request", "float"), *base.inputs[2:])
    with pytest.raises(
        Misfit, match=r"its inputs are amount \(float\), country \(string\).* and were amount \(float\), "
    ):
        check_fit(folding, "3f2a", manifest(folding, inputs=inputs))
    with pytest.raises(Misfit, match="it is a bundle of model 'strict'"):
        check_fit(folding, "3f2a", manifest(folding, model="strict"))


# --- the service ------------------------------------------------------------------------------------------------------


def test_a_misfit_is_refused_and_the_other_models_serve(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    registry.register("fraud", graph(folding), manifest(folding), alias="champion")
    registry.register("strict", graph(strict), manifest(folding, model="strict"), alias="champion")
    with Client(app) as client:
        assert client.post("/v1/models/fraud/predict", json=PAYMENT).status_code == 200
        answer = client.post("/v1/models/strict/predict", json=PAYMENT)
        assert answer.status_code == 503
        message = answer.json()["error"]["message"]
        assert message.startswith("model 'strict' is not served: model 'strict' version ")
        assert "was trained on other definitions" in message
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        body = ready.json()
        assert body["status"] == "degraded"
        assert body["models"]["fraud"]["status"] == "serving"
        assert body["models"]["strict"]["status"] == "refused"
        assert "headrace train strict" in body["models"]["strict"]["reason"]
        listed = {each["name"]: each for each in client.get("/v1/models").json()["models"]}
        assert listed["fraud"]["serving"] is True
        assert listed["strict"]["refused"]["version"]
        assert 'headrace_model_refused{model="strict"} 1.0' in client.get("/metrics").text


def test_a_service_without_bundles_is_down_and_says_how_to_get_one(tmp_path: Path) -> None:
    app, _ = app_of(tmp_path)
    with Client(app) as client:
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "headrace train fraud" in ready.json()["models"]["fraud"]["reason"]
        assert client.get("/health/live").status_code == 200


def test_the_first_bundle_is_taken_up_while_the_service_runs(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    with Client(app) as client:
        registry.register("fraud", graph(folding), manifest(folding), alias="champion")
        until(lambda: client.post("/v1/models/fraud/predict", json=PAYMENT).status_code == 200)


def test_a_swap_drops_no_request(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    first = registry.register("fraud", graph(folding, seed=1), manifest(folding), alias="champion").version
    second = registry.register("fraud", graph(folding, seed=2), manifest(folding)).version
    seen: list[tuple[int, str]] = []
    stop = threading.Event()
    with Client(app) as client:

        def ask() -> None:
            while not stop.is_set():
                answer = client.post("/v1/models/fraud/predict", json=PAYMENT)
                seen.append((answer.status_code, answer.json().get("version", "")))

        asking = threading.Thread(target=ask)
        asking.start()
        for version in (second, first, second):
            registry.set_alias("fraud", "champion", version)
            until(lambda version=version: bool(seen) and seen[-1][1] == version)  # type: ignore[misc]
        stop.set()
        asking.join()
        assert client.get("/v1/models/fraud").json()["version"] == second
    assert {status for status, _ in seen} == {200}
    changes = [version for index, (_, version) in enumerate(seen) if index == 0 or seen[index - 1][1] != version]
    assert changes == [first, second, first, second]


def test_a_refused_successor_leaves_the_old_one_serving(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    good = registry.register("fraud", graph(folding), manifest(folding), alias="champion").version
    with Client(app) as client:
        for broken in (
            registry.register("fraud", b"no graph", manifest(folding)).version,
            registry.register("fraud", graph(strict), manifest(folding, model="other")).version,
            registry.register("fraud", graph(folding), manifest(folding, onnx=GraphNames("x", None, "output"))).version,
        ):
            registry.set_alias("fraud", "champion", broken)
            until(lambda v=broken: client.get("/v1/models/fraud").json().get("refused", {}).get("version") == v)  # type: ignore[misc]
            assert client.post("/v1/models/fraud/predict", json=PAYMENT).json()["version"] == good
            state = client.get("/health/ready").json()["models"]["fraud"]
            assert (state["status"], state["version"]) == ("outdated", good)
        registry.set_alias("fraud", "champion", good)
        until(lambda: "refused" not in client.get("/v1/models/fraud").json())


def test_a_graph_that_is_not_what_its_manifest_announces_is_refused_in_words(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    registry.register(
        "fraud", graph(folding), manifest(folding, onnx=GraphNames("numeric", None, "output")), "champion"
    )
    registry.register("strict", b"no graph", manifest(strict), alias="champion")
    with Client(app) as client:
        models = client.get("/health/ready").json()["models"]
        assert "its graph takes 'numeric' tensor(float)" in models["fraud"]["reason"]
        assert "but its manifest announces" in models["fraud"]["reason"]
        assert "ONNX Runtime cannot load its graph" in models["strict"]["reason"]


def test_a_damaged_bundle_is_looked_at_again(tmp_path: Path) -> None:
    app, registry = app_of(tmp_path)
    bundle = registry.register("fraud", graph(folding), manifest(folding), alias="champion")
    content = (bundle.path / "model.onnx").read_bytes()
    (bundle.path / "model.onnx").write_bytes(b"damaged")
    with Client(app) as client:
        assert "must have digest" in client.get("/health/ready").json()["models"]["fraud"]["reason"]
        (bundle.path / "model.onnx").write_bytes(content)
        until(lambda: client.post("/v1/models/fraud/predict", json=PAYMENT).status_code == 200)


# --- a lost store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(tmp_path: Path) -> tuple[ServingApp, FakeSink]:
    project = loaded(tmp_path, NO_REDIS)
    registry = Registry(project.settings.registry_path)
    for each in (folding, strict):
        registry.register(each.name, graph(each), manifest(each), alias="champion")
    sink = FakeSink()
    return create_app(project, sink=sink), sink


def test_without_the_store_a_model_answers_as_it_declares(lost: tuple[ServingApp, FakeSink]) -> None:
    app, sink = lost
    with Client(app) as client:
        answer = client.post("/v1/models/fraud/predict", json={**PAYMENT, "include": ["features"]})
        assert answer.status_code == 200
        (prediction,) = answer.json()["predictions"]
        assert prediction["defaulted"] is True
        # Defaults are those of an entity without events; the request itself is known, and folded.
        assert prediction["features"]["of_cards__payments_24h"] == {"value": 1.0, "age_s": None}
        answer = client.post("/v1/models/strict/predict", json=PAYMENT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"] == {"code": "unavailable", "message": "Redis does not answer; try again"}
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["store"]["status"] == "lost"
        text = client.get("/metrics").text
        assert 'headrace_predict_requests_total{model="fraud",outcome="defaulted"} 1.0' in text
        assert 'headrace_predict_requests_total{model="strict",outcome="unavailable"} 1.0' in text
    assert len(sink.sent) == 1


def test_without_the_store_and_without_defaults_the_service_is_down(tmp_path: Path) -> None:
    project = loaded(tmp_path, NO_REDIS, models=[strict])
    Registry(project.settings.registry_path).register("strict", graph(strict), manifest(strict), alias="champion")
    with Client(create_app(project, sink=FakeSink())) as client:
        assert client.get("/health/ready").status_code == 503


def test_models_of_other_shapes_serve(tmp_path: Path) -> None:
    """A model without texts and one without lookups have a graph with one input, or nothing to read."""
    numbers = model("numbers", features=[of_cards], fold_request=False)
    request_only = hr.Model(
        "request_only",
        request=folding.request,
        features=[folding.request["amount"], folding.request["country"]],
        label=fraud,
        estimator=lambda: None,
        task="regression",
    )
    project = loaded(tmp_path, NO_REDIS, models=[numbers, request_only])
    registry = Registry(project.settings.registry_path)
    for each in (numbers, request_only):
        registry.register(each.name, graph(each), manifest(each), alias="champion")
    with Client(create_app(project, sink=FakeSink())) as client:
        assert client.post("/v1/models/numbers/predict", json={"card": 3}).json()["predictions"][0]["defaulted"] is True
        answer = client.post("/v1/models/request_only/predict", json={"amount": 3, "country": "NL"})
        assert answer.status_code == 200
        assert "defaulted" not in answer.json()["predictions"][0]
