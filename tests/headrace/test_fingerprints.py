"""Fingerprints change exactly when meaning changes."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import headrace as hr
from headrace import fingerprints
from headrace.fingerprints import canonical_function, digest
from tests.headrace.declared import airport, departures, excess, late, model, origin_view

PLAIN = """
import numpy as np
import headrace as hr

SCALE = 60.0
paid = hr.Event("paid", fields={"id": hr.string(), "at": hr.timestamp(), "card": hr.string(), "amount": hr.float64()},
                time="at", id="id")
fraud_found = hr.Event("fraud_found", fields={"id": hr.string(), "at": hr.timestamp()}, time="at")
card = hr.Entity("card", keys={"card": hr.string()})
spending = hr.FeatureView("spending", entity=card, event=paid,
    features={"n": hr.count().over("10m", "1h"), "mean": hr.mean("amount", where=hr.col("amount") > 1).over("1h")})

def scaled(x):
    return x / SCALE

@hr.on_demand(inputs={"amount": paid["amount"], "usual": spending["mean_1h"]})
def unusual(amount, usual):
    return np.where(usual > 0.0, amount / usual, 0.0) + scaled(amount)

fraud = hr.Label("fraud", fraud_found, join={"id": "id"}, value=hr.col("at").is_not_null(), horizon="7d", missing=0.0)

def estimator():
    return dict(depth=3)

risk = hr.Model("risk", request=paid, features=[spending, paid["amount"], unusual], label=fraud, estimator=estimator,
    task="binary", fold_request=True)
"""

# The same meaning: comments, formatting, descriptions, docstrings, annotations, order and place differ.
REWRITTEN = '''"""A project."""
import headrace as hr  # the core
import numpy as np


def estimator() -> object:
    """Three levels."""
    return dict(depth=3)  # not 4


card = hr.Entity("card", description="of plastic", keys={"card": hr.string(description="a token")})
fraud_found = hr.Event("fraud_found", time="at", fields={"id": hr.string(), "at": hr.timestamp()}, description="bad news")
paid = hr.Event(
    "paid",
    fields={
        "id": hr.string(),
        "at": hr.timestamp(),
        "card": hr.string(),
        "amount": hr.float64(description="in euro", quantum="0.0000010"),
    },
    time="at", id="id", description="a payment",
)
SCALE: float = 60.0

def scaled(x: object) -> object:
    # Minutes.
    return (x /
            SCALE)

spending = hr.FeatureView(
    "spending",
    description="what a card spends",
    event=paid,
    entity=card,
    keys={"card": "card"},
    features={"mean": hr.mean("amount", where=hr.col("amount") > 1.0).over("60m".replace("60m", "1h")), "n": hr.count().over("10m", "1h")},
    tolerance="0s", dedupe=16, lanes=16, version=1,
)
fraud = hr.Label("fraud", fraud_found, join={"id": "id"}, value=hr.col("at").is_not_null(), horizon="168h", missing=0)

@hr.on_demand(
    inputs={"usual": spending.lookup(card="card")["mean_1h"], "amount": paid["amount"]},
)
def unusual(amount, usual):
    """How unusual an amount is."""
    return np.where(
        usual > 0.0,
        amount / usual,
        0.0,
    ) + scaled(amount)
'''
MODEL = """
risk = hr.Model("risk", request=paid, features=[spending, paid["amount"], unusual], label=fraud, estimator=estimator,
    task="binary", fold_request=True, description="of fraud")
"""
_numbers = itertools.count()


def loaded(source: str, folder: Path) -> ModuleType:
    name = f"definitions_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_comments_formatting_descriptions_order_and_place_change_no_view_label_or_transform(tmp_path: Path) -> None:
    one, two = loaded(PLAIN, tmp_path), loaded(REWRITTEN, tmp_path)
    for part in ("layout_fingerprint", "finalizer_fingerprint", "fingerprint"):
        assert getattr(one.spending, part) == getattr(two.spending, part)
    assert one.fraud.fingerprint == two.fraud.fingerprint
    assert digest(one.paid.canonical()) == digest(two.paid.canonical())
    assert digest(canonical_function(one.estimator)) == digest(canonical_function(two.estimator))
    # The transform names its key here and leaves it to the default there.
    assert digest(one.unusual.canonical()["function"]) == digest(two.unusual.canonical()["function"])


def test_comments_formatting_descriptions_and_place_change_no_model(tmp_path: Path) -> None:
    ordered = REWRITTEN.replace(
        'features={"mean": hr.mean("amount", where=hr.col("amount") > 1.0).over("60m".replace("60m", "1h")), '
        '"n": hr.count().over("10m", "1h")}',
        'features={"n": hr.count().over("10m", "1h"), "mean": hr.mean("amount", where=hr.col("amount") > 1.0).over("1h")}',
    )
    assert ordered != REWRITTEN
    one, two = loaded(PLAIN, tmp_path), loaded(ordered + MODEL, tmp_path)
    assert one.risk.input_fingerprint == two.risk.input_fingerprint
    assert one.risk.fingerprint == two.risk.fingerprint


def test_order_of_a_views_features_is_the_order_of_a_models_inputs(tmp_path: Path) -> None:
    one, two = loaded(PLAIN, tmp_path), loaded(REWRITTEN + MODEL, tmp_path)
    assert one.spending.fingerprint == two.spending.fingerprint
    assert one.risk.input_fingerprint != two.risk.input_fingerprint


@pytest.mark.parametrize(
    "change",
    [
        ("SCALE = 60.0", "SCALE = 61.0"),
        ("return x / SCALE", "return x * SCALE"),
        ("usual > 0.0", "usual >= 0.0"),
        ("0.0) + scaled", "1.0) + scaled"),
        ("np.where(", "hr.where("),
        ('spending["mean_1h"]', 'spending["n_1h"]'),
    ],
    ids=str,
)
def test_changed_function_constant_or_input_changes_the_transform(change: tuple[str, str], tmp_path: Path) -> None:
    source = PLAIN.replace(*change)
    assert source != PLAIN
    one, two = loaded(PLAIN, tmp_path), loaded(source, tmp_path)
    assert one.unusual.fingerprint != two.unusual.fingerprint
    assert one.risk.input_fingerprint != two.risk.input_fingerprint
    assert one.spending.fingerprint == two.spending.fingerprint


def test_function_of_a_helper_module_is_part_of_the_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "import headrace as hr\nimport {0}\ndef f(x):\n    return [{0}.scaled(y) for y in x]\n"
    prints = []
    for name, body in (("helpers_a", "x * 2"), ("helpers_b", "x * 3"), ("helpers_c", "(x * 2)  # twice")):
        (tmp_path / f"{name}.py").write_text(
            f"def unrelated():\n    return '{name}'\ndef scaled(x):\n    return {body}\n"
        )
        uses = canonical_function(loaded(source.format(name), tmp_path).f)["uses"]  # type: ignore[index]
        prints.append(digest(uses[f"{name}.scaled"]))
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_two_lambdas_on_one_line_are_two_functions(tmp_path: Path) -> None:
    module = loaded("a, b = (lambda: dict(depth=3)), (lambda: dict(depth=4))\nc = lambda: dict(depth=4)\n", tmp_path)
    a, b, c = (digest(canonical_function(function)) for function in (module.a, module.b, module.c))
    assert a != b
    assert b == c


def test_default_argument_and_closure_are_part_of_the_meaning(tmp_path: Path) -> None:
    module = loaded(
        "def make(k):\n    def f(x):\n        return x * k\n    return f\n"
        "def d(x, k=1):\n    return x\ndef e(x, k=2):\n    return x\n",
        tmp_path,
    )
    assert digest(canonical_function(module.make(1))) != digest(canonical_function(module.make(2)))
    assert digest(canonical_function(module.make(1))) == digest(canonical_function(module.make(1)))
    assert canonical_function(module.d) != canonical_function(module.e)


def test_class_of_the_project_enters_with_its_body_and_one_of_a_library_with_its_name(tmp_path: Path) -> None:
    source = 'class A:\n    """{0}"""\n    def f(self):\n        """{0}"""\n        return {1}\n\ndef make():\n    return A()\n'
    versions = [loaded(source.format(*parts), tmp_path) for parts in (("one", 1), ("two", 1), ("one", 2))]
    made = [digest(canonical_function(module.make)) for module in versions]
    assert made[0] == made[1] != made[2]
    assert canonical_function(dict) == {"library": "builtins.dict"}


def test_project_installed_among_the_libraries_is_told_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "shop"
    installed.mkdir()
    monkeypatch.setattr(fingerprints, "_LIBRARY_PATHS", (str(tmp_path),))
    one, two = (loaded(f"def help(x):\n    return x * {k}\ndef f(x):\n    return help(x)\n", installed) for k in (1, 2))
    assert digest(canonical_function(one.f)) != digest(canonical_function(two.f))
    library = loaded("def g(x):\n    return x\n", tmp_path)
    vars(one)["help"] = library.g
    assert canonical_function(one.f)["uses"]["help"]["library"].endswith(".g")  # type: ignore[index]


def test_definition_that_a_function_uses_enters_without_its_place(tmp_path: Path) -> None:
    source = "import headrace as hr\n{0}e = hr.Entity('e', keys={{'k': hr.string()}})\ndef f():\n    return e\n"
    one, two = (loaded(source.format(lines), tmp_path) for lines in ("", "\n\n"))
    assert digest(canonical_function(one.f)) == digest(canonical_function(two.f))


def test_bound_arguments_are_part_of_the_meaning(tmp_path: Path) -> None:
    module = loaded(
        "from functools import partial\na, b, c = partial(dict, k=1), partial(dict, k=2), partial(dict, k=1)\n",
        tmp_path,
    )
    a, b, c = (digest(canonical_function(function)) for function in (module.a, module.b, module.c))
    assert a == c != b


def test_estimator_may_ask_its_own_model_for_its_inputs(tmp_path: Path) -> None:
    """An example's estimator read the names of its model's inputs, and the fingerprint never ended."""
    source = PLAIN.replace("return dict(depth=3)", "return dict(depth=3, inputs=[item.name for item in risk.inputs])")
    one, two = loaded(source, tmp_path), loaded("# moved\n" + source, tmp_path)
    other = loaded(source.replace("depth=3", "depth=4"), tmp_path)
    assert one.risk.fingerprint == two.risk.fingerprint != other.risk.fingerprint
    assert one.risk.input_fingerprint == other.risk.input_fingerprint


def test_recursive_function_has_a_fingerprint(tmp_path: Path) -> None:
    module = loaded("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\n", tmp_path)
    assert digest(canonical_function(module.f))


def test_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "definitions.py"
    path.write_text(PLAIN + "\nprint(spending.fingerprint, risk.fingerprint, risk.input_fingerprint)\n")
    runs = {
        subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


# What changes which fingerprint of a view: (layout, finalizers).
VIEW_CHANGES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "description": ({"description": "of origins"}, False, False),
    "lanes": ({"lanes": 32}, True, False),
    "version": ({"version": 2}, True, False),
    "dedupe": ({"dedupe": 0}, True, False),
    "tolerance": ({"tolerance": "1m"}, True, False),
    "tile": ({"tile": "10s"}, True, False),
    "where": ({"where": hr.col("distance") > 0}, True, False),
    "key": ({"keys": {"airport": "dest"}}, True, False),
    "topic": ({"event": departures(topic="other")}, True, False),
    "id": ({"event": departures(id=None)}, True, False),
    "description of the event": ({"event": departures(description="of planes")}, False, False),
    "description of the entity": ({"entity": airport(description="a place")}, False, False),
    "another feature's name": ({"features": {"flights": hr.count().over("30m", "3h")}}, False, True),
    "a default": (
        {"features": {"n": hr.count().over("30m", "3h").at(0).or_else(1.0), "m": hr.count().over("3h")}},
        False,
        True,
    ),
    "a further aggregation": (
        {"features": {"n": hr.count().over("30m", "3h"), "d": hr.max("dep_delay").over("3h")}},
        True,
        True,
    ),
    "a further window": ({"features": {"n": hr.count().over("30m", "3h", "24h")}}, True, True),
    "a filter": ({"features": {"n": hr.count(where=hr.col("charter")).over("30m", "3h")}}, True, True),
}


@pytest.mark.parametrize(("changes", "layout", "finalizers"), VIEW_CHANGES.values(), ids=VIEW_CHANGES)
def test_view_fingerprint_changes_in_the_half_that_is_meant(
    changes: dict[str, Any], layout: bool, finalizers: bool
) -> None:
    base = {"features": {"n": hr.count().over("30m", "3h")}}
    one, two = origin_view(**base), origin_view(**{**base, **changes})
    assert (one.layout_fingerprint != two.layout_fingerprint) == layout
    assert (one.finalizer_fingerprint != two.finalizer_fingerprint) == finalizers
    assert (one.fingerprint != two.fingerprint) == (layout or finalizers)


def test_quantum_of_an_aggregated_field_is_layout_and_of_another_is_not() -> None:
    def view(**quanta: str) -> hr.FeatureView:
        fields = dict(departures().fields)
        for name, quantum in quanta.items():
            fields[name] = hr.float64(nullable=True, quantum=quantum)
        return origin_view(event=departures(fields=fields), features={"d": hr.sum("dep_delay").over("1h")})

    assert view().layout_fingerprint != view(dep_delay="0.01").layout_fingerprint
    assert view(distance="1").layout_fingerprint == view(distance="0.01").layout_fingerprint


def test_fingerprints_are_sixteen_hex_characters() -> None:
    view = origin_view()
    for text in (view.layout_fingerprint, view.finalizer_fingerprint, view.fingerprint, model().fingerprint):
        assert len(text) == 16
        int(text, 16)


# What changes which fingerprint of a model: (inputs, whole).
MODEL_CHANGES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "description": ({"description": "of arrivals"}, False, False),
    "label": ({"label": late(horizon="12h")}, False, True),
    "task": ({"task": "regression"}, False, True),
    "on_unavailable": ({"on_unavailable": "defaults"}, False, True),
    "estimator": ({"estimator": lambda: 4}, False, True),
    "fold_request": ({"fold_request": True}, True, True),
    "order of inputs": ({"features": [departures()["distance"], origin_view()]}, True, True),
    "an input": ({"features": [origin_view()]}, True, True),
    "version of a view": ({"features": [origin_view(version=2), departures()["distance"]]}, True, True),
    "a transform": ({"features": [origin_view(), departures()["distance"], excess()]}, True, True),
}


@pytest.mark.parametrize(("changes", "inputs", "whole"), MODEL_CHANGES.values(), ids=MODEL_CHANGES)
def test_model_fingerprint_changes_in_the_part_that_is_meant(
    changes: dict[str, Any], inputs: bool, whole: bool
) -> None:
    base = {"features": [origin_view(), departures()["distance"]]}
    one, two = model(**base), model(**{**base, **changes})
    assert (one.input_fingerprint != two.input_fingerprint) == inputs
    assert (one.fingerprint != two.fingerprint) == whole


def test_further_feature_of_a_view_changes_no_model_that_does_not_read_it() -> None:
    wider = {"n": hr.count().over("3h"), "twice": 2 * hr.count().over("3h")}
    one = model(features=[origin_view(features={"n": hr.count().over("3h")}).lookup("n_3h")])
    two = model(features=[origin_view(features=wider).lookup("n_3h")])
    assert one.input_fingerprint == two.input_fingerprint


def test_known_fingerprints_stay_as_they_are() -> None:
    """A change here orphans every stored state and bundle: it needs a new state version, not a new expectation."""
    event = hr.Event("paid", fields={"at": hr.timestamp(), "card": hr.string(), "x": hr.float64()}, time="at")
    view = hr.FeatureView(
        "spending",
        entity=hr.Entity("card", keys={"card": hr.string()}),
        event=event,
        features={"n": hr.count().over("1h"), "mean": hr.mean("x").over("1h")},
    )
    assert (view.layout_fingerprint, view.finalizer_fingerprint) == ("f0f567e1538bf1d7", "d31de78413eb57ac")
