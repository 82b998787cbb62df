"""Predictions over HTTP on states in Redis: the values are the kernel's, the answer is the graph's, the record is whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace import kernel
from headrace.assembly import assemble, request_columns
from headrace.layout import Layout
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.predictions import PredictionCodec, PredictionRecord
from headrace_schemas.stores.registry import Registry
from headrace_serving.app import Options, create_app
from headrace_serving.limits import Limits
from tests.services import Services
from tests.serving.clients import Client
from tests.serving.fakes import FakeSink
from tests.serving.projects import (
    MINUTE,
    NOW,
    PAYMENT,
    expected,
    fold,
    folding,
    graph,
    loaded,
    manifest,
    of_cards,
    of_merchants,
    of_pairs,
    strict,
)

PREDICT = "/v1/models/fraud/predict"


def payment(number: int, minutes_ago: float, **changes: Any) -> dict[str, Any]:
    return {
        "payment_id": f"before-{number}",
        "paid_at": NOW - int(minutes_ago * MINUTE),
        "card": 7,
        "merchant": "shop",
        "amount": 10.0 * number,
        "online": number % 2 == 0,
        **changes,
    }


PAST = [payment(1, 5), payment(2, 30), payment(3, 600), payment(4, 2, card=8), payment(5, 1, merchant="other")]
CHARGEBACKS = [{"payment_id": "x", "reported_at": NOW - 90 * MINUTE, "merchant": "shop", "lost": 12.34}]


class Service:
    """A running app, its store and its log."""

    def __init__(self, client: Client, sink: FakeSink, store: redis.Redis, namespace: str) -> None:
        self.client, self.sink, self.store, self.namespace = client, sink, store, namespace

    def predict(self, body: Any, model: str = "fraud", status: int = 200) -> Any:
        answer = self.client.post(f"/v1/models/{model}/predict", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def one(self, row: dict[str, Any] | None = None, model: str = "fraud", **changes: Any) -> dict[str, Any]:
        body = {"rows": [{**(row or PAYMENT), **changes}], "include": ["features"]}
        (prediction,) = self.predict(body, model)["predictions"]
        return dict(prediction)

    def records(self) -> list[PredictionRecord]:
        return [PredictionCodec().decode(value) for value in self.sink.wait_for_values()]


@pytest.fixture
def service(services: Services, prefix: str, tmp_path: Path) -> Iterator[Service]:
    project = loaded(tmp_path, services.redis, namespace=prefix)
    registry = Registry(project.settings.registry_path)
    for model in (folding, strict):
        registry.register(model.name, graph(model), manifest(model), alias="champion")
    sink = FakeSink()
    store = redis.Redis.from_url(services.redis)
    for view, events in ((of_cards, PAST), (of_pairs, PAST), (of_merchants, CHARGEBACKS)):
        store.mset(fold(view, prefix, events))
    app = create_app(project, clock=lambda: NOW, sink=sink)
    with Client(app) as client, store:
        yield Service(client, sink, store, prefix)


def values(prediction: dict[str, Any]) -> dict[str, float | None]:
    return {name: feature["value"] for name, feature in prediction["features"].items()}


# --- the values -------------------------------------------------------------------------------------------------------


def test_windows_count_what_is_in_them_and_the_request_itself(service: Service) -> None:
    found = values(service.one())
    assert found["of_cards__payments_10m"] == 3  # two before, and this one
    assert found["of_cards__payments_1h"] == 4
    assert found["of_cards__payments_24h"] == 5
    assert found["of_cards__amount_1h"] == 10 + 20 + 50 + 12.5
    assert found["of_cards__biggest"] == 50
    assert found["of_pairs__payments"] == 4
    assert found["of_pairs__last_24h"] == 12.5
    assert found["of_merchants__chargebacks_7d"] == 1
    assert found["of_merchants__lost_7d"] == 12.34
    assert found["times_usual"] == 12.5 / found["of_cards__mean_24h"]  # type: ignore[operator]


def test_a_model_that_does_not_fold_sees_only_the_past(service: Service) -> None:
    found = values(service.one(model="strict"))
    assert found["of_cards__payments_10m"] == 2
    assert found["of_pairs__last_24h"] == 10.0


def test_an_event_that_arrived_before_its_own_prediction_counts_once(service: Service) -> None:
    arrived = {**PAYMENT, "paid_at": NOW}
    service.store.mset(fold(of_cards, service.namespace, [*PAST, arrived]))
    prediction = service.one()
    assert values(prediction)["of_cards__payments_10m"] == 3
    assert prediction["ahead"] is True


def test_the_prediction_is_the_graphs_answer_to_these_features(service: Service) -> None:
    for country in ("DE", "NL", "FR", None):
        prediction = service.one(country=country)
        wanted = expected(folding, values(prediction), {**PAYMENT, "country": country})
        assert prediction["prediction"] == pytest.approx(wanted, rel=1e-5)


def test_an_entity_without_events_has_the_declared_defaults(service: Service) -> None:
    prediction = service.one(model="strict", card=999, merchant="nowhere")
    found = values(prediction)
    assert found["of_cards__payments_24h"] == 0
    assert found["of_cards__amount_24h"] == 0.0
    assert found["of_cards__mean_24h"] is None
    assert prediction["features"]["of_cards__mean_24h"]["age_s"] is None
    assert "defaulted" not in prediction


def test_features_come_with_their_age(service: Service) -> None:
    features = service.one(model="strict")["features"]
    assert features["of_cards__payments_10m"]["age_s"] == 60.0
    assert features["of_pairs__payments"]["age_s"] == 300.0
    assert "age_s" not in features["times_usual"]


def test_the_moment_is_the_requests_or_the_clocks(service: Service) -> None:
    assert service.one(paid_at=NOW + 1)["at"] == "2013-12-30T12:00:00.000001Z"
    row = {name: value for name, value in PAYMENT.items() if name != "paid_at"}
    assert service.one(row)["at"] == "2013-12-30T12:00:00Z"


def test_a_read_before_the_newest_event_is_flagged(service: Service) -> None:
    assert "ahead" not in service.one()
    assert service.one(paid_at=NOW - MINUTE)["ahead"] is True  # an event at that very moment is not knowable
    assert "ahead" not in service.one(paid_at=NOW - MINUTE + 1)


cards = st.sampled_from([7, 8, 9, 2**62])
rows = st.fixed_dictionaries(
    {
        "payment_id": st.sampled_from(["before-1", "before-2", "new", "é"]),
        "card": cards,
        "merchant": st.sampled_from(["shop", "other", ""]),
        "amount": st.floats(0, 1_000_000),
        "country": st.sampled_from(["DE", "FR", None]),
        "online": st.booleans(),
        "paid_at": st.integers(NOW - 5 * MINUTE, NOW + 2000 * MINUTE),
    }
)


def test_served_features_equal_the_kernels_read_of_the_bytes_in_redis(service: Service) -> None:
    @settings(max_examples=40)
    @given(st.lists(rows, min_size=1, max_size=120), st.sampled_from([folding, strict]))
    def check(batch: list[dict[str, Any]], model: hr.Model) -> None:
        check_served(service, batch, model)

    check()


def check_served(live: Service, batch: list[dict[str, Any]], model: hr.Model) -> None:
    """Compare an answer with what the kernel reads, event by event of the batch."""
    answer = live.predict({"rows": batch, "include": ["features"]}, model.name)["predictions"]
    columns = request_columns(model.request, batch, model.request_fields, at_us=NOW)
    at = np.array([row["paid_at"] for row in batch], dtype=np.int64)
    found = []
    for index, lookup in enumerate(model.lookups):
        names = ViewKeys(live.namespace, lookup.view)
        keys = [encode_key([row[field] for field in lookup.key_fields]) for row in batch]
        states = [live.store.get(names.locate(key)) for key in keys]
        own = None
        if model.folded[index]:
            own = kernel.prepare(
                Layout.of(lookup.view),
                columns,
                partition=np.zeros(len(batch), dtype=np.int32),
                offset=np.full(len(batch), 2**62, dtype=np.int64),
                id_hash=np.array(
                    [kernel.hash_bytes(encode_key([row["payment_id"]])) for row in batch], dtype=np.uint64
                ),
            )
        read = kernel.read(Layout.of(lookup.view), kernel.States.from_list(states), at, own)  # type: ignore[arg-type]
        found.append(read[:, [lookup.view.feature_names.index(name) for name in lookup.features]])
    assembled = assemble(model, columns, found)
    for row, prediction in enumerate(answer):
        wanted = [
            (lookup.visible_name(name), found[index][row, column])
            for index, lookup in enumerate(model.lookups)
            for column, name in enumerate(lookup.features)
        ] + [(each.name, assembled.transforms[row, column]) for column, each in enumerate(model.transforms)]
        served = values(prediction)
        assert served == {name: None if np.isnan(value) else value for name, value in wanted}


# --- the response -----------------------------------------------------------------------------------------------------


def test_many_rows_answer_in_their_order(service: Service) -> None:
    answer = service.predict({"rows": [{**PAYMENT, "card": card} for card in (7, 8, 999, 7)]})
    assert answer["model"] == "fraud"
    assert answer["version"] == version_of(service)
    predictions = answer["predictions"]
    assert predictions[0]["prediction"] == predictions[3]["prediction"] != predictions[1]["prediction"]
    assert len({each["prediction_id"] for each in predictions}) == 4
    assert predictions[0].keys() == {"prediction", "prediction_id", "at"}


def version_of(service: Service) -> str:
    return str(service.client.get("/v1/models/fraud").json()["version"])


def test_a_row_alone_is_one_prediction_and_may_ask_for_features(service: Service) -> None:
    (prediction,) = service.predict({**PAYMENT, "include": ["features"]})["predictions"]
    assert prediction["features"]["of_cards__payments_10m"] == {"value": 3.0, "age_s": 60.0}


def test_a_large_batch_gives_the_same_as_its_rows_alone(service: Service) -> None:
    batch = [{**PAYMENT, "card": 7 + row % 3, "payment_id": f"q{row}", "amount": float(row)} for row in range(300)]
    together = service.predict({"rows": batch, "include": ["features"]})["predictions"]
    for row in (0, 1, 2, 150, 299):
        alone = service.one(batch[row])
        assert together[row]["features"] == alone["features"]
        assert together[row]["prediction"] == pytest.approx(alone["prediction"], rel=1e-6)


# --- the log ----------------------------------------------------------------------------------------------------------


def test_every_answered_row_is_logged_with_what_an_auditor_needs(service: Service) -> None:
    answer = service.predict({"rows": [PAYMENT, {**PAYMENT, "card": 999, "note": None}], "include": ["features"]})
    first, second = service.records()
    served = answer["predictions"]
    assert [first.prediction_id, second.prediction_id] == [each["prediction_id"] for each in served]
    assert (first.model, first.bundle) == ("fraud", answer["version"])
    assert (first.row, second.row, first.batch_size) == (0, 1, 2)
    assert first.batch_id == second.batch_id
    assert first.at_us == first.served_us == NOW
    assert json.loads(first.request) == {**PAYMENT, "paid_at": NOW}
    by_alias = {each.alias: each for each in first.lookups}
    assert list(by_alias) == ["of_cards", "of_pairs", "of_merchants"]
    cards = by_alias["of_cards"]
    assert (cards.view, cards.layout, cards.key) == ("of_cards", of_cards.layout_fingerprint, encode_key([7]))
    assert (cards.found, cards.own, cards.ahead) == (True, True, False)
    assert cards.newest_us == NOW - MINUTE
    assert cards.offsets == ((0, 4),)
    assert by_alias["of_merchants"].own is False
    assert [each.found for each in second.lookups] == [False, False, True]
    names = [lookup.visible_name(name) for lookup in folding.lookups for name in lookup.features]
    logged = dict(zip(names, np.frombuffer(first.features, "<f8").tolist(), strict=True))
    shown = values(served[0])
    assert {name: value for name, value in logged.items() if not np.isnan(value)} == {
        name: shown[name] for name in names if shown[name] is not None
    }
    assert np.frombuffer(first.transforms, "<f8").tolist() == [shown["times_usual"]]
    assert np.frombuffer(first.output, "<f8").tolist() == [served[0]["prediction"]]
    assert first.defaulted is False


def test_a_refused_request_is_not_logged(service: Service) -> None:
    service.predict({**PAYMENT, "card": "seven"}, status=422)
    service.predict(PAYMENT)
    assert len(service.records()) == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def error(answer: Any) -> str:
    return str(answer["error"]["message"])


def test_an_unknown_model_is_404_with_a_suggestion(service: Service) -> None:
    assert error(service.predict(PAYMENT, "fruad", status=404)) == (
        "there is no model 'fruad'; did you mean 'fraud'? known: fraud, strict"
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body must be JSON, but it is empty"),
        (b"{", 400, "the body must be JSON, but it has 1 bytes that are not"),
        (
            b'{"amount": NaN}',
            422,
            "field 'amount': required a finite number of at least 0 and at most 1000000, got nan",
        ),
        (b'{"merchant": "\\ud800"}', 422, "field 'merchant': required a string, got '\\ud800'"),
        (b"\xff", 400, "the body must be JSON, but it has 1 bytes that are not"),
        (b"[" * 100_000, 400, "the body must be JSON, but it has 100000 bytes that are not"),
        (b"[1]", 400, "the body must be a JSON object, but it is an array"),
        (b'{"rows": []}', 422, "field 'rows': required at least one row, got an empty array"),
        (b'{"rows": [1]}', 422, "required an object"),
        (b'{"rows": [{}], "extra": 1}', 422, "field 'extra': required nothing beside 'rows' and 'include', got 1"),
        (b'{"rows": [{}], "include": ["feature"]}', 422, "did you mean 'features'"),
        (b'{"rows": [{}], "include": [3]}', 422, "required a list of what to answer with, got 3; a number"),
        (b'{"rows": 3}', 422, "field 'rows': required a field of event 'payments'"),
        (b"{}", 422, "got no value"),
    ],
)
def test_a_body_that_is_no_request_is_refused(service: Service, body: bytes, status: int, message: str) -> None:
    answer = service.client.post(PREDICT, content=body)
    assert answer.status_code == status, answer.text
    assert message in error(answer.json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"card": "seven"}, "field 'card': required an integer of at least 0, got 'seven'"),
        ({"card": None}, "field 'card': required an integer of at least 0, got null"),
        ({"card": 7.0}, "field 'card': required an integer of at least 0, got 7.0"),
        ({"amount": "12"}, "field 'amount': required a finite number of at least 0 and at most 1000000, got '12'"),
        ({"amount": 1e999}, "field 'amount': required a finite number of at least 0 and at most 1000000, got inf"),
        ({"amount": -1}, "field 'amount': required a finite number of at least 0 and at most 1000000, got -1"),
        ({"online": 1}, "field 'online': required true or false, got 1"),
        ({"merchant": 3}, "field 'merchant': required a string, got 3"),
        (
            {"merchant": "x" * 1025},
            "field 'card, merchant': required an entity key of at most 1024 bytes in all, got 1037 bytes",
        ),
        ({"merchnt": "shop"}, "did you mean 'merchant'?"),
        ({"paid_at": "noon"}, "field 'paid_at': required a time (ISO 8601 with a zone, or microseconds since 1970)"),
        ({"paid_at": 2**62}, "field 'paid_at': required a time of the years 1 to 9999"),
        ({"payment_id": None}, "field 'payment_id': required a string, got null"),
    ],
)
def test_a_field_that_breaks_its_contract_is_named(service: Service, change: dict[str, Any], message: str) -> None:
    content = json.dumps({**PAYMENT, **change}).replace("Infinity", "1e999")
    answer = service.client.post(PREDICT, content=content)
    assert answer.status_code == 422, answer.text
    assert message in error(answer.json())
    detail = answer.json()["error"]["details"][0]
    assert {"row", "field", "required", "got"} == detail.keys()


def test_a_missing_field_is_named(service: Service) -> None:
    row = {name: value for name, value in PAYMENT.items() if name != "amount"}
    assert error(service.predict(row, status=422)) == (
        "field 'amount': required a finite number of at least 0 and at most 1000000, got no value"
    )


def test_bad_rows_of_a_batch_are_numbered(service: Service) -> None:
    answer = service.predict({"rows": [PAYMENT, {**PAYMENT, "card": -1}, {**PAYMENT, "merchant": None}]}, status=422)
    assert error(answer) == "row 1, field 'card': required an integer of at least 0, got -1 (and 1 more)"
    assert [each["row"] for each in answer["error"]["details"]] == [1, 2]


def test_an_entity_key_that_is_too_long_is_named_with_its_row(service: Service) -> None:
    long = {**PAYMENT, "merchant": "x" * 2000}
    answer = service.predict({"rows": [PAYMENT, long]}, status=422)
    assert "row 1, field 'card, merchant': required an entity key of at most 1024 bytes" in error(answer)


def test_an_oversized_body_is_413_whether_its_length_is_announced_or_not(service: Service) -> None:
    body = b'{"rows": [' + b" " * (1 << 20) + b"]}"
    assert error(service.client.post(PREDICT, content=body).json()) == (
        "the body has 1048588 bytes or more, at most 1048576 are taken; send fewer rows"
    )

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    assert service.client.post(PREDICT, content=chunks()).status_code == 413


def test_too_many_rows_are_413(service: Service) -> None:
    answer = service.predict({"rows": [PAYMENT] * 1001}, status=413)
    assert error(answer) == "the batch has 1001 rows, at most 1000 are taken; send it in parts"


def test_other_methods_and_paths_say_so_as_json(service: Service) -> None:
    answer = service.client.get(PREDICT)
    assert answer.status_code == 405
    assert error(answer.json()) == "/v1/models/fraud/predict does not take GET; see /docs"
    answer = service.client.get("/v2/health")
    assert answer.status_code == 404
    assert error(answer.json()) == "there is no path /v2/health; see /docs"


def test_a_request_over_the_limit_in_flight_is_429(services: Services, prefix: str, tmp_path: Path) -> None:
    project = loaded(tmp_path, services.redis, namespace=prefix)
    Registry(project.settings.registry_path).register("fraud", graph(folding), manifest(folding), alias="champion")
    app = create_app(project, sink=FakeSink(), options=Options(limits=Limits(in_flight=0)))
    with Client(app) as client:
        answer = client.post(PREDICT, json=PAYMENT)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert error(answer.json()) == "0 requests are in flight, which is the limit; try again"
        assert 'headrace_predict_requests_total{model="fraud",outcome="overloaded"} 1.0' in client.get("/metrics").text
