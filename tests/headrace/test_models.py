from __future__ import annotations

import pickle

import numpy as np
import pytest

import headrace as hr
from headrace.models import ModelInput
from tests.headrace.declared import arrivals, departures, excess, late, model, origin_view


def test_inputs_are_in_the_order_of_the_declaration() -> None:
    view = origin_view()
    inputs = model(
        features=[departures()["carrier"], view.lookup("delay_3h"), departures()["charter"], excess(view)]
    ).inputs
    assert inputs == (
        ModelInput("carrier", "request", "string"),
        ModelInput("origin_departures__delay_3h", "feature", "float"),
        ModelInput("charter", "request", "float"),
        ModelInput("excess_delay", "transform", "float"),
    )


def test_view_looks_up_the_field_that_it_is_keyed_by_if_the_request_is_its_event() -> None:
    assert dict(model(features=[origin_view()]).lookups[0].keys) == {"airport": "origin"}


def test_view_of_another_event_looks_up_the_field_of_its_keys_name() -> None:
    flights = hr.FeatureView(
        "landings",
        entity=hr.Entity("flight", keys={"flight_id": hr.string()}),
        event=arrivals(),
        features={"n": hr.count().lifetime()},
    )
    assert dict(model(features=[flights]).lookups[0].keys) == {"flight_id": "flight_id"}


def test_lookups_of_one_view_and_key_are_one_read() -> None:
    view = origin_view()
    found = model(features=[view.lookup("since_last"), view["departures_3h"], excess(view)])
    assert [(lookup.alias, lookup.features) for lookup in found.lookups] == [
        ("origin_departures", ("departures_3h", "delay_3h", "since_last"))
    ]
    # What only the transform needs is read and is no input.
    assert [item.name for item in found.inputs] == [
        "origin_departures__since_last",
        "origin_departures__departures_3h",
        "excess_delay",
    ]


def test_one_view_is_looked_up_for_two_entities() -> None:
    view = origin_view()
    found = model(features=[view.lookup("delay_3h"), view.lookup("delay_3h", airport="dest", alias="dest")])
    assert [item.name for item in found.inputs] == ["origin_departures__delay_3h", "dest__delay_3h"]
    assert [dict(lookup.keys) for lookup in found.lookups] == [{"airport": "origin"}, {"airport": "dest"}]


def test_caller_sends_keys_and_used_fields_and_may_send_the_rest() -> None:
    fields = {item.name: item for item in model().request_fields}
    required = {name for name, item in fields.items() if item.required}
    assert required == {"origin", "distance"}
    # Null if left out; the clock's time if left out; the id, to find the outcome by.
    assert {name for name in fields if name not in required} == {"flight_id", "departed_at", "dep_delay", "carrier"}
    assert fields["flight_id"].field.nullable
    assert not fields["origin"].field.nullable


def test_key_is_required_although_the_event_may_lack_it() -> None:
    fields = {**departures().fields, "origin": hr.string(nullable=True)}
    found = model(
        request=departures(fields=fields), features=[origin_view(event=departures(fields=fields))]
    ).request_fields
    assert [(item.required, item.field.nullable) for item in found if item.name == "origin"] == [(True, False)]


def test_folded_request_needs_its_id_and_what_the_view_folds() -> None:
    view = origin_view(features={"n": hr.count(where=hr.col("charter")).over("1h")})
    plain = {item.name for item in model(features=[view]).request_fields if item.required}
    folded = {item.name for item in model(features=[view], fold_request=True).request_fields if item.required}
    assert plain == {"origin"}
    assert folded == {"origin", "charter", "flight_id"}


def test_request_is_folded_only_into_its_own_entity() -> None:
    view = origin_view()
    other = hr.FeatureView(
        "landings",
        entity=hr.Entity("flight", keys={"flight_id": hr.string()}),
        event=arrivals(),
        features={"n": hr.count().lifetime()},
    )
    features = [view, view.lookup(airport="dest", alias="dest"), other]
    assert model(features=features, fold_request=True).folded == (True, False, False)
    assert model(features=features).folded == (False, False, False)


def test_label_values_are_null_where_the_outcome_is() -> None:
    columns = {"arr_delay": np.array([31.0, 30.0, np.nan])}
    np.testing.assert_array_equal(late().values(columns), [1.0, 0.0, np.nan])
    assert late().columns == ("flight_id", "arrived_at", "arr_delay")
    assert late(missing=0).missing == 0.0


def test_transform_can_be_called_as_a_function() -> None:
    transform = excess()
    np.testing.assert_array_equal(transform([10.0, np.nan], [4.0, 1.0]), [6.0, np.nan])
    np.testing.assert_array_equal(transform(usual=4.0, delay=10.0), [6.0])
    assert transform.description == "How much more than usual."


def test_model_survives_pickling() -> None:
    found = model(features=[origin_view(), departures()["distance"]])
    assert pickle.loads(pickle.dumps(found)) == found


def test_project_collects_what_its_definitions_use() -> None:
    project = hr.Project.from_namespace("flights", {"m": model(), "again": model(), "n": 3, "hr": hr})
    assert [event.name for event in project.events] == ["arrivals", "departures"]
    assert [entity.name for entity in project.entities] == ["airport"]
    assert [view.name for view in project.views] == ["origin_departures"]
    assert [label.name for label in project.labels] == ["late"]
    assert [found.name for found in project.models] == ["arrival_delay"]
    assert project.views_of(project.event("departures")) == project.views
    assert project.views_of(project.event("arrivals")) == ()


def test_order_of_definitions_changes_no_project() -> None:
    one = hr.Project("p", events=(departures(), arrivals()))
    two = hr.Project("p", events=(arrivals(), departures()))
    assert one.events == two.events
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != hr.Project("p", events=(arrivals(),)).fingerprint


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("event", "departure", "there is no event 'departure'; did you mean 'departures'? known: arrivals, departures"),
        ("entity", "x", "there is no entity 'x'; known: airport"),
        ("view", "origin", "there is no feature view 'origin'; known: origin_departures"),
        ("label", "lat", "there is no label 'lat'; did you mean 'late'? known: late"),
        (
            "model",
            "arrival_dlay",
            "there is no model 'arrival_dlay'; did you mean 'arrival_delay'? known: arrival_delay",
        ),
    ],
)
def test_unknown_name_is_not_found_with_a_suggestion(kind: str, name: str, message: str) -> None:
    project = hr.Project.from_namespace("flights", {"m": model()})
    with pytest.raises(hr.NotFound) as caught:
        getattr(project, kind)(name)
    assert str(caught.value) == message


def test_known_names_are_found() -> None:
    project = hr.Project.from_namespace("flights", {"m": model()})
    found = [
        project.entity("airport"),
        project.view("origin_departures"),
        project.label("late"),
        project.model("arrival_delay"),
    ]
    assert [definition.kind for definition in found] == ["entity", "feature view", "label", "model"]


def test_module_without_definitions_says_what_a_project_is_made_of() -> None:
    with pytest.raises(hr.ConfigError, match=r"project 'p' declares nothing: .* `definitions` in headrace.toml"):
        hr.Project.from_namespace("p", {"x": 3})
