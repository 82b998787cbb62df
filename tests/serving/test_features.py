"""Reading features over HTTP, and the description of the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from headrace import kernel
from headrace.layout import Layout
from headrace_schemas.stores.registry import Registry
from headrace_serving.app import Options, create_app
from headrace_serving.limits import Limits
from tests.redis_topologies import until
from tests.services import Services
from tests.serving.clients import Client
from tests.serving.fakes import FakeSink
from tests.serving.projects import MINUTE, NOW, fold, folding, graph, loaded, manifest, of_cards, of_pairs, strict

FEATURES = "/v1/features"
EVENTS: list[dict[str, Any]] = [
    {"payment_id": "a", "paid_at": NOW - MINUTE, "card": 7, "merchant": "shop", "amount": 1.25, "online": True},
    {"payment_id": "b", "paid_at": NOW - 2 * MINUTE, "card": 7, "merchant": "café", "amount": 2.5, "online": False},
]


@pytest.fixture
def client(services: Services, prefix: str, tmp_path: Path) -> Iterator[Client]:
    project = loaded(tmp_path, services.redis, namespace=prefix)
    registry = Registry(project.settings.registry_path)
    for model in (folding, strict):
        registry.register(model.name, graph(model), manifest(model), alias="champion")
    with redis.Redis.from_url(services.redis) as store:
        store.mset(fold(of_cards, prefix, EVENTS))
        store.mset(fold(of_pairs, prefix, EVENTS))
    app = create_app(project, clock=lambda: NOW, sink=FakeSink(), options=Options(limits=Limits(batch_rows=50)))
    with Client(app) as running:
        yield running


def test_features_of_entities_come_in_the_order_of_their_keys(client: Client) -> None:
    answer = client.post(FEATURES, json={"view": "of_cards", "keys": [{"card": 8}, {"card": 7}]}).json()
    assert (answer["view"], answer["version"], answer["at"]) == ("of_cards", 1, "2013-12-30T12:00:00Z")
    unknown, known = answer["entities"]
    assert unknown["key"] == {"card": 8}
    assert (unknown["found"], unknown["age_s"]) == (False, None)
    assert unknown["features"]["payments_10m"] == 0
    assert unknown["features"]["mean_24h"] is None
    assert (known["found"], known["age_s"], known["ahead"]) == (True, 60.0, False)
    assert known["features"]["amount_1h"] == 3.75
    states = kernel.States.from_list(list(fold(of_cards, "any", EVENTS).values()))
    wanted = kernel.read(Layout.of(of_cards), states, np.array([NOW], dtype=np.int64))[0]
    assert list(known["features"].values()) == wanted.tolist()


def test_entities_of_several_keys_are_named_by_all_of_them(client: Client) -> None:
    keys = [{"merchant": "café", "card": 7}, {"card": 7, "merchant": "shop"}]
    answer = client.post(FEATURES, json={"view": "of_pairs", "keys": keys}).json()
    assert [each["features"]["last_24h"] for each in answer["entities"]] == [2.5, 1.25]


def test_a_moment_may_be_given(client: Client) -> None:
    body = {"view": "of_cards", "keys": [{"card": 7}], "at": "2013-12-30T13:30:00Z"}
    (entity,) = client.post(FEATURES, json=body).json()["entities"]
    assert entity["features"]["payments_1h"] == 0
    assert entity["features"]["payments_24h"] == 2
    (entity,) = client.post(FEATURES, json={**body, "at": NOW - MINUTE}).json()["entities"]
    assert entity["ahead"] is True


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (
            {"view": "of_card", "keys": [{"card": 7}]},
            404,
            "there is no feature view 'of_card'; did you mean 'of_cards'?",
        ),
        ({"keys": [{"card": 7}]}, 422, "field 'view': required the name of a feature view, got no value"),
        ({"view": 3, "keys": []}, 422, "field 'view': required the name of a feature view, got 3"),
        ({"view": "of_cards"}, 422, "field 'keys': required a list of one or more entity keys, got no value"),
        (
            {"view": "of_cards", "keys": []},
            422,
            "field 'keys': required a list of one or more entity keys, got an empty array",
        ),
        (
            {"view": "of_cards", "keys": {}},
            422,
            "field 'keys': required a list of one or more entity keys, got an object",
        ),
        ({"view": "of_cards", "keys": [7]}, 422, "row 0, field 'keys': required an object of 'card', got a number"),
        ({"view": "of_cards", "keys": [{"card": "7"}]}, 422, "row 0, field 'card': required an integer, got '7'"),
        ({"view": "of_cards", "keys": [{"card": True}]}, 422, "row 0, field 'card': required an integer, got True"),
        ({"view": "of_cards", "keys": [{"card": 2**63}]}, 422, "row 0, field 'card': required an integer, got 922337"),
        ({"view": "of_cards", "keys": [{"card": None}]}, 422, "row 0, field 'card': required an integer, got None"),
        ({"view": "of_pairs", "keys": [{"card": 7}]}, 422, "row 0, field 'merchant': required a string, got no value"),
        (
            {"view": "of_cards", "keys": [{"card": 7, "crd": 1}]},
            422,
            "row 0, field 'crd': required a key of entity 'card', got an unknown one; did you mean 'card'?",
        ),
        ({"view": "of_cards", "keys": [{"card": 7}], "when": 3}, 422, "field 'when': required a field of the request"),
        ({"view": "of_cards", "keys": [{"card": 7}], "at": "noon"}, 422, "field 'at': required a time"),
        ({"view": "of_cards", "keys": [{"card": 7}], "at": 2**62}, 422, "field 'at': required a time"),
        ({"view": "of_cards", "keys": [{"card": 7}] * 51}, 413, "the batch has 51 keys, at most 50 are taken"),
        ([], 400, "the body must be a JSON object, but it is an array"),
    ],
)
def test_a_bad_request_for_features_is_named(client: Client, body: Any, status: int, message: str) -> None:
    answer = client.post(FEATURES, json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_features_need_the_store(tmp_path: Path) -> None:
    with Client(create_app(loaded(tmp_path, "redis://127.0.0.1:1/0"), sink=FakeSink())) as client:
        answer = client.post(FEATURES, json={"view": "of_cards", "keys": [{"card": 7}]})
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "Redis does not answer; try again"


# --- the description --------------------------------------------------------------------------------------------------


def test_every_example_of_the_description_works_when_pasted(client: Client) -> None:
    document = client.get("/openapi.json").json()
    tried = 0
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        if body is None:
            continue
        for name, example in body["content"]["application/json"]["examples"].items():
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200, f"{path}, {name}: {answer.text}"
            tried += 1
    assert tried == 2 * 3 + 3  # three for each model, one for each view


def test_the_description_has_the_models_real_fields(client: Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/models/fraud/predict"]["post"]["requestBody"]["content"]["application/json"]
    single, batch = content["schema"]["oneOf"]
    assert single["properties"]["card"] == {"type": "integer", "format": "int64", "minimum": 0}
    assert single["properties"]["amount"] == {"type": "number", "format": "double", "minimum": 0, "maximum": 1_000_000}
    assert single["properties"]["country"]["type"] == ["string", "null"]
    assert single["properties"]["online"] == {"type": "boolean"}
    assert "paid_at" in single["properties"]
    assert sorted(single["required"]) == ["amount", "card", "merchant", "online", "payment_id"]
    assert batch["properties"]["rows"]["maxItems"] == 50
    assert document["components"]["schemas"]["Problem"]["required"] == ["error"]


def test_the_documentation_pages_open(client: Client) -> None:
    assert "swagger" in client.get("/docs").text.lower()


def test_a_model_is_described_with_its_bundle(client: Client) -> None:
    found = client.get("/v1/models/fraud").json()
    assert found["serving"] is True
    assert found["metrics"] == {"auc": 0.75}
    assert found["request"]["amount"] == {
        "type": "float64",
        "required": True,
        "expected": "a finite number of at least 0 and at most 1000000",
    }
    assert found["request"]["paid_at"]["required"] is False
    answer = client.get("/v1/models/frad")
    assert answer.status_code == 404
    assert "did you mean 'fraud'?" in answer.json()["error"]["message"]


def test_metrics_tell_latency_outcomes_ages_and_the_log(client: Client) -> None:
    row = {"payment_id": "z", "card": 7, "merchant": "nowhere", "amount": 1.0, "online": True}
    assert client.post("/v1/models/fraud/predict", json=row).status_code == 200
    assert client.post("/v1/models/fraud/predict", json={}).status_code == 422
    logged = "headrace_predictions_logged 1.0"
    until(lambda: logged in client.get("/metrics").text)  # what is logged, and counted with it, comes behind the answer
    text = client.get("/metrics").text
    for line in (
        'headrace_predict_requests_total{model="fraud",outcome="answered"} 1.0',
        'headrace_predict_requests_total{model="fraud",outcome="invalid"} 1.0',
        'headrace_predict_seconds_count{model="fraud"} 1.0',
        'headrace_predict_rows_sum{model="fraud"} 1.0',
        'headrace_feature_age_seconds_sum{view="of_cards"} 60.0',
        'headrace_entities_missing_total{view="of_pairs"} 1.0',
        logged,
        'headrace_prediction_log_failures{reason="undelivered"} 0.0',
        "headrace_requests_in_flight 0.0",
    ):
        assert line in text.splitlines(), line
