"""One run of one contender: started alone on the first core, followed until the topic ends or its time is over, judged, ended.

Everybody is followed alike: an event counts when its effect is in Redis (peers add to a counter in the same pipeline as their
results; Headrace says which offsets are committed). The rate leaves out the first third, so that start, JIT compilers and caches
are not in it. What may not live here: who takes part, tables.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace_ops.processes import Child, spawn, spawn_module
from headrace_schemas.keys import encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import online
from headrace_schemas.stores.log import event_log
from ops.benchmarks.peers.contenders import LOGGED, OURS, TILES, Contender
from ops.benchmarks.peers.oracle import Oracle, Verdict, Window, close
from ops.benchmarks.peers.services import Services
from ops.benchmarks.stream import on_first_core, on_last_core

_START_S = 60.0
_LOOK_S = 0.02
_SKIPPED = 3  # the first third
_LEAST_S = 0.3  # less than that between first and last look is no measurement


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave.

    Args:
        rate: events a second; 0 where there is none.
        events: that were done when it ended.
        complete: whether that is all of them.
        redis_bytes: that Redis received per event.
        memory_bytes: the most that the process and its children held.
        state_bytes: mean size of a value of Headrace.
        verdict: on the values.
        failure: why there is no rate.
    """

    rate: float = 0.0
    events: int = 0
    complete: bool = False
    redis_bytes: float = 0.0
    memory_bytes: int = 0
    state_bytes: float = 0.0
    verdict: Verdict | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """What is the same for all runs over one topic.

    Args:
        services: where Kafka and Redis are.
        environ: leads Headrace to them.
        loaded: Headrace's project.
        oracle: of the events on the topic.
        events: how many there are.
        seconds: at most, for each run, from its first event.
    """

    services: Services
    environ: dict[str, str]
    loaded: LoadedProject
    oracle: Oracle
    events: int
    seconds: float


def windows(view: hr.FeatureView) -> list[Window]:
    """Length and tile of each window, as Headrace has laid them out; the peers take the same."""
    return [(length, view.ladder.tiles_us[view.ladder.level[length]]) for length in view.windows_us]


def run(contender: Contender, course: Course, sent: Run | None) -> Run:
    """One run.

    Args:
        contender: who.
        course: over what.
        sent: what Headrace sent to Redis in this round, for the floor that sends the same.
    """
    group = f"peer-{secrets.token_hex(4)}"
    state = course.services.scratch / group
    state.mkdir()
    log = course.services.scratch / f"{group}.log"
    environ = {**course.environ, **_environment(contender, course, group, state, sent), "HEADRACE_NAMESPACE": group}
    received = _received(course.services)
    with on_first_core():
        child = spawn(contender.name, contender.command(), log=log, cwd=state, env=environ)
    try:
        if contender.writes in {"nothing", "the same bytes"}:
            return _told(child, course)
        with _log_writer(contender, course, environ) as logged:
            found = _followed(contender, course, child, group, received)
            return replace(found, failure=found.failure or (logged() if found.complete else ""))
    finally:
        child.kill()
        course.services.clear(group)
        shutil.rmtree(state, ignore_errors=True)


def _environment(
    contender: Contender, course: Course, group: str, state: Path, sent: Run | None
) -> dict[str, str | None]:
    event = course.loaded.project.event("payments")
    [view] = course.loaded.project.views
    schema = event.avro_schema
    # The peers take times as whole microseconds, not as objects of their language.
    fields = [
        {**field, "type": {k: v for k, v in field["type"].items() if k != "logicalType"}}
        if isinstance(field["type"], dict)
        else field
        for field in schema["fields"]
    ]
    return {
        "PYTHONPATH": None if contender.folder else os.environ.get("PYTHONPATH"),
        "PYTHONUNBUFFERED": "1",
        "JAVA_TOOL_OPTIONS": None,
        "CLASSPATH": None,
        "PEER_KAFKA": course.services.kafka,
        "PEER_REDIS": course.services.redis,
        "PEER_TOPIC": event.topic,
        "PEER_GROUP": group,
        "PEER_STATE": str(state),
        "PEER_WHAT": contender.what,
        "PEER_SCHEMA": json.dumps({**schema, "fields": fields}),
        "PEER_WINDOWS": ",".join(f"{length}/{tile}" for length, tile in windows(view)),
        "PEER_EVENTS": str(course.events),
        "FLOOR_BYTES": str(int(sent.redis_bytes * sent.events)) if sent else "0",
        "FLOOR_VALUE": str(round(sent.state_bytes)) if sent else "0",
    }


@contextmanager
def _log_writer(contender: Contender, course: Course, environ: dict[str, str | None]) -> Iterator[Callable[[], str]]:
    """The log writer beside a contender that has one; asked at the end whether the log has everything, and if not, why."""
    if contender != LOGGED:
        yield lambda: ""
        return
    folder = course.services.scratch / f"log-{secrets.token_hex(4)}"
    environ = {**environ, "HEADRACE_LOG_PATH": str(folder)}
    arguments = ["--project", str(course.loaded.root), "--role", "log"]
    with on_last_core():
        writer = spawn_module("log", "headrace_streams", arguments, log=folder.with_suffix(".err"), env=environ)
    log = event_log(replace(course.loaded.settings, log_path=folder), course.loaded.project.event("payments"))

    def complete() -> str:
        deadline = time.monotonic() + course.seconds
        while sum(log.watermark().values()) < course.events:
            if not writer.alive() or time.monotonic() > deadline:
                return f"the log did not get everything: {writer.log_tail(3)}"
            time.sleep(_LOOK_S * 10)
        return ""

    try:
        yield complete
    finally:
        writer.kill()
        shutil.rmtree(folder, ignore_errors=True)


# --- following -------------------------------------------------------------------------------------------------------


def _told(child: Child, course: Course) -> Run:
    """A floor ends by itself and tells its rate."""
    if child.wait(_START_S + course.seconds) != 0:
        return Run(failure=child.log_tail(3))
    return Run(float(child.log_tail(1)), course.events, complete=True)


def _followed(contender: Contender, course: Course, child: Child, group: str, received: int) -> Run:
    client = course.services.client()
    done = _headrace_progress(course, group) if contender in OURS else lambda: int(client.get("events") or 0)
    looks: list[tuple[float, int]] = []
    memory, deadline = 0, time.monotonic() + _START_S
    while True:
        time.sleep(_LOOK_S)
        now, count = time.monotonic(), done()
        memory = max(memory, _memory(child.pid))
        if count and (not looks or count > looks[-1][1]):
            if not looks:
                deadline = now + course.seconds
            looks.append((now, count))
        if count >= course.events or now > deadline:
            break
        if not child.alive():
            return Run(failure=f"ended with exit code {child.returncode}: {child.log_tail(3)}")
    if not looks:
        return Run(failure=f"nothing done in {_START_S:g} s: {child.log_tail(3)}")
    received = _received(course.services) - received
    complete = looks[-1][1] >= course.events
    if complete:
        child.stop(grace_s=5.0)
    else:
        child.kill()
    rate, failure = rate_of(looks, course.seconds)
    verdict, state_bytes = _verdict(contender, course, group, complete=complete)
    count = looks[-1][1]
    return Run(rate, count, complete, received / count, memory, state_bytes, verdict, failure)


def rate_of(looks: list[tuple[float, int]], seconds: float) -> tuple[float, str]:
    """Events a second without the first third of the events, or of the time; and why there is none.

    >>> rate_of([(10.0, 3), (12.0, 60), (13.0, 80), (14.0, 90)], seconds=20.0)
    (15.0, '')
    >>> rate_of([(10.0, 90)], seconds=20.0)
    (0.0, 'done within less than 0.3 s of measuring; take more events')
    """
    (began, _), (ended, last) = looks[0], looks[-1]
    first = next(look for look in looks if look[1] >= last / _SKIPPED or look[0] >= began + seconds / _SKIPPED)
    if ended - first[0] < _LEAST_S:
        return 0.0, f"done within less than {_LEAST_S:g} s of measuring; take more events"
    return (last - first[1]) / (ended - first[0]), ""


def _headrace_progress(course: Course, namespace: str) -> Callable[[], int]:
    client = online.connect(course.loaded.settings.redis)
    [view] = course.loaded.project.views
    return lambda: sum(online.progress(client, namespace, view).values())


def _received(services: Services) -> int:
    return int(services.client().info("stats")["total_net_input_bytes"])


def _memory(pid: int) -> int:
    """The most that a process has held at once; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


# --- judging ---------------------------------------------------------------------------------------------------------


def _verdict(contender: Contender, course: Course, namespace: str, *, complete: bool) -> tuple[Verdict | None, float]:
    oracle = course.oracle
    if contender in OURS:
        return _headrace_verdict(course, namespace) if complete else (None, 0.0)
    client = course.services.client()
    if contender.writes in TILES:
        return oracle.judge_features(
            dict(zip(oracle.cards, client.mget(oracle.cards), strict=True)), complete=complete
        ), 0.0
    [view] = course.loaded.project.views
    keys = [(card, window) for card in oracle.cards for window in range(len(windows(view)))]
    values = client.mget([f"{card}:{window}" for card, window in keys])
    found = oracle.judge_windows(dict(zip(keys, values, strict=True)), closed=contender.writes == "closed windows")
    return found, 0.0


def _headrace_verdict(course: Course, namespace: str) -> tuple[Verdict, float]:
    """The features of each card as read at its last event, and the mean size of a state."""
    [view] = course.loaded.project.views
    client = online.connect(course.loaded.settings.redis)
    cards, oracle = course.oracle.cards, course.oracle
    states = online.OnlineReader(client, namespace).states(view, [encode_key([card]) for card in cards])
    at_us = np.array([oracle.newest_us(card) for card in cards], np.int64)
    read = kernel.read(Layout.of(view), states, at_us)
    order = [view.feature_names.index(f"{what}_{window}") for window in _names(view) for what in _FEATURES]
    wrong, example = 0, ""
    for card, at, row in zip(cards, at_us.tolist(), read[:, order].tolist(), strict=True):
        expected = oracle.features(card, at)
        different = sum(not close(a, b) for a, b in zip(row, expected, strict=True))
        wrong += different
        if different:
            example = example or f"{card} at {at}: {expected} expected, {row} came"
    return Verdict(len(cards) * len(order), wrong, example), _state_bytes(client, namespace)


_FEATURES = ("n", "total", "least", "most")


def _names(view: hr.FeatureView) -> list[str]:
    return [name.removeprefix("n_") for name in view.feature_names if name.startswith("n_")]


def _state_bytes(client: object, namespace: str) -> float:
    """Over all states in the store."""
    import redis

    assert isinstance(client, redis.Redis)
    names = list(client.scan_iter(f"*{namespace}*", count=5000, _type="STRING"))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.strlen(name)
        sizes = pipe.execute()
    return sum(sizes) / max(len(sizes), 1)
