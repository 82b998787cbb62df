"""Serving: Headrace, the floor, and the peers' servers, each on one core, asked by the same client on the other.

    predict   one row, 36 features of 3 views, one transform, trees of 200 × depth 6. Headrace reads its windows, computes, predicts and logs;
              the floor is an empty FastAPI route, one MGET and one run of the same graph (``ops.benchmarks.floor``).
              Feast's feature server reads the same number of values of the same entities from the same Redis, and predicts nothing.
              MLServer and BentoML run the same graph, and look nothing up: their features come with the request.
    features  100 entities × 50 features: Headrace computes them from windows, Feast reads them.

Latencies are open-loop: requests fall due at a fixed rate, and a latency counts from that moment. Throughput is closed-loop with 16
connections. Rounds are interleaved.

    python -m ops.benchmarks.peers.serving [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from headrace_schemas.loading import load_project
from ops.benchmarks.http_load import Load
from ops.benchmarks.http_load import run as load
from ops.benchmarks.peers.drawing import draw_bars
from ops.benchmarks.peers.environments import Missing, PythonEnvironment, pinning
from ops.benchmarks.report import machine, number, options
from ops.benchmarks.serving import ENTITIES, NOW, fill, register, server
from ops.benchmarks.stream import services

HERE = Path(__file__).parent
PROJECT = HERE.parent / "predict"
PROGRAMS = HERE / "python"
INPUTS, BODIES, CONNECTIONS = 38, 200, 16
WIDE = "features, 100 entities × 50"

FEAST = PythonEnvironment("feast", ("feast[redis]",), "feast")
MLSERVER = PythonEnvironment("mlserver", ("mlserver", "onnxruntime", "uvloop<0.22"), "mlserver")
BENTO = PythonEnvironment("bento", ("bentoml", "onnxruntime", "numpy"), "bentoml")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is running.

    Args:
        name: for the table.
        port: where it listens.
        path: what is asked.
        bodies: of requests, by rows.
        does: what an answer of it contains.
        asks: what is asked, where it is no prediction.
    """

    name: str
    port: int
    path: str
    bodies: Mapping[int, list[bytes]]
    does: str
    asks: str = ""


@dataclass(slots=True)
class Series:
    """What was measured of a server."""

    name: str
    what: str
    does: str
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    skipped: str = ""

    def add(self, latency: Load | None = None, throughput: Load | None = None) -> None:
        """One round more."""
        if latency is not None:
            self.p50_ms.append(latency.p50_us / 1000)
            self.p99_ms.append(latency.p99_us / 1000)
        if throughput is not None:
            self.per_second.append(throughput.per_second)


def main() -> int:
    """Measure."""
    chosen = options(__doc__ or "")
    rounds, seconds = (1, 1.5) if chosen.quick else (3, 2.0)
    versions, absent = {}, {}
    for environment in (FEAST, MLSERVER, BENTO):
        try:
            versions[environment.name] = environment.make()
        except Missing as missing:
            absent[environment.name] = str(missing)
    with services() as environ, tempfile.TemporaryDirectory() as directory, ExitStack() as running:
        scratch = Path(directory)
        loaded = load_project(PROJECT, environ)
        model = loaded.project.model("risk")
        graph = scratch / "model.onnx"
        graph.write_bytes(register(loaded, model))
        sizes = fill(loaded, model)
        feast_bytes: dict[str, float] = {}
        servers = [one for each in (headrace(environ), floor(environ, graph)) for one in running.enter_context(each)]
        for environment, start in ((FEAST, feast), (MLSERVER, mlserver), (BENTO, bento)):
            if environment.name in absent:
                continue
            try:
                servers.extend(running.enter_context(start(environ, graph, scratch / environment.name, feast_bytes)))
            except Exception as error:  # noqa: BLE001  (a peer that does not start is a row that says so)
                absent[environment.name] = f"{type(error).__name__}: {error}"[:300]
        series = measure(servers, rounds, seconds)
        series += [Series(name, "predict, 1 row", "", skipped=reason) for name, reason in absent.items()]
    report = {"machine": machine(), "versions": versions, "rounds": rounds, "results": [asdict(one) for one in series],
              "bytes_per_entity": {"feast": feast_bytes, "headrace_median": float(np.median(sizes))}}  # fmt: skip
    print(table(series))
    print(
        f"\nBytes of Redis: Feast {feast_bytes}; Headrace's states {sizes.min()} to {sizes.max()}, median {int(np.median(sizes))}"
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"rows": [], "serving": report}, indent=1))
    if not chosen.quick:
        target = HERE.parent / "measured"
        target.mkdir(exist_ok=True)
        (target / "serving.json").write_text(json.dumps(report, indent=1) + "\n")
        bars = [
            (f"{one.name}, {one.what}", {"p50": median(one.p50_ms), "p99": median(one.p99_ms)})
            for one in series
            if one.p50_ms
        ]
        draw_bars(target / "serving.svg", "Latency of an answer, ms, open loop", bars, " ms")
    return 0


def measure(servers: Sequence[Server], rounds: int, seconds: float) -> list[Series]:
    """All servers, round after round."""
    found: dict[tuple[str, str], Series] = {}
    for turn in range(rounds):
        for one in servers:
            print(f"\rround {turn + 1} of {rounds}: {one.name}{' ' * 30}", end="", file=sys.stderr, flush=True)
            for rows, bodies in one.bodies.items():
                what = one.asks or f"predict, {rows} row{'s' if rows > 1 else ''}"
                series = found.setdefault((one.name, what), Series(one.name, what, one.does))
                rate = 200.0 if rows == 1 else 20.0
                latency = load(one.port, one.path, bodies, connections=CONNECTIONS, seconds=seconds, rate=rate)
                throughput = load(one.port, one.path, bodies, connections=CONNECTIONS, seconds=seconds)
                if latency.failed or throughput.failed:
                    series.skipped = f"{latency.failed + throughput.failed} requests failed"
                series.add(latency, throughput)
    print(file=sys.stderr)
    return list(found.values())


# --- the servers ---------------------------------------------------------------------------------------------------------


def _keys() -> np.ndarray:
    return np.random.default_rng(3).integers(0, ENTITIES, (BODIES, 100, 3))


@contextmanager
def headrace(environ: Mapping[str, str]) -> Iterator[list[Server]]:
    """Headrace's service."""
    command = [sys.executable, "-m", "headrace_serving", "--project", str(PROJECT), "--port"]
    bodies = {}
    for rows in (1, 10, 100):
        asked = [
            [{"payment_id": f"r{i}-{j}", "card": c, "merchant": f"m{m}", "device": f"d{d}", "amount": 12.5} for j, (c, m, d) in enumerate(one[:rows])]
            for i, one in enumerate(_keys().tolist())
        ]  # fmt: skip
        bodies[rows] = [json.dumps(one[0] if rows == 1 else {"rows": one}).encode() for one in asked]
    with server(command, environ, "/health/live") as port:
        wide = [
            json.dumps({"view": "wide", "at": NOW, "keys": [{"card": c} for c in one]}).encode()
            for one in _keys()[:, :, 0].tolist()
        ]
        yield [
            Server("Headrace", port, "/v1/models/risk/predict", bodies, "features, transform, prediction, log"),
            Server("Headrace", port, "/v1/features", {100: wide}, "values computed from windows", WIDE),
        ]


@contextmanager
def floor(environ: Mapping[str, str], graph: Path) -> Iterator[list[Server]]:
    """The floor: the least that a prediction costs."""
    command = [sys.executable, "-m", "uvicorn", "ops.benchmarks.floor:app", "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning", "--port"]
    bodies = [
        json.dumps({"card": c, "merchant": f"m{m}", "device": f"d{d}", "amount": 12.5}).encode()
        for c, m, d in _keys()[:, 0].tolist()
    ]
    with server(
        command, {**environ, "FLOOR_ONNX": str(graph), "FLOOR_REDIS": environ["HEADRACE_REDIS"]}, "/docs"
    ) as port:
        yield [Server("floor", port, "/predict", {1: bodies}, "empty route, one MGET, one run of the graph")]


@contextmanager
def feast(environ: Mapping[str, str], graph: Path, scratch: Path, sizes: dict[str, float]) -> Iterator[list[Server]]:
    """Feast's feature server on the same Redis."""
    del graph
    scratch.mkdir()
    host, port = environ["HEADRACE_REDIS"].removeprefix("redis://").split("/")[0].split(":")
    env = {"PATH": os.environ["PATH"], "HOME": str(scratch), "PEER_SCRATCH": str(scratch), "PEER_REDIS_HOST": host,
           "PEER_REDIS_PORT": port, "PEER_ENTITIES": str(ENTITIES), "FEAST_USAGE": "False"}  # fmt: skip
    done = subprocess.run(
        FEAST.command(PROGRAMS / "feast_contender.py", "fill"),
        env=env,
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"it could not be filled: {done.stderr[-300:]}")
    sizes |= json.loads(done.stdout.splitlines()[-1])["bytes_per_entity"]
    features = [f"{view}:{view}_f{i}" for view in ("cards", "merchants", "devices") for i in range(12)]
    bodies = [
        json.dumps(
            {"features": features, "entities": {"card": [c], "merchant": [f"m{m}"], "device": [f"d{d}"]}}
        ).encode()
        for c, m, d in _keys()[:, 0].tolist()
    ]
    fifty = [f"wide:wide_f{i}" for i in range(50)]
    wide = [json.dumps({"features": fifty, "entities": {"card": one}}).encode() for one in _keys()[:, :, 0].tolist()]
    command = [
        str(FEAST.python.with_name("feast")),
        "-c",
        str(scratch),
        "serve",
        "-w",
        "1",
        "--no-access-log",
        "--max-requests",
        "0",
        "-h",
        "127.0.0.1",
        "-p",
    ]
    with server(command, env, "/health") as found:
        yield [
            Server("Feast", found, "/get-online-features", {1: bodies}, "36 final values", "36 features of 3 entities"),
            Server("Feast", found, "/get-online-features", {100: wide}, "final values", WIDE),
        ]


@contextmanager
def mlserver(environ: Mapping[str, str], graph: Path, scratch: Path, sizes: dict[str, float]) -> Iterator[list[Server]]:
    """MLServer with the same graph."""
    del environ, sizes
    scratch.mkdir()
    (scratch / "mlserver_contender.py").write_text((PROGRAMS / "mlserver_contender.py").read_text())
    (scratch / "model-settings.json").write_text(
        json.dumps({"name": "risk", "implementation": "mlserver_contender.Risk"})
    )
    ports = [_free_port() for _ in range(3)]
    names = ("http_port", "grpc_port", "metrics_port")
    (scratch / "settings.json").write_text(
        json.dumps({"parallel_workers": 0, "host": "127.0.0.1", **dict(zip(names, ports, strict=True))})
    )
    bodies = {
        rows: [
            json.dumps(
                {"inputs": [{"name": "x", "shape": [rows, INPUTS], "datatype": "FP32", "data": x.ravel().tolist()}]}
            ).encode()
            for x in _rows(rows)
        ]
        for rows in (1, 10, 100)
    }
    env = {"PATH": os.environ["PATH"], "HOME": str(scratch), "PEER_ONNX": str(graph), "PYTHONPATH": str(scratch)}
    # MLServer takes its port from its settings; `server` would append one.
    command = ["sh", "-c", f"exec {MLSERVER.python.with_name('mlserver')} start {scratch}", "mlserver"]
    with fixed_server(command, env, ports[0], "/v2/health/ready"):
        yield [Server("MLServer", ports[0], "/v2/models/risk/infer", bodies, "prediction; features in the request")]


@contextmanager
def bento(environ: Mapping[str, str], graph: Path, scratch: Path, sizes: dict[str, float]) -> Iterator[list[Server]]:
    """BentoML with the same graph."""
    del environ, sizes
    scratch.mkdir()
    (scratch / "bento_contender.py").write_text((PROGRAMS / "bento_contender.py").read_text())
    port = _free_port()
    bodies = {rows: [json.dumps({"x": x.tolist()}).encode() for x in _rows(rows)] for rows in (1, 10, 100)}
    env = {
        "PATH": f"{BENTO.python.parent}:{os.environ['PATH']}",
        "HOME": str(scratch),
        "PEER_ONNX": str(graph),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    start = f"cd {scratch} && exec {BENTO.python.with_name('bentoml')} serve bento_contender:Risk --host 127.0.0.1 --port {port}"
    with fixed_server(["sh", "-c", start, "bentoml"], env, port, "/readyz"):
        yield [Server("BentoML", port, "/predict", bodies, "prediction; features in the request")]


def _rows(rows: int) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.gamma(2.0, 30.0, (rows, INPUTS)).astype(np.float32).round(2) for _ in range(BODIES)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def fixed_server(command: list[str], env: Mapping[str, str], port: int, path: str) -> Iterator[None]:
    """A server that takes its port from elsewhere, on the first core, with all its children."""
    process = subprocess.Popen(
        [*pinning(), *command],
        env=dict(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)


# --- the table -----------------------------------------------------------------------------------------------------------


def table(series: Sequence[Series]) -> str:
    """Everything that was measured, beside Headrace's own row of the same kind."""
    lines = [
        "| server | what | an answer holds | p50 | p99 | requests/s, 16 connections | Headrace's p50 is | Headrace answers |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    own = {one.what: one for one in series if one.name == "Headrace"}
    own["36 features of 3 entities"] = own["predict, 1 row"]  # Headrace's row looks them up, and predicts
    for one in series:
        if one.skipped:
            lines.append(f"| {one.name} | {one.what} | skipped: {one.skipped} | | | | | |")
            continue
        mine = own.get(one.what)
        times = faster = ""
        if mine is not None and mine is not one:
            times = f"{median(mine.p50_ms) / median(one.p50_ms):.2f} × this"
            faster = f"{median(mine.per_second) / median(one.per_second):.1f} × as many"
        lines.append(
            f"| {one.name} | {one.what} | {one.does} | {number(median(one.p50_ms))} ms | {number(median(one.p99_ms))} ms | "
            f"{number(median(one.per_second))} | {times} | {faster} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
