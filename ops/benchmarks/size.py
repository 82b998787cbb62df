"""Start and size: what it takes to import, to start, to lie there, and to keep an entity.

python -m ops.benchmarks.size [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import redis
from packaging.requirements import Requirement

from headrace import kernel
from headrace.layout import Layout
from headrace_ops.processes import spawn_module
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import load_project
from headrace_schemas.stores import kafka, online
from ops.benchmarks.report import Row, options, publish, row
from ops.benchmarks.serving import NOW, server
from ops.benchmarks.stream import services

HERE = Path(__file__).parent
FEAST_BYTES = 875  # for 36 final values of an entity, as `python -m ops.benchmarks.peers.serving` prints them
_SAMPLE = 200  # keys whose memory is asked for
QUIET_EVENTS = 10


def main() -> int:
    """Measure."""
    chosen = options(__doc__ or "")
    rounds = 3 if chosen.quick else 7
    bare = [_timed([sys.executable, "-c", "pass"]) for _ in range(rounds)]
    imported = [_timed([sys.executable, "-c", "import headrace"]) for _ in range(rounds)]
    helped = [_timed([str(Path(sys.executable).with_name("headrace")), "--help"]) for _ in range(rounds)]
    rows = [
        row("import headrace", imported, "s", reference=("bare Python", bare), at_most=0.3),
        row("headrace --help", helped, "s", reference=("bare Python", bare)),
        *memory(),
        *bytes_per_entity(),
        *[
            row(f"installed size of headrace[{extra}], with everything that it needs", [size_mb(extra)], "MB")
            for extra in ("streams", "serving", "training")
        ],
    ]
    publish(rows, chosen)
    return 0


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def memory() -> list[Row]:
    """Resident memory of an idle worker of three views and of an idle service."""
    with services() as environ:
        environ |= {"HEADRACE_NAMESPACE": "size"}
        loaded = load_project(HERE / "payments", environ)
        kafka.ensure_topics(loaded.settings.kafka, {event.topic: 4 for event in loaded.project.events})
        arguments = ["--project", str(loaded.root), "--role", "stream"]
        worker = spawn_module(
            "stream", "headrace_streams", arguments, log=Path(environ["HEADRACE_RUN_PATH"]) / "size.log", env=environ
        )
        try:
            while '"claimed"' not in worker.log_tail():
                time.sleep(0.1)
                if not worker.alive():
                    raise SystemExit(worker.log_tail())
            stream_mb = _resident_mb(worker.pid)
        finally:
            worker.stop()
        command = [sys.executable, "-m", "headrace_serving", "--project", str(HERE / "payments"), "--port"]
        with server(command, environ, "/health/live") as port:
            service_mb = _resident_mb(_listening(port))
    return [
        row("resident memory of an idle worker", [stream_mb], "MB"),
        row("resident memory of an idle service", [service_mb], "MB"),
    ]


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _listening(port: int) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"headrace_serving" in words and str(port).encode() in words:
            return int(process.name)
    return os.getpid()


def bytes_per_entity(entities: int = 1_000) -> list[Row]:
    """What Redis takes for an entity of three views with 36 features, quiet and busy."""
    found = {}
    with services() as environ:
        loaded = load_project(HERE / "predict", environ)
        views = [lookup.view for lookup in loaded.project.model("risk").lookups]
        client = redis.Redis.from_url(loaded.settings.redis)
        for name, each in (("quiet", QUIET_EVENTS), ("busy", 200)):
            client.flushall()
            found[name] = 0.0
            for view in views:
                states = _states(view, ViewKeys(loaded.settings.namespace, view), entities, each)
                client.mset(states)
                found[name] += float(np.mean([client.memory_usage(key) for key in list(states)[:_SAMPLE]]))
        client.close()
    return [
        row(f"Redis, an entity with {QUIET_EVENTS} retained events in each of 3 views of 12 features", [found["quiet"]], "bytes",
            reference=("Feast, 36 final values", [FEAST_BYTES]), at_most=FEAST_BYTES),
        row("Redis, an entity with 200 events in a week in each of 3 views", [found["busy"]], "bytes", at_most=4096 * 3),
    ]  # fmt: skip


def _states(view, keys: ViewKeys, count: int, each: int) -> dict[bytes, bytes]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    total = count * each
    layout = Layout.of(view)
    batch = kernel.prepare(
        layout,
        {"paid_at": np.sort(NOW - rng.integers(1, 7 * 86_400_000_000, total)), "amount": rng.gamma(2.0, 30.0, total).round(2)},
        partition=np.zeros(total, np.int32), offset=np.arange(total), id_hash=np.arange(total, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
    )  # fmt: skip
    updated = kernel.update(layout, kernel.States.empty(count), batch, np.tile(np.arange(count, dtype=np.int32), each))
    names = [i if view.entity.name == "card" else f"{view.entity.name[0]}{i}" for i in range(count)]
    return {
        keys.locate(encode_key([name])): state
        for name, state in zip(names, updated.states.to_list(), strict=True)
        if state
    }


def size_mb(extra: str) -> float:
    """Megabytes of the distributions that an extra needs."""
    seen: set[str] = set()

    def walk(name: str, extras: frozenset[str]) -> int:
        found = 0
        try:
            dist = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return 0
        if name.lower() not in seen:
            seen.add(name.lower())
            found += sum(_bytes(dist, file) for file in dist.files or ())
        for text in dist.requires or ():
            wanted = Requirement(text)
            known = wanted.marker is None or any(wanted.marker.evaluate({"extra": one}) for one in extras or {""})
            if known and (wanted.name.lower() not in seen or wanted.name == "headrace"):
                found += walk(wanted.name, frozenset(wanted.extras))
        return found

    return walk("headrace", frozenset({extra})) / 1e6


def _bytes(dist: metadata.Distribution, file: object) -> int:
    try:
        return Path(str(dist.locate_file(str(file)))).stat().st_size
    except OSError:
        return 0


__all__ = ["main", "online"]

if __name__ == "__main__":
    sys.exit(main())
