"""The service as a process of its own, on uvloop and httptools, with Kafka and Redis: start, load, loss, end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from headrace.errors import ConfigError
from headrace_ops.embedded import EmbeddedServer, store
from headrace_schemas.predictions import PredictionCodec, prediction_topic
from headrace_schemas.stores.kafka import TopicReader
from headrace_schemas.stores.registry import Registry
from headrace_serving import server
from tests.services import Services
from tests.serving.projects import NOW, PAYMENT, fold, folding, graph, loaded, manifest, of_cards, strict

ROOT = Path(__file__).parents[2]
PREDICT = "/v1/models/fraud/predict"


class Process:
    """A started service."""

    def __init__(self, project: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace_serving", "--project", str(project), "--port", "0"],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        self.lines: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """The log line of an event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line) if line.startswith("{") else {"message": line})
            if self.lines[-1].get("event") == event:
                return self.lines[-1]
        raise AssertionError(f"no {event!r} among {self.lines}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def project_directory(root: Path, services: Services, namespace: str, redis_url: str | None = None) -> Path:
    """A project directory whose definitions are those of `projects`, with registered bundles and some states."""
    (root / "features.py").write_text("from tests.serving.projects import folding, strict\n")
    url = redis_url or services.redis
    (root / "headrace.toml").write_text(
        f'[project]\nname = "shop"\nnamespace = "{namespace}"\n[kafka]\nbootstrap_servers = "{services.kafka}"\n'
        f'[redis]\nurl = "{url}"\n[registry]\npath = "registry"\n'
    )
    registry = Registry(root / "registry")
    for model in (folding, strict):
        registry.register(model.name, graph(model), manifest(model), alias="champion")
    past = [{**PAYMENT, "payment_id": f"e{n}", "card": n % 50, "paid_at": NOW - 1 - n} for n in range(500)]
    with redis.Redis.from_url(url) as client:
        client.mset(fold(of_cards, namespace, past))
    return root


@pytest.fixture
def running(services: Services, prefix: str, tmp_path: Path) -> Iterator[tuple[Process, str]]:
    process = Process(project_directory(tmp_path, services, prefix), {})
    try:
        yield process, process.wait_for("serving")["url"]
    finally:
        process.kill()


def test_two_hundred_at_once_are_answered_rightly_and_logged(
    running: tuple[Process, str], services: Services, prefix: str
) -> None:
    process, url = running

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20) as client:
            bodies = [{**PAYMENT, "payment_id": f"q{n}", "card": n % 60, "include": ["features"]} for n in range(1000)]
            gate = asyncio.Semaphore(200)

            async def one(body: dict[str, Any]) -> httpx.Response:
                async with gate:
                    answer = await client.post(PREDICT, json=body)
                    for _ in range(5):
                        if answer.status_code != 503:
                            break  # a machine on which 200 at once take longer than the deadline says so: try again
                        answer = await client.post(PREDICT, json=body)
                    return answer

            return await asyncio.gather(*(one(body) for body in bodies))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    predictions = [answer.json()["predictions"][0] for answer in answers]
    for number, prediction in enumerate(predictions):
        wanted = 11 if number % 60 < 50 else 1  # ten of each known card, and the request itself
        assert prediction["features"]["of_cards__payments_1h"]["value"] == wanted
    served = {each["prediction_id"] for each in predictions}
    assert len(served) == 1000
    assert process.stop() == 0
    assert process.wait_for("stopped")["message"] == "stopped"
    with TopicReader(services.kafka, prediction_topic(prefix)) as reader:
        logged = [PredictionCodec().decode(message.value() or b"") for message in reader.read_to_end()]
    assert {each.prediction_id for each in logged} == served
    assert len(logged) == 1000


def test_a_stop_finishes_what_is_in_flight(running: tuple[Process, str]) -> None:
    process, url = running
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(PAYMENT).encode()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:10])
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert process.process.wait(timeout=30) == 0


def test_a_body_that_never_ends_is_ended_by_the_deadline(running: tuple[Process, str]) -> None:
    _, url = running
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
        answer = b""
        while not answer.endswith(b"}}") and (part := connection.recv(65536)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the answer was not ready within 2 s; try again" in answer


def test_redis_may_die_and_come_back_while_serving(services: Services, prefix: str, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    first = EmbeddedServer(store.Store(), directory)
    url = first.start(timeout_s=20.0)
    port = int(url.split(":")[2].split("/")[0])
    (tmp_path / "project").mkdir()
    process = Process(project_directory(tmp_path / "project", services, prefix, url), {})
    try:
        with httpx.Client(base_url=process.wait_for("serving")["url"], timeout=10) as client:
            assert "defaulted" not in client.post(PREDICT, json=PAYMENT).json()["predictions"][0]
            first.stop()
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                answer = client.post(PREDICT, json=PAYMENT)
                assert answer.status_code == 200
                assert answer.json()["predictions"][0]["defaulted"] is True
                assert client.post("/v1/models/strict/predict", json=PAYMENT).status_code == 503
            assert client.get("/health/ready").json()["store"]["status"] == "lost"
            second = _store_on(port, directory)
            try:
                deadline = time.monotonic() + 10
                while "defaulted" in client.post(PREDICT, json=PAYMENT).json()["predictions"][0]:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert client.get("/health/ready").json()["store"]["status"] == "ok"
            finally:
                second.terminate()
                second.wait()
    finally:
        process.kill()


def _store_on(port: int, directory: Path) -> subprocess.Popen[bytes]:
    """Another store on the same port."""
    command = store.Store().command(port, directory)
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return started


def test_a_taken_port_is_an_error_that_says_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            server.bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"serving: it must listen on 127.0.0.1 port {port}, but another program listens there; free the port, or choose "
        "another one with --port, HEADRACE_PORT or [serving] port in headrace.toml"
    )


def test_the_fast_loop_and_parser_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uvloop and httptools cannot be imported; install them with `pip install"):
        server.require_engines()


def test_a_store_that_is_absent_at_the_start_ends_it_with_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_serving.stores.START_PATIENCE_S", 0.2)
    from headrace.errors import ServiceUnavailable
    from headrace_serving.stores import await_stores

    with pytest.raises(ServiceUnavailable, match="Redis at 127.0.0.1:1 does not answer") as caught:
        await_stores(loaded(tmp_path, "redis://127.0.0.1:1/0").settings, patience_s=0.2)
    assert caught.value.exit_code == 3
