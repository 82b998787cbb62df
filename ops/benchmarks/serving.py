"""Predict: one row, 36 features of three views, one transform, gradient-boosted trees, over HTTP, against the floor.

The floor (``floor.py``) is an empty FastAPI route, one MGET and one run of the same graph, in the same run, on the same
core, asked by the same client. What Headrace adds to it: validation against the declared contract, window reads at the
moment of the request, the transform, and the prediction logged through Kafka. The server has one core, the client and the
store the other (where there are two). Rounds alternate, so that a slow minute of the machine slows both.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import redis

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace_schemas.bundles import Fingerprints, GraphNames, InputSpec, Manifest, ViewPin
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import LoadedProject, load_project
from headrace_schemas.stores.registry import Registry
from headrace_training.exporting import export
from headrace_training.fitting import Inputs, fit
from ops.benchmarks.http_load import Load
from ops.benchmarks.http_load import run as load
from ops.benchmarks.report import Row, options, publish, row
from ops.benchmarks.stream import services

HERE = Path(__file__).parent
NOW = 1_700_000_000_000_000
ENTITIES, EVENTS, BODIES = 2_000, 120_000, 500
CONCURRENCY = 32
UNSTEADY = 1.5


def main() -> int:
    chosen = options(__doc__ or "")
    rounds, seconds = (5, 1.5) if chosen.quick else (9, 3.0)
    with services() as environ, tempfile.TemporaryDirectory() as scratch:
        loaded = load_project(HERE / "predict", environ)
        model = loaded.project.model("risk")
        onnx = register(loaded, model)
        sizes = fill(loaded, model)
        graph = Path(scratch) / "model.onnx"
        graph.write_bytes(onnx)
        floor_environ = {**environ, "FLOOR_ONNX": str(graph), "FLOOR_REDIS": environ["HEADRACE_REDIS"]}
        ours = [sys.executable, "-m", "headrace_serving", "--project", str(HERE / "predict"), "--port"]
        floor = [sys.executable, "-m", "uvicorn", "ops.benchmarks.floor:app", "--loop", "uvloop", "--http", "httptools"]
        floor += ["--no-access-log", "--log-level", "warning", "--port"]
        with (
            server(ours, environ, "/health/live") as port,
            server(floor, floor_environ, "/docs") as floor_port,
        ):
            paths = {"headrace": (port, "/v1/models/risk/predict"), "floor": (floor_port, "/predict")}
            single = alternate(paths, rounds, seconds, connections=1)
            many = alternate(paths, rounds, seconds, connections=CONCURRENCY)
            logged = float(metric(port, "headrace_predictions_logged"))
            lost = sum(float(value) for value in metrics(port, "headrace_prediction_log_failures"))
    rows = compared("predict, 1 row, 36 features of 3 views, one at a time", single, 1.3)
    rates = {name: [each.per_second for each in found] for name, found in many.items()}
    what = f"predict, requests per second, {CONCURRENCY} connections, one server core"
    rows.append(row(what, rates["headrace"], "requests/s", reference=("floor", rates["floor"])))
    ratios = [a.p50_us / b.p50_us for a, b in zip(single["headrace"], single["floor"], strict=True)]
    publish(
        rows,
        chosen,
        [
            f"p50 ratio round by round: {', '.join(f'{each:.2f}' for each in ratios)}",
            *unsteady({"one at a time": single, f"{CONCURRENCY} connections": many}),
            f"states of {sizes.min()} to {sizes.max()} bytes, median {int(np.median(sizes))}",
            f"{logged:,.0f} predictions logged through Kafka meanwhile, {lost:,.0f} lost",
        ],
    )
    return 0


def compared(what: str, found: Mapping[str, list[Load]], most: float) -> list[Row]:
    """The rows for p50 and p99."""
    p50 = {name: [each.p50_us for each in loads] for name, loads in found.items()}
    p99 = {name: [each.p99_us for each in loads] for name, loads in found.items()}
    return [
        row(f"{what}, p50", p50["headrace"], "µs", reference=("floor", p50["floor"]), ratio_at_most=most),
        row(f"{what}, p99", p99["headrace"], "µs", reference=("floor", p99["floor"])),
    ]


def unsteady(found: Mapping[str, Mapping[str, list[Load]]]) -> list[str]:
    """A warning for each series whose rounds differ so much that its median is no measurement."""
    notes = []
    for how, series in found.items():
        for name, loads in series.items():
            rates = [each.per_second for each in loads]
            if max(rates) > UNSTEADY * min(rates):
                notes.append(
                    f"NOT STEADY: {name}, {how}: {min(rates):,.0f} to {max(rates):,.0f} requests/s over the rounds; "
                    f"do not use this ratio, measure again on a quiet machine"
                )
    return notes


def alternate(
    paths: Mapping[str, tuple[int, str]], rounds: int, seconds: float, *, connections: int
) -> dict[str, list[Load]]:
    """Ask both in turn, some rounds long."""
    rng = np.random.default_rng(3)
    bodies = [
        json.dumps({"payment_id": f"r{i}", "card": c, "merchant": f"m{m}", "device": f"d{d}", "amount": 12.5}).encode()
        for i, (c, m, d) in enumerate(rng.integers(0, ENTITIES, (BODIES, 3)).tolist())
    ]
    found: dict[str, list[Load]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, (port, path) in paths.items():
            done = load(port, path, bodies, connections=connections, seconds=seconds)
            if done.failed:
                raise SystemExit(f"{name}: {done.failed} requests failed")
            found[name].append(done)
    return found


def fill(loaded: LoadedProject, model: hr.Model) -> npt.NDArray[np.int64]:
    """Put states of every entity into Redis, and the floor's values beside them; the sizes of the states."""
    rng = np.random.default_rng(1)
    sizes: list[int] = []
    with redis.Redis.from_url(loaded.settings.redis) as client:
        views = [lookup.view for lookup in model.lookups] + [loaded.project.view("wide")]
        for view, prefix in zip(views, "cmdc", strict=True):
            # Half of all events belong to a tenth of the entities: both forms of state are read.
            entity = np.where(
                rng.random(EVENTS) < 0.5, rng.integers(0, ENTITIES // 10, EVENTS), rng.integers(0, ENTITIES, EVENTS)
            )
            times = np.sort(NOW - rng.integers(1, 7 * 86_400_000_000, EVENTS))
            layout = Layout.of(view)
            batch = kernel.prepare(
                layout,
                {"paid_at": times, "amount": rng.gamma(2.0, 30.0, EVENTS).round(2)},
                partition=np.zeros(EVENTS, np.int32),
                offset=np.arange(EVENTS),
                id_hash=np.arange(EVENTS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
            )
            updated = kernel.update(layout, kernel.States.empty(ENTITIES), batch, entity.astype(np.int32))
            keys = ViewKeys(loaded.settings.namespace, view)
            names = [i if prefix == "c" else f"{prefix}{i}" for i in range(ENTITIES)]
            states = updated.states.to_list()
            stored = {
                keys.locate(encode_key([name])): state for name, state in zip(names, states, strict=True) if state
            }
            client.mset(stored)
            sizes += [len(state) for state in stored.values()]
            values = rng.random((ENTITIES, 150)).astype(np.float32)
            client.mset({f"{prefix}:{name}": value.tobytes() for name, value in zip(names, values, strict=True)})
    return np.array(sizes)


def register(loaded: LoadedProject, model: hr.Model) -> bytes:
    """Fit trees on noise that has the shape of the features, and register them."""
    names = tuple(each.name for each in model.inputs)
    rng = np.random.default_rng(2)
    numeric = rng.gamma(2.0, 30.0, (20_000, len(names))).astype(np.float32)
    inputs = Inputs(names, (), numeric, np.empty((len(numeric), 0), object))
    truth = (numeric[:, 0] * rng.random(len(numeric)) > numeric[:, 5]).astype(np.float64)
    fitted = fit(model.estimator, inputs, truth, "binary", model=model.name)
    exported = export(fitted, inputs.take(np.arange(500)), model=model.name)
    manifest = Manifest(
        model=model.name,
        task="binary",
        fingerprints=Fingerprints(
            model=model.fingerprint,
            inputs=model.input_fingerprint,
            views={
                each.view.name: ViewPin(each.view.layout_fingerprint, each.view.finalizer_fingerprint)
                for each in model.lookups
            },
            transforms={each.name: each.fingerprint for each in model.transforms},
        ),
        inputs=tuple(InputSpec(each.name, each.kind, each.dtype) for each in model.inputs),
        onnx=GraphNames("numeric", None, "output"),
        metrics={},
        dataset={},
        onnx_max_difference=exported.max_difference,
        created_at="2024-01-01T00:00:00Z",
        software={},
    )
    Registry(loaded.settings.registry_path).register(model.name, exported.onnx, manifest, alias="champion")
    return exported.onnx


@contextmanager
def server(command: list[str], environ: Mapping[str, str], path: str) -> Iterator[int]:
    """A server on the first core, on a port of its own: on a fixed one a second run would measure the first one's server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, str(port)], env=dict(environ), stderr=subprocess.DEVNULL)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).raise_for_status()
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                break
        if process.poll() is not None:
            raise SystemExit(f"{command[2]} ended with {process.returncode}; whatever answers on port {port} is not it")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def metrics(port: int, name: str) -> list[str]:
    """The samples of a metric."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name)]


def metric(port: int, name: str) -> str:
    """The only sample of a metric."""
    (found,) = metrics(port, name)
    return found


if __name__ == "__main__":
    sys.exit(main())
