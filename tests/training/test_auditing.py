"""The audit computes every logged prediction again: bit for bit, whatever arrived late, twice or out of order."""

import json
from dataclasses import replace

import numpy as np
import pytest

import headrace as hr
from headrace.errors import NotFound
from headrace.oracle import naive
from headrace_schemas.loading import LoadedProject
from headrace_training.auditing import TRANSFORMS, audit
from headrace_training.datasets import build_dataset
from headrace_training.lookups import Effort
from tests.training import payments as shop

FEATURES = 15


@pytest.fixture(scope="module")
def world():
    return shop.generate(23, 700)


@pytest.fixture(scope="module")
def serving(world):
    serving = shop.Serving()
    shop.play(world, serving)
    return serving


def logged(path, world, records):
    loaded = shop.project(path)
    shop.write_logs(loaded, world)
    shop.log_predictions(loaded, records)
    return loaded


def test_every_served_value_comes_again_bit_for_bit(tmp_path, world, serving):
    """Late, repeated and out-of-order arrivals over three partitions; some states held events of the future when read."""
    loaded = logged(tmp_path, world, serving.records)
    report = audit(loaded, answered=len(serving.records))
    assert report.ok, report.first
    assert report.logged == report.audited == len(serving.records) > 250
    by_name = {part.what: part for part in report.compared}
    assert sum(part.values for what, part in by_name.items() if what != TRANSFORMS) == FEATURES * report.audited
    assert by_name[TRANSFORMS].values == report.audited
    assert sum(part.ahead for part in report.compared) > 0, "no state was read behind its newest event"
    assert sum(part.empty for part in report.compared) > 0
    assert report.outputs.unchecked == report.audited, "no such bundle is in the registry"


def test_lateness_is_counted_apart_from_skew(tmp_path, world, serving):
    loaded = logged(tmp_path, world, serving.records)
    late = {part.what: part.late for part in audit(loaded).compared}
    assert late["card_spending"] > 0
    assert {part.late for part in audit(loaded, lateness=False).compared} == {None}


def test_threads_and_buckets_leave_no_trace(tmp_path, world, serving):
    loaded = logged(tmp_path, world, serving.records)
    assert audit(loaded, effort=Effort(threads=3, bucket_events=90)) == audit(loaded)


def test_one_turned_bit_is_found_and_described(tmp_path, world, serving):
    records = list(serving.records)
    records[40] = shop.tampered(records[40], feature=2)
    report = audit(logged(tmp_path, world, records))
    assert not report.ok
    assert report.differences == 1
    found = report.first[0]
    assert (found.prediction_id, found.what) == (records[40].prediction_id, "card_spending")
    assert found.name == "card_spending__spent_10m"
    assert found.key == f"card={json.loads(records[40].request)['card']}"
    assert found.served == pytest.approx(found.recomputed, rel=1e-9)
    assert report.to_json()["first"][0]["what"] == "card_spending"


def test_a_wrong_offset_in_a_record_is_found(tmp_path, world, serving):
    """A record that claims one event less than it served: its features no longer follow from its offsets."""
    which = next(
        i for i, r in enumerate(serving.records) if r.lookups[0].offsets and not r.lookups[0].ahead and i > 100
    )
    record = serving.records[which]
    partition, offset = record.lookups[0].offsets[0]
    forged = replace(record.lookups[0], offsets=((partition, offset - 1), *record.lookups[0].offsets[1:]))
    records = list(serving.records)
    records[which] = replace(record, lookups=(forged, *record.lookups[1:]))
    report = audit(logged(tmp_path, world, records))
    assert report.differences > 0
    assert {each.prediction_id for each in report.first} == {record.prediction_id}


def test_a_changed_transform_or_a_short_record_is_found(tmp_path, world, serving):
    records = list(serving.records)
    records[3] = replace(records[3], transforms=np.array([1.5], "<f8").tobytes())
    records[5] = replace(records[5], features=records[5].features[:-8])
    report = audit(logged(tmp_path, world, records))
    by_name = {part.what: part.differences for part in report.compared}
    assert by_name[TRANSFORMS] == 1
    assert report.differences == 1 + FEATURES


def test_an_answer_that_was_not_logged_is_not_ok(tmp_path, world, serving):
    report = audit(logged(tmp_path, world, serving.records[:-1]), answered=len(serving.records))
    assert report.differences == 0
    assert not report.ok


def test_a_repeated_record_counts_once(tmp_path, world, serving):
    records = serving.records[:20]
    report = audit(logged(tmp_path, world, [*records, records[3]]))
    assert (report.logged, report.repeated, report.ok) == (20, 1, True)


def test_predictions_ahead_of_the_event_log_are_not_judged(tmp_path, world, serving):
    half = shop.World(world.payments[: len(world.payments) // 2], world.chargebacks)
    report = audit(logged(tmp_path, half, serving.records))
    assert report.differences == 0
    waiting = report.skipped["whose events are not yet in the event log"]
    assert waiting == report.logged - report.audited > 0
    assert not report.ok


def test_predictions_by_other_definitions_are_not_judged(tmp_path, world, serving):
    records = list(serving.records)
    old = replace(records[0].lookups[0], layout="0" * 16)
    records[0] = replace(records[0], lookups=(old, *records[0].lookups[1:]))
    records[1] = replace(records[1], model="retired")
    report = audit(logged(tmp_path, world, records))
    assert report.skipped == {
        "made with other definitions than the project has now": 1,
        "of a model that the project no longer declares": 1,
    }
    assert not report.ok


def test_a_store_that_went_back_in_time_still_audits(tmp_path, world, serving):
    """Half of the predictions are asked again of a state from earlier on: their vectors do not continue each other."""
    again = shop.Serving()
    shop.play(shop.World(world.payments[:300], []), again, seed=5)
    renamed = [
        replace(r, prediction_id=f"again-{r.prediction_id}", batch_id=f"again-{r.batch_id}") for r in again.records
    ]
    report = audit(logged(tmp_path, world, [*serving.records, *renamed]))
    assert report.ok, report.first
    assert report.audited == len(serving.records) + len(renamed)


def test_an_empty_log_is_audited_with_nothing_to_say(tmp_path):
    report = audit(shop.project(tmp_path), answered=0)
    assert (report.ok, report.logged, report.values) == (True, 0, 0)
    with pytest.raises(NotFound, match="there is no model 'frau'; did you mean 'fraud'"):
        audit(shop.project(tmp_path), "frau")


def test_an_as_served_dataset_holds_the_served_values_with_their_labels(tmp_path, world, serving):
    loaded = logged(tmp_path, world, serving.records)
    dataset = build_dataset(loaded, "fraud", mode="as-served", labels=False)
    order = sorted(range(len(serving.records)), key=lambda i: (serving.records[i].at_us, i))
    expected = np.array([np.frombuffer(serving.records[i].features, "<f8") for i in order])
    names = [lookup.visible_name(name) for lookup in shop.fraud.lookups for name in lookup.features]
    found = np.ascontiguousarray(dataset.frame.select(names).to_numpy())
    assert (found.view(np.uint64) == expected.view(np.uint64)).all()
    labelled = build_dataset(loaded, "fraud", mode="as-served")
    assert 0 < len(labelled) < len(dataset)
    assert labelled.manifest.counts["horizon open"] == len(dataset) - len(labelled)
    assert labelled.manifest.mode == "as-served"


def test_served_values_equal_the_oracle_over_the_included_events(world, serving):
    """The specification itself: the oracle over the events at or below the record's offsets, plus the request's own."""
    compared = 0
    for record in serving.records[::7]:
        request = json.loads(record.request)
        values = np.frombuffer(record.features, "<f8")
        position = 0
        for lookup, looked in zip(shop.fraud.lookups, record.lookups, strict=True):
            upto = dict(looked.offsets)
            included = [p for p in world.payments if p["_offset"] <= upto.get(p["_partition"], -1)]
            mine = {**dict.fromkeys(shop.payments.fields), **request, "_partition": 10**6, "_offset": 2**62}
            expected = naive(
                lookup.view, [*included, mine], {key: request[f] for key, f in lookup.keys.items()}, record.at_us
            )
            for name in lookup.features:
                found, wanted = values[position], expected[name]
                position += 1
                if looked.ahead:
                    continue  # a state cannot un-know what it holds; only the fold says what a read then gives
                assert np.isnan(found) if wanted is None else found == wanted, (
                    record.prediction_id,
                    lookup.view.name,
                    name,
                )
                compared += 1
    assert compared > 400


def test_a_project_that_no_longer_has_the_model_skips_all(tmp_path, world, serving):
    loaded = logged(tmp_path, world, serving.records[:10])
    other = LoadedProject(hr.Project("other", views=shop.VIEWS), loaded.settings, loaded.root)
    assert audit(other).skipped == {"of a model that the project no longer declares": 10}
