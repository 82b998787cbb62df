"""One call from log to bundle; the gate lets better models through; the audit knows the bundle's answers."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import onnx
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

import headrace as hr
from headrace.errors import ConfigError, NotFound
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.registry import Registry
from headrace_training.auditing import audit
from headrace_training.exporting import Runtime
from headrace_training.fitting import Inputs
from headrace_training.promoting import promote
from headrace_training.training import train
from tests.training import payments as shop

NOW = datetime(2025, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world():
    return shop.generate(31, 1500)


@pytest.fixture
def loaded(tmp_path, world):
    loaded = shop.project(tmp_path)
    shop.write_logs(loaded, world)
    return loaded


def with_model(loaded, estimator):
    """The same project, its model with another estimator."""
    model = hr.Model(
        "fraud", request=shop.payments, features=shop.fraud.features, label=shop.charged_back, estimator=estimator,
        task="binary", fold_request=True,
    )  # fmt: skip
    project = dataclasses.replace(loaded.project, models=(model,))
    return LoadedProject(project, loaded.settings, loaded.root)


def test_a_bundle_holds_the_graph_its_inputs_and_where_it_comes_from(loaded):
    result = train(loaded, "fraud", created_at=NOW, promote="always")
    bundle = Registry(loaded.settings.registry_path).load("fraud")
    assert bundle.version == result.bundle.version
    manifest = bundle.manifest
    assert [item.name for item in manifest.inputs] == [item.name for item in shop.fraud.inputs]
    assert manifest.fingerprints.inputs == shop.fraud.input_fingerprint
    assert manifest.fingerprints.views["card_spending"].layout == shop.card_spending.layout_fingerprint
    assert manifest.onnx_max_difference < 1e-5
    assert manifest.dataset["hash"] == result.dataset.manifest.hash
    assert manifest.created_at == "2025-02-01T00:00:00+00:00"
    graph = onnx.load_from_string(bundle.onnx).graph
    widths = {i.name: i.type.tensor_type.shape.dim[1].dim_value for i in graph.input}
    assert widths == {"numeric": sum(i.dtype == "float" for i in shop.fraud.inputs), "categorical": 1}
    reference = manifest.reference["inputs"]
    assert reference["channel"]["distinct"] == 3
    assert reference["card_spending__n_2h"]["missing"] == 0.0
    assert result.to_json()["evaluation"]["metrics"]["auc"]["low"] is not None


def test_what_is_evaluated_is_the_graph_on_later_rows(loaded):
    result = train(loaded, "fraud", created_at=NOW, holdout_share=0.3)
    rows = result.dataset.inputs(loaded.project.model("fraud")).take(result.split.holdout)
    assert (Runtime(result.bundle.onnx).run(rows) == result.predicted).all()
    at_us = result.dataset.at_us
    assert at_us[result.split.fit].max() + shop.charged_back.horizon_us <= at_us[result.split.holdout].min()
    assert result.split.purged > 0
    assert len(result.split.fit) + len(result.split.holdout) + result.split.purged == len(result.dataset)
    assert result.evaluation.base == pytest.approx(result.dataset.truth[result.split.fit].mean())


def test_the_same_call_registers_the_same_version(loaded):
    first, second = (train(loaded, "fraud", created_at=NOW, promote="never") for _ in range(2))
    assert first.bundle.version == second.bundle.version
    assert first.decision is None
    with pytest.raises(NotFound):
        Registry(loaded.settings.registry_path).load("fraud")


def test_only_a_model_that_beats_the_baseline_becomes_the_first_champion(loaded):
    bad = train(with_model(loaded, overfitted), "fraud", created_at=NOW)
    assert not bad.decision.promoted
    assert "does not beat the constant baseline (skill -" in bad.decision.reason
    assert train(with_model(loaded, shallow), "fraud", created_at=NOW).decision.promoted


def overfitted():
    estimator = shop.make_estimator()
    trees = {"max_iter": 200, "learning_rate": 1.0, "min_samples_leaf": 1}
    return estimator.set_params(**{f"histgradientboostingclassifier__{name}": value for name, value in trees.items()})


def shallow():
    estimator = shop.make_estimator()
    return estimator.set_params(histgradientboostingclassifier__max_iter=2)


def test_the_gate_compares_both_on_the_same_rows_and_refuses_the_worse(loaded):
    registry = Registry(loaded.settings.registry_path)
    worse = train(with_model(loaded, shallow), "fraud", created_at=NOW, promote="always")
    better = train(loaded, "fraud", created_at=NOW)
    comparison = better.decision.comparison
    assert comparison.metric == "log_loss"
    assert comparison.rows == len(better.split.holdout)
    assert better.decision.champion == worse.bundle.version
    assert better.decision.promoted == (comparison.improvement.value >= 0)
    winner = registry.load("fraud").version
    loser = worse.bundle.version if winner == better.bundle.version else better.bundle.version
    decision = promote(loaded, "fraud", loser)
    assert not decision.promoted
    assert f"worse than champion {winner} on the same" in decision.reason
    assert registry.load("fraud").version == winner
    assert promote(loaded, "fraud", loser, force=True).promoted
    assert registry.load("fraud").version == loser
    assert "it is the champion already" in promote(loaded, "fraud", loser).reason


def test_a_champion_of_other_definitions_is_no_obstacle(loaded):
    train(loaded, "fraud", created_at=NOW, promote="always")
    fewer = hr.Model(
        "fraud",
        request=shop.payments,
        features=[shop.payments["amount"], shop.pair_history],
        label=shop.charged_back,
        estimator=lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
        task="binary",
        fold_request=True,
    )
    edited = LoadedProject(dataclasses.replace(loaded.project, models=(fewer,)), loaded.settings, loaded.root)
    old = Registry(loaded.settings.registry_path).load("fraud").version
    decision = train(edited, "fraud", created_at=NOW).decision
    assert decision.promoted
    assert decision.comparison is None
    assert f"champion {old} no longer fits the project's definitions" in decision.reason
    assert "trained on other definitions" in promote(edited, "fraud", old).reason


def test_a_dataset_without_rows_says_why(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model 'fraud': labelled rows are required .* none \(rows: 0, .*horizon open: 0"
    ):
        train(shop.project(tmp_path), "fraud", created_at=NOW)


def test_a_naive_time_of_creation_is_refused(loaded):
    with pytest.raises(ConfigError, match="created_at must name its zone, got 2025-02-01"):
        train(loaded, "fraud", created_at=datetime(2025, 2, 1))  # noqa: DTZ001


def test_answers_are_audited_bit_for_bit_at_their_batch_size(loaded, world):
    result = train(loaded, "fraud", created_at=NOW)
    runtime = Runtime(result.bundle.onnx)
    names = result.dataset.inputs(loaded.project.model("fraud"))

    def score(numeric, categorical):
        return runtime.run(Inputs(names.numeric_names, names.categorical_names, numeric, categorical))

    serving = shop.Serving(bundle=result.bundle.version, score=score)
    shop.play(world, serving)
    shop.log_predictions(loaded, serving.records)
    report = audit(loaded, answered=len(serving.records))
    assert report.ok, report.first
    assert report.outputs.exact == report.audited == len(serving.records)
    assert report.outputs.max_difference == 0.0
    assert np.ptp([np.frombuffer(r.output, "<f8")[0] for r in serving.records]) > 0.1


def test_a_wrong_answer_is_found_and_an_incomplete_batch_is_compared_within_tolerance(loaded, world):
    result = train(loaded, "fraud", created_at=NOW)
    runtime = Runtime(result.bundle.onnx)
    names = result.dataset.inputs(loaded.project.model("fraud"))
    serving = shop.Serving(
        bundle=result.bundle.version,
        score=lambda n, c: runtime.run(Inputs(names.numeric_names, names.categorical_names, n, c)),
    )
    shop.play(shop.World(world.payments[:200], []), serving)
    several = next(i for i, r in enumerate(serving.records) if r.batch_size > 1)
    records = [r for i, r in enumerate(serving.records) if i != several]
    size = serving.records[several].batch_size
    wrong = next(i for i, r in enumerate(records) if r.batch_size == 1)
    records[wrong] = dataclasses.replace(records[wrong], output=np.array([0.123], "<f8").tobytes())
    shop.log_predictions(loaded, records)
    report = audit(loaded)
    assert report.outputs.within == size - 1
    assert report.outputs.differences == 1
    assert (report.first[0].what, report.first[0].served) == ("(output)", 0.123)
