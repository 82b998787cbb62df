"""The inputs of a model: one row and many give the same bits, and nothing lands in another column."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import headrace as hr
from headrace.assembly import Assembled, assemble, lookup_columns, request_columns
from headrace.features import Node
from tests.headrace.declared import departures, model, origin_view

ROWS = 257


def request(n: int, seed: int = 7) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    delay = rng.normal(10, 30, n)
    delay[rng.random(n) < 0.1] = np.nan
    carrier = np.array([[None, "UA", "DL"][i] for i in rng.integers(0, 3, n)], dtype=object)
    return {
        "flight_id": np.array([f"f{i}" for i in range(n)], dtype=object),
        "origin": np.array(rng.choice(["JFK", "LGA"], n), dtype=object),
        "dest": np.array(rng.choice(["ORD", "SFO"], n), dtype=object),
        "departed_at": rng.integers(0, 2**50, n),
        "dep_delay": delay,
        "distance": rng.integers(0, 5000, n),
        "charter": rng.random(n) < 0.5,
        "carrier": carrier,
    }


def reads(found: hr.Model, n: int, seed: int = 8) -> list[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 100, (n, len(lookup.features))) for lookup in found.lookups]


def rich_model() -> hr.Model:
    view = origin_view()
    delay, at = departures()["dep_delay"], departures()["departed_at"]

    @hr.on_demand(inputs={"delay": delay, "usual": view["delay_3h"], "share": view["late_share"]})
    def excess(delay, usual, share):  # type: ignore[no-untyped-def]
        return hr.exp(hr.minimum(delay, 700.0) / 100.0) - usual * share

    @hr.on_demand(inputs={"at": at})
    def hour(at):  # type: ignore[no-untyped-def]
        return at // 3_600_000_000 % 24

    features = [
        departures()["carrier"],
        hour,
        view.lookup("since_last", "departures_30m"),
        departures()["charter"],
        view.lookup("delay_30m", "delay_3h", airport="dest", alias="dest"),
        excess,
        departures()["origin"],
        departures()["dep_delay"],
    ]
    return model(features=features)


def test_every_input_lands_in_its_column() -> None:
    found = rich_model()
    columns, lookups = request(ROWS), reads(found, ROWS)
    result = assemble(found, columns, lookups)
    by_name = {
        "origin_departures__since_last": lookups[0][:, found.lookups[0].features.index("since_last")],
        "origin_departures__departures_30m": lookups[0][:, found.lookups[0].features.index("departures_30m")],
        "dest__delay_30m": lookups[1][:, 0],
        "dest__delay_3h": lookups[1][:, 1],
        "charter": columns["charter"],
        "dep_delay": columns["dep_delay"],
        "hour": result.transforms[:, 0],
        "excess": result.transforms[:, 1],
    }
    numeric = [item.name for item in found.inputs if item.dtype == "float"]
    assert sorted(numeric) == sorted(by_name)
    for i, name in enumerate(numeric):
        np.testing.assert_array_equal(result.numeric[:, i], by_name[name].astype(np.float32), err_msg=name)
    assert [item.name for item in found.inputs if item.dtype == "string"] == ["carrier", "origin"]
    assert result.categorical[:, 1].tolist() == columns["origin"].tolist()
    assert result.categorical[:, 0].tolist() == [text or "" for text in columns["carrier"]]
    np.testing.assert_array_equal(result.transforms[:, 0], columns["departed_at"] // 3_600_000_000 % 24)


def test_result_has_the_types_that_the_graph_takes() -> None:
    found = rich_model()
    result = assemble(found, request(3), reads(found, 3))
    assert result.numeric.dtype == np.float32
    assert result.numeric.flags.c_contiguous
    assert result.categorical.dtype == object
    assert result.transforms.dtype == np.float64


def test_one_row_gives_the_bits_of_that_row_among_many() -> None:
    found = rich_model()
    columns, lookups = request(ROWS), reads(found, ROWS)
    whole = assemble(found, columns, lookups)
    for i in range(ROWS):
        single = assemble(
            found, {name: column[i : i + 1] for name, column in columns.items()}, [read[i : i + 1] for read in lookups]
        )
        assert single.numeric.tobytes() == whole.numeric[i : i + 1].tobytes()
        assert single.transforms.tobytes() == whole.transforms[i : i + 1].tobytes()
        assert single.categorical.tolist() == whole.categorical[i : i + 1].tolist()


def test_assembling_changes_neither_request_nor_lookups() -> None:
    found = rich_model()
    columns, lookups = request(50), reads(found, 50)
    before = [repr(columns), *(read.tobytes() for read in lookups)]
    assemble(found, columns, lookups)
    assert [repr(columns), *(read.tobytes() for read in lookups)] == before
    # The arrays stay the caller's own to write to.
    columns["dep_delay"][0] = 1.0
    lookups[0][0, 0] = 1.0


def single_transform(function: Any, **inputs: Any) -> hr.Model:
    transform = hr.on_demand(inputs=inputs or {"x": departures()["dep_delay"]})(function)
    return model(features=[transform])


def of(found: hr.Model, **columns: npt.NDArray[Any]) -> Assembled:
    n = len(next(iter(columns.values())))
    return assemble(found, {**request(n), **columns}, reads(found, n))


def test_infinite_result_is_null() -> None:
    def inverse(x):  # type: ignore[no-untyped-def]
        return 1.0 / x

    result = of(single_transform(inverse), dep_delay=np.array([2.0, 0.0, np.nan]))
    np.testing.assert_array_equal(result.transforms[:, 0], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(result.numeric[:, 0], [0.5, np.nan, np.nan])


def test_number_too_large_for_float32_is_null() -> None:
    result = of(model(features=[departures()["dep_delay"]]), dep_delay=np.array([1e300, -1e300, 1e30]))
    np.testing.assert_array_equal(result.numeric[:, 0], np.array([np.nan, np.nan, 1e30], dtype=np.float32))


def test_transform_cannot_write_into_its_arguments() -> None:
    def careless(x):  # type: ignore[no-untyped-def]
        x += 1.0
        return x

    with pytest.raises(ValueError, match="read-only") as caught:
        of(single_transform(careless), dep_delay=np.array([1.0]))
    assert caught.value.__notes__ == [
        f"in on-demand transform 'careless' ({hr.Location(__file__, _line_of_declaration())})"
    ]


def _line_of_declaration() -> int:
    code = single_transform.__code__
    return code.co_firstlineno + 1


def constant(x):  # type: ignore[no-untyped-def]
    return 1.0


def shorter(x):  # type: ignore[no-untyped-def]
    return x[:1]


def texts(x):  # type: ignore[no-untyped-def]
    return np.array(["a"] * len(x))


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (constant, "float"),
        (shorter, r"an array of shape \(1,\) and type float64"),
        (texts, r"an array of shape \(2,\) and type <U1"),
    ],
)
def test_transform_gives_one_number_for_each_row(function: Any, got: str) -> None:
    message = f"field '{function.__name__}': required one array of numbers, one for each of 2 rows, from the transform, got {got}"
    with pytest.raises(hr.ContractError, match=message):
        of(single_transform(function), dep_delay=np.array([1.0, 2.0]))


def test_transform_sees_the_types_of_its_event_wherever_the_request_comes_from() -> None:
    seen: dict[str, Any] = {}

    def look(at, delay, flag, text):  # type: ignore[no-untyped-def]
        seen.update(at=at.dtype, delay=delay.dtype, flag=flag.dtype, text=text.dtype)
        return delay

    event = departures()
    found = single_transform(
        look, at=event["departed_at"], delay=event["dep_delay"], flag=event["charter"], text=event["origin"]
    )
    row = {"origin": "JFK", "departed_at": 5, "dep_delay": 1.0, "charter": True}
    assemble(found, request_columns(event, [row], found.request_fields), [])
    assert seen == {"at": np.int64, "delay": np.float64, "flag": np.bool_, "text": np.dtype(object)}


def test_lookup_columns_pick_the_features_out_of_a_read() -> None:
    found = rich_model()
    names = found.lookups[0].view.feature_names
    everything = np.arange(float(len(names)))[None, :]
    for i, lookup in enumerate(found.lookups):
        picked = everything[:, lookup_columns(found, i)]
        assert [names[int(position)] for position in picked[0]] == list(lookup.features)


def test_whole_view_is_picked_without_a_copy() -> None:
    found = model(features=[origin_view()])
    everything = np.zeros((2, len(origin_view().feature_names)))
    assert everything[:, lookup_columns(found, 0)].base is everything


def test_model_without_lookups_or_numbers_has_empty_blocks() -> None:
    result = assemble(model(features=[departures()["origin"]]), request(2), [])
    assert result.numeric.shape == (2, 0)
    assert result.categorical.shape == (2, 1)
    assert result.transforms.shape == (2, 0)


def test_no_rows_give_no_rows() -> None:
    found = rich_model()
    result = assemble(found, request(0), reads(found, 0))
    assert (result.numeric.shape, result.categorical.shape) == ((0, 8), (0, 2))


def test_one_row_of_36_features_and_a_transform_is_assembled_in_microseconds() -> None:
    windows = ("10m", "1h", "3h", "24h")
    features: dict[str, Node] = {f"n{i}": hr.max("dep_delay").over(*windows) for i in range(9)}
    view = origin_view(features=features)

    @hr.on_demand(inputs={"delay": departures()["dep_delay"], "usual": view["n0_1h"]})
    def excess(delay, usual):  # type: ignore[no-untyped-def]
        return delay - usual

    found = model(features=[view, excess])
    columns, lookups = request(1), reads(found, 1)
    best = np.inf
    for _ in range(500):
        begin = time.perf_counter()
        assemble(found, columns, lookups)
        best = min(best, time.perf_counter() - begin)
    print(f"assemble, 1 row, 36 features, 1 transform: {best * 1e6:.1f} µs at best")
    assert best < 200e-6  # 50 µs is the target; a loaded machine gets room
