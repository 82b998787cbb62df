"""Array functions: the same bits at every place of every array, close to the truth, nulls kept."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import headrace as hr
import headrace.arrays

Floats = npt.NDArray[np.float64]
MILLION = 1_000_000
UNARY: dict[str, tuple[Callable[[Any], Floats], float, float]] = {
    "exp": (hr.exp, -750.0, 710.0),
    "expm1": (hr.expm1, -50.0, 710.0),
    "log": (hr.log, 1e-300, 1e6),
    "log1p": (hr.log1p, -0.999, 1e6),
    "sqrt": (hr.sqrt, 0.0, 1e6),
    "sin": (hr.sin, -1e6, 1e6),
    "cos": (hr.cos, -1e6, 1e6),
    "tanh": (hr.tanh, -25.0, 25.0),
    "pow": (lambda x: hr.pow(x, 2.7), 0.0, 1e6),
}
#: Units in the last place, against the processor's 64-bit fractions.
ERROR = {"tanh": 3.0}


def sample(name: str, n: int) -> Floats:
    """Numbers over the whole range, and as many near zero."""
    _, low, high = UNARY[name]
    rng = np.random.default_rng(hash_of(name))
    values = rng.uniform(low, high, n)
    values[::2] = np.clip(rng.normal(size=len(values[::2])) * 10.0 ** rng.integers(-8, 1, len(values[::2])), low, high)
    return values


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


@pytest.mark.parametrize("name", UNARY)
def test_a_million_values_have_the_bits_of_each_value_alone(name: str) -> None:
    function = UNARY[name][0]
    values = sample(name, MILLION)
    whole = function(values)
    # Other lengths, offsets, alignments and strides: each value stands at another place of another vector register.
    assert whole.tobytes() == np.concatenate([function(part) for part in np.array_split(values, 997)]).tobytes()
    assert whole[1:].tobytes() == function(values[1:]).tobytes()
    assert whole[::3].tobytes() == function(values[::3]).tobytes()
    assert whole[::-1].tobytes() == function(values[::-1]).tobytes()
    packed = np.frombuffer(b"\0" + values.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    assert not packed.flags.aligned
    assert whole.tobytes() == function(packed).tobytes()
    alone = np.array([function(values[i : i + 1])[0] for i in range(0, MILLION, 50)])
    assert whole[::50].tobytes() == alone.tobytes()


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs floats wider than float64 to compare with")
@pytest.mark.parametrize("name", [name for name in UNARY if name != "pow"])
def test_error_is_below_what_is_stated(name: str) -> None:
    function = UNARY[name][0]
    values = sample(name, 200_000)
    _check_error(function(values), getattr(np, name)(values.astype(np.longdouble)), ERROR.get(name, 1.0))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs floats wider than float64 to compare with")
@pytest.mark.parametrize(
    ("x", "y"), [((1e-5, 1e5), (-50, 50)), ((0.9, 1.1), (-5000, 5000)), ((1 - 1e-9, 1 + 1e-9), (-1e11, 1e11))], ids=str
)
def test_error_of_pow_is_below_one_unit(x: tuple[float, float], y: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    base, exponent = rng.uniform(*x, 200_000), rng.uniform(*y, 200_000)
    exact = np.power(base.astype(np.longdouble), exponent.astype(np.longdouble))
    _check_error(hr.pow(base, exponent), exact, 1.0)


def _check_error(found: Floats, exact: npt.NDArray[np.longdouble], units: float) -> None:
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float64)
    finite = np.isfinite(rounded)
    assert (np.isfinite(found) == finite).all()
    unit = np.spacing(np.abs(rounded[finite])).astype(np.longdouble)
    error = np.abs(found[finite].astype(np.longdouble) - exact[finite]) / unit
    assert finite.sum() > 100_000
    assert error.max() < units


SPECIAL = {
    "exp": [(0.0, 1.0), (math.inf, math.inf), (-math.inf, 0.0), (710.0, math.inf), (-746.0, 0.0), (-744.0, 1e-323)],
    "expm1": [(0.0, 0.0), (math.inf, math.inf), (-math.inf, -1.0), (-40.0, -1.0), (1e-300, 1e-300)],
    "log": [(1.0, 0.0), (0.0, -math.inf), (-1.0, math.nan), (math.inf, math.inf), (5e-324, -744.4400719213812)],
    "log1p": [(0.0, 0.0), (-1.0, -math.inf), (-2.0, math.nan), (math.inf, math.inf), (1e-300, 1e-300)],
    "sqrt": [(4.0, 2.0), (-1.0, math.nan), (math.inf, math.inf)],
    "sin": [(0.0, 0.0), (math.inf, math.nan), (1e7, math.nan), (1e-300, 1e-300)],
    "cos": [(0.0, 1.0), (-math.inf, math.nan), (1e7, math.nan)],
    "tanh": [(0.0, 0.0), (math.inf, 1.0), (-math.inf, -1.0), (1e-300, 1e-300)],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_ends_of_the_range_and_nulls(name: str) -> None:
    function = UNARY[name][0]
    for value, expected in [*SPECIAL[name], (math.nan, math.nan)]:
        np.testing.assert_array_equal(function(np.array([value])), [expected], err_msg=str(value))


POWERS = [
    (2.0, 10.0, 1024.0),
    (-2.0, 3.0, -8.0),
    (-2.0, 2.0, 4.0),
    (-2.0, 0.5, math.nan),
    (0.0, 2.0, 0.0),
    (0.0, -1.0, math.inf),
    (-0.0, -3.0, -math.inf),
    (5.0, 0.0, 1.0),
    (1.0, 1e300, 1.0),
    (-1.0, 1e300, 1.0),
    (2.0, 1024.0, math.inf),
    (2.0, 1023.0, 2.0**1023),
    (2.0, -1074.0, 5e-324),
    (2.0, -1080.0, 0.0),
    (5e-324, 0.5, 2.0**-537),
    (math.inf, -1.0, 0.0),
    (-math.inf, 3.0, -math.inf),
    (2.0, math.inf, math.inf),
    (0.5, math.inf, 0.0),
    (1.1, 1e300, math.inf),
    (math.nan, 0.0, math.nan),
    (1.0, math.nan, math.nan),
]


@pytest.mark.parametrize(("x", "y", "expected"), POWERS)
def test_powers_at_the_ends_of_the_range(x: float, y: float, expected: float) -> None:
    np.testing.assert_array_equal(hr.pow(np.array([x]), np.array([y])), [expected])


def test_whole_powers_of_whole_numbers_are_exact() -> None:
    base, exponent = np.meshgrid(np.arange(1.0, 20.0), np.arange(0.0, 12.0))
    expected = [float(int(b) ** int(e)) for b, e in zip(base.ravel(), exponent.ravel(), strict=True)]
    assert hr.pow(base, exponent).ravel().tolist() == expected


def test_numbers_broadcast_and_shapes_are_kept() -> None:
    grid = np.arange(6.0).reshape(2, 3)
    assert hr.exp(grid).shape == (2, 3)
    assert hr.pow(grid, 2.0).tolist() == (grid * grid).tolist()
    assert hr.exp(0.0).shape == ()
    assert hr.exp(np.array([0, 1])).dtype == np.float64


def test_minimum_and_maximum_keep_nulls_and_have_one_zero() -> None:
    x, y = np.array([1.0, np.nan, -0.0, 0.0]), np.array([2.0, 1.0, 0.0, -0.0])
    np.testing.assert_array_equal(hr.minimum(x, y), [1.0, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(hr.maximum(x, y), [2.0, np.nan, 0.0, 0.0])
    assert not np.signbit(hr.minimum(x, y)[2:]).any()


def test_where_and_is_null() -> None:
    x = np.array([1.0, np.nan])
    assert hr.where(hr.is_null(x), 0.0, x).tolist() == [1.0, 0.0]
    assert hr.is_null(np.array(["a", None], dtype=object)).tolist() == [False, True]
    assert hr.abs(np.array([-1.0])).tolist() == [1.0]


def test_bits_are_the_same_on_every_machine() -> None:
    """Pinned: these digests were computed once, and no processor, operating system or compiler may change them."""
    found = {}
    for name in UNARY:
        values = np.concatenate([np.linspace(*UNARY[name][1:], 1000), 1.0 / np.arange(1.0, 1000.0)])
        found[name] = hashlib.sha256(UNARY[name][0](values).tobytes()).hexdigest()[:12]
    assert found == PINNED


PINNED = {
    "cos": "6d944511f2a2",
    "exp": "cbb363205a1d",
    "expm1": "caef87960800",
    "log": "dc45dc8932ad",
    "log1p": "602730c8dc20",
    "pow": "ef360106c730",
    "sin": "2f7cfa2f7cb2",
    "sqrt": "b4854dbd961f",
    "tanh": "c74e93fed27b",
}


def uncompiled() -> types.ModuleType:
    """The same source run by the interpreter, which has no vector instructions and fuses nothing."""
    path = Path(headrace.arrays.__file__).parent / "kernel" / "elementary.py"
    module = types.ModuleType("uncompiled")
    source = path.read_text().replace("from headrace.kernel.compiling import entry, inner\n", "")
    vars(module).update(entry=lambda function: function, inner=lambda function: function)
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def test_compiler_neither_fuses_nor_reorders() -> None:
    plain = uncompiled()
    for name in UNARY:
        if name == "sqrt":
            continue
        values = sample(name, 1000)
        if name == "pow":
            expected = [plain.pow(value, 2.7) for value in values.tolist()]
        else:
            expected = [getattr(plain, name)(value) for value in values.tolist()]
        assert UNARY[name][0](values).tobytes() == np.array(expected, dtype=np.float64).tobytes(), name


def test_importing_the_package_loads_no_compiler_and_is_quick() -> None:
    code = (
        "import time, sys; t = time.process_time(); import numpy; n = time.process_time(); import headrace\n"
        "print('numba' in sys.modules, 'polars' in sys.modules, time.process_time() - n)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert {run[0] for run in runs} == {run[1] for run in runs} == {"False"}
    assert min(float(run[2]) for run in runs) < 0.3
