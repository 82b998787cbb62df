"""What is exported predicts what was fitted; what cannot be exported faithfully is refused."""

import numpy as np
import onnx
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from headrace.errors import ConfigError
from headrace_training.exporting import Runtime, convert, export
from headrace_training.fitting import Inputs, fit
from headrace_training.hist_gradient_boosting import round_down

NUMBERS, WORDS = ("delay", "distance", "count"), ("carrier", "origin")


def rows(seed: int, count: int, *, words: bool = True, unseen: bool = False) -> tuple[Inputs, np.ndarray]:
    """Inputs with missing values, few distinct values in one column, and an outcome that depends on all of them."""
    r = np.random.default_rng(seed)
    numeric = np.stack([r.normal(10, 30, count), r.gamma(2, 400, count), r.integers(0, 5, count)], axis=1).astype(
        np.float32
    )
    numeric[r.random(count) < 0.2, 0] = np.nan
    names = np.array(["AA", "UA", "DL", ""] + (["ZZ"] if unseen else []), object)
    categorical = np.stack([r.choice(names, count), r.choice(np.array(["JFK", "LGA"], object), count)], axis=1)
    lift = np.nan_to_num(numeric[:, 0]) / 30 + (categorical[:, 0] == "AA") + (numeric[:, 2] > 2)
    truth = (lift + r.normal(size=count) > 1.2).astype(float)
    if not words:
        return Inputs(NUMBERS, (), numeric, np.empty((count, 0), object)), truth
    return Inputs(NUMBERS, WORDS, numeric, categorical), truth


def columns(numbers, words):
    return ColumnTransformer([("numbers", numbers, list(NUMBERS)), ("words", words, list(WORDS))])


ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
one_hot = OneHotEncoder(handle_unknown="ignore")
scaled = make_pipeline(SimpleImputer(), StandardScaler())

CLASSIFIERS = {
    "boosted trees over missing values": lambda: make_pipeline(
        columns("passthrough", ordinal), HistGradientBoostingClassifier(max_iter=60, random_state=0)
    ),
    "logistic regression with imputation and scaling": lambda: make_pipeline(
        columns(scaled, one_hot), LogisticRegression()
    ),
    "gradient boosting": lambda: make_pipeline(
        columns(SimpleImputer(), one_hot), GradientBoostingClassifier(n_estimators=20, random_state=0)
    ),
    "a random forest": lambda: make_pipeline(
        columns(SimpleImputer(), ordinal), RandomForestClassifier(20, random_state=0)
    ),
    "a calibrated random forest": lambda: make_pipeline(
        columns(SimpleImputer(), ordinal),
        CalibratedClassifierCV(RandomForestClassifier(20, random_state=0), cv=3),
    ),
    "a selection that ignores columns": lambda: make_pipeline(
        ColumnTransformer([("one", SimpleImputer(), ["distance"])]), LogisticRegression()
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_predicts_the_same_in_onnx_also_for_unseen_words(name):
    inputs, truth = rows(0, 4000)
    fitted = fit(CLASSIFIERS[name], inputs, truth, "binary", model="late")
    judged, _ = rows(1, 3000, unseen=True)
    exported = export(fitted, judged, model="late")
    assert exported.max_difference < 1e-5
    assert exported.rows == 3000
    graph = onnx.load_from_string(exported.onnx).graph
    assert [(i.name, i.type.tensor_type.shape.dim[1].dim_value) for i in graph.input] == [
        ("numeric", 3),
        ("categorical", 2),
    ]
    assert [o.name for o in graph.output] == ["output"]
    assert (exported.names.numeric_input, exported.names.categorical_input) == ("numeric", "categorical")


@pytest.mark.parametrize(
    "make",
    [
        lambda: HistGradientBoostingRegressor(max_iter=40, random_state=0),
        lambda: HistGradientBoostingRegressor(max_iter=40, loss="poisson", random_state=0),
        lambda: make_pipeline(SimpleImputer(), RandomForestRegressor(20, random_state=0)),
        lambda: make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression()),
    ],
)
def test_a_regressor_over_numbers_needs_no_column_transformer(make):
    inputs, truth = rows(0, 3000, words=False)
    fitted = fit(make, inputs, 100 + 50 * truth, "regression", model="minutes")
    exported = export(fitted, rows(1, 2000, words=False)[0], model="minutes")
    assert exported.names.categorical_input is None
    assert Runtime(exported.onnx).run(inputs.take(np.arange(5))).shape == (5,)


def test_thresholds_round_down_so_that_no_value_crosses_its_split():
    """Values one float32 step apart around a split: rounding to nearest would move the upper one to the left.

    The midpoint of two neighbouring float32 values is not a float32; half of all midpoints round to the upper value.
    """
    low = np.arange(1, 120, dtype=np.float32) / 7
    high = np.nextafter(low, np.float32(np.inf))
    numeric = np.concatenate([low, high])[:, None]
    truth = np.concatenate([np.zeros(len(low)), np.ones(len(high))])
    inputs = Inputs(("x",), (), numeric, np.empty((len(numeric), 0), object))
    fitted = fit(
        lambda: HistGradientBoostingClassifier(max_iter=30, max_bins=255, min_samples_leaf=1, random_state=0),
        inputs, truth, "binary", model="edge",
    )  # fmt: skip
    thresholds = np.concatenate([p[0].nodes["num_threshold"] for p in fitted.estimator._predictors])
    assert (thresholds.astype(np.float32) > thresholds).any(), "the trap is not in the data"
    assert export(fitted, inputs, model="edge").max_difference < 1e-6


def test_rounding_down_is_the_largest_float32_below():
    r = np.random.default_rng(2)
    values = r.normal(size=5000) * 10.0 ** r.integers(-30, 30, 5000)
    down = round_down(values)
    assert (down.astype(float) <= values).all()
    assert (np.nextafter(down, np.float32(np.inf)).astype(float) > values).all()


def test_the_same_estimator_gives_the_same_bytes():
    inputs, truth = rows(0, 1000)
    make = CLASSIFIERS["boosted trees over missing values"]
    first, second = (convert(fit(make, inputs, truth, "binary", model="late"), inputs, model="late") for _ in range(2))
    assert first == second


def test_a_pipeline_that_onnx_computes_differently_is_refused():
    """skl2onnx calibrates the probabilities of boosted trees; scikit-learn calibrates their decision function."""
    inputs, truth = rows(0, 2000)

    def make():
        trees = HistGradientBoostingClassifier(max_iter=20, random_state=0)
        return make_pipeline(columns("passthrough", ordinal), CalibratedClassifierCV(trees, cv=3))

    fitted = fit(make, inputs, truth, "binary", model="late")
    message = (
        r"model 'late': ONNX and Python predictions must agree within 1e-05, but they differ by up to 0\.\d+ "
        r"\(\d+ of 2000 rows are over\).*avoid CalibratedClassifierCV.*declare a larger tolerance"
    )
    with pytest.raises(ConfigError, match=message):
        export(fitted, inputs, model="late")
    assert export(fitted, inputs, model="late", tolerance=1.0).max_difference > 0.01


def test_categorical_splits_are_refused_and_the_message_stays_short():
    inputs, truth = rows(0, 2000)

    def make():
        trees = HistGradientBoostingClassifier(max_iter=10, categorical_features=[3, 4], random_state=0)
        return make_pipeline(
            columns("passthrough", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)), trees
        )

    fitted = fit(make, inputs, truth, "binary", model="late")
    with pytest.raises(
        ConfigError, match=r"model 'late': .*conversion of Pipeline failed: splits over categories .*OneHotEncoder"
    ):
        convert(fitted, inputs, model="late")


def test_a_step_without_an_onnx_form_is_named():
    inputs, truth = rows(0, 500, words=False)
    make = lambda: make_pipeline(SimpleImputer(), FunctionTransformer(np.cbrt), LogisticRegression())  # noqa: E731
    fitted = fit(make, inputs, truth, "binary", model="late")
    with pytest.raises(
        ConfigError, match=r"needs an ONNX form, .* failed: .*FunctionTransformer.*; replace the step"
    ) as caught:
        convert(fitted, inputs, model="late")
    assert len(str(caught.value)) < 700


def test_text_that_is_not_encoded_is_refused_with_the_remedy():
    inputs, truth = rows(0, 100)
    with pytest.raises(
        ConfigError, match=r"could not be fitted on 100 rows × 5 columns \(delay, .*text must be encoded"
    ):
        fit(LogisticRegression, inputs, truth, "binary", model="late")


def test_a_label_with_one_class_is_refused():
    inputs, _ = rows(0, 10)
    with pytest.raises(ConfigError, match=r"a binary label needs both 0 and 1 .*, got \[0.0\]; choose a longer span"):
        fit(DummyClassifier, inputs, np.zeros(10), "binary", model="late")


def test_no_rows_are_refused():
    inputs, truth = rows(0, 0)
    with pytest.raises(ConfigError, match="rows to fit on are required, got none"):
        fit(DummyClassifier, inputs, truth, "binary", model="late")


def test_a_classifier_without_probabilities_is_refused():
    inputs, truth = rows(0, 50)
    with pytest.raises(ConfigError, match="needs an estimator with predict_proba, got LinearRegression"):
        fit(LinearRegression, inputs, truth, "binary", model="late")


def test_an_estimator_function_that_returns_something_else_is_refused():
    inputs, truth = rows(0, 50)
    with pytest.raises(ConfigError, match="must return an unfitted scikit-learn estimator, got dict"):
        fit(dict, inputs, truth, "binary", model="late")
