"""kill -9 while the flights are replayed: afterwards everything is as if nothing had happened, bit for bit.

    produced   |====1====|====2====|====3====| …        a stretch before each start, so there is always more to do
    worker        start ✗    start ✗    start ✗ …        killed at a seeded moment, started again with take-over
    log writer    start ─────────✗ start ──────── …      killed now and then, too

The worker reaches Redis over a wire that sees commits (`tests.recovery.wire`). So a kill strikes at a commit that is counted,
not timed, and it is known what was in flight: commits that Redis applied and the worker never heard of, a chain of commits
of which Redis got a part, a torn command, or only records that nobody had folded.

The same topics are then read in another namespace by a worker and a log writer that nobody disturbs: the expectation.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace import kernel
from headrace.layout import Layout
from headrace_ops.processes import Child
from headrace_schemas.dead_letters import DeadLetter, dead_letter_topic, decode_dead_letter, unique_dead_letters
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log
from tests.parity.flights import PATIENCE_S, Produced, Rig, entity_keys, records
from tests.recovery.wire import Cut, Seen, Wire
from tests.services import Services

SEED = 20131
KILLS = 20
JANUARY = 1_356_998_400_000_000
HOUR = 3_600_000_000
DAY = 24 * HOUR
STRETCH_US = 5 * DAY  # some 10,000 records
LOG_KILLS = 4
RECEIVED = "_received_us"


@dataclass(slots=True)
class Tally:
    """What the kills struck."""

    kills: int = 0
    unanswered: int = 0
    mid_chain: int = 0
    torn: int = 0
    only_lag: int = 0
    log_kills: int = 0
    produced: list[Produced] = field(default_factory=list)
    broken: int = 0


@pytest.mark.timeout(300)
def test_twenty_kills_leave_no_trace(shared_services: Services, tmp_path: Path) -> None:
    """Reads, canonical states and log rows equal the undisturbed run's; each broken event has one dead letter by id."""
    rng = random.Random(SEED)
    tally = Tally()
    name = f"kills-{shared_services.name}"
    print(f"\nseed {SEED} on {shared_services.name}")
    with Wire(shared_services.redis) as wire, Rig(shared_services, tmp_path / "a", name, edits=few_lanes(1)) as rig:
        log = rig.start("log")
        round_ = 0
        while tally.kills < KILLS:
            produce_stretch(rig, tally, round_)
            if round_ % 2 and tally.log_kills < LOG_KILLS:
                log = kill_log(rig, log, rng, tally)
            strike(rig, wire, rng, tally, first=round_ == 0)
            round_ += 1
            assert round_ < 2 * KILLS, "the kills strike nothing"
        wire.arm(None)
        worker = rig.start("stream", "--take-over", HEADRACE_REDIS=wire.url)
        rig.wait_committed(alive=worker)
        rig.wait_logged()
        print(
            f"{tally.kills} kills: {tally.unanswered} with a commit unanswered, {tally.mid_chain} of them in mid-chain, "
            f"{tally.torn} in a torn command; {tally.only_lag} with lag only; {tally.log_kills} kills of the log writer"
        )
        assert tally.kills == KILLS
        assert tally.mid_chain >= 3
        assert tally.unanswered >= 10
        assert tally.log_kills >= 2
        compare_with_undisturbed(shared_services, tmp_path, rig, tally)


@pytest.mark.timeout(240)
def test_a_supervised_group_of_two_restarts_by_itself(shared_services: Services, tmp_path: Path) -> None:
    """One of two processes is killed, the supervisor ends the other, starts both again and takes over; nothing is lost."""
    rng = random.Random(SEED + 1)
    tally = Tally()
    print(f"\nseed {SEED + 1} on {shared_services.name}")
    with Rig(shared_services, tmp_path / "a", f"group-{shared_services.name}", edits=few_lanes(2)) as rig:
        rig.start("log")
        produce_stretch(rig, tally, 0)
        supervisor = rig.start("stream", "--supervise", HEADRACE_WORKERS="2", HEADRACE_CACHE_KB="1024")
        before: set[int] = set()
        stretches = itertools.count(1)
        for round_ in range(1, 5):
            group = wait_group(rig, supervisor, before)
            before |= set(group)
            lag = 0
            while lag == 0:  # a fast group may have committed a whole stretch by now; then the next one
                produce_stretch(rig, tally, next(stretches))
                time.sleep(rng.uniform(0.0, 0.05))
                lag = lag_of(rig)
            os.kill(rng.choice(group), signal.SIGKILL)
            print(f"kill {round_}: one of {len(group)} processes, lag {lag:,}")
        rig.wait_committed(alive=supervisor)
        rig.wait_logged()
        compare_with_undisturbed(shared_services, tmp_path, rig, tally)


def few_lanes(lanes: int) -> dict[str, str]:
    """All planes in few lanes: 2,000 of them in one lane's flush are a chain of ten commits."""
    return {'    "plane_arrivals",\n': f'    "plane_arrivals",\n    lanes={lanes},\n'}


# --- producing and killing --------------------------------------------------------------------------------------------


def produce_stretch(rig: Rig, tally: Tally, number: int) -> None:
    """The next days of the year, and something broken in each."""
    since_us = JANUARY + number * STRETCH_US
    stretch = records(rig.project, since_us, since_us + STRETCH_US)
    rig.produce(stretch)
    rig.produce_raw("departures", [b"\xff\xfe%d" % number])
    name, time_us, row = next(record for record in stretch if record[0] == "weather")
    rig.produce([(name, time_us, {**row, "report_id": f"gale {number}", "wind_speed": 1048.0})])
    tally.produced += [record for record in stretch if not is_gale(record)]
    tally.broken += 2 + sum(map(is_gale, stretch))


def is_gale(record: Produced) -> bool:
    """Whether the record breaks the contract: the file itself holds a wind of 1,048 mph."""
    return record[0] == "weather" and (record[2]["wind_speed"] or 0.0) > 250


def strike(rig: Rig, wire: Wire, rng: random.Random, tally: Tally, *, first: bool) -> None:
    """Start a worker, kill it at a seeded moment, and note what was in flight."""
    cut = draw_cut(rng)
    wire.arm(cut)
    options = () if first else ("--take-over",)
    worker = rig.start("stream", *options, HEADRACE_REDIS=wire.url, HEADRACE_CACHE_KB="1024")
    reached = wait_reached(rig, wire, worker)
    lag = lag_of(rig)
    assert worker.alive(), worker.log_tail(40)
    worker.kill()
    wire.clear()
    if not (reached or lag):
        print("not counted: the worker had come to rest")
        return
    tally.kills += 1
    count(tally, rig, wire.seen, lag)


def draw_cut(rng: random.Random) -> Cut:
    """A moment: in mid-chain, with answers lost, in a torn command; early in the replay or some flushes later."""
    commit = rng.randint(1, 50)
    match rng.randrange(4):
        case 0 | 1:
            return Cut(rng.randint(1, 10), chain=True, forward=rng.randint(1, 4), torn=rng.random() < 0.3)
        case 2:
            return Cut(commit, forward=rng.randint(1, 40))
        case _:
            return Cut(commit, forward=0, torn=True)


def wait_reached(rig: Rig, wire: Wire, worker: Child) -> bool:
    """Wait for the moment of the cut; False if the worker came to rest before."""
    deadline = time.monotonic() + PATIENCE_S
    while not wire.reached.wait(0.1):
        assert worker.alive(), worker.log_tail(40)
        assert time.monotonic() < deadline, worker.log_tail(40)
        if wire.holds:  # the worker sent all of its flush, and waits
            wire.reached.wait(0.2)
            return True
        if lag_of(rig) == 0:
            return False
    return True


def count(tally: Tally, rig: Rig, seen: Seen, lag: int) -> None:
    """Note a kill, and find in Redis which chains it broke: the head is a commit that does not end its chain."""
    client = rig.client
    heads = {lane: client.hget(lane, "head") for lane, _ in seen.inner}
    broken = sorted({lane for lane, commit in seen.inner if heads[lane] == commit})
    tally.mid_chain += bool(broken)
    tally.torn += seen.torn
    tally.unanswered += bool(seen.unanswered)
    tally.only_lag += not (seen.unanswered or seen.torn or seen.dropped)
    chains = f", in mid-chain of {len(broken)} lane(s)" if broken else ""
    torn = ", a command torn" if seen.torn else ""
    print(
        f"kill {tally.kills:2}: {len(seen.unanswered):2} commits of states applied but unanswered{chains}{torn}, "
        f"{seen.dropped:3} sent and lost, lag {lag:,}"
    )


def lag_of(rig: Rig) -> int:
    """How many records no lane of some view has come to; the lanes' own records, not a hint."""
    furthest = 0
    for view in rig.project.views:
        lanes = online.lane_records(rig.client, ViewKeys(rig.name, view))
        reached: Counter[int] = Counter()
        for record in lanes:
            for (_, partition), mark in record.watermarks.items():
                reached[partition] = max(reached[partition], mark.next)
        ends = rig.ends[view.event.name]
        furthest = max(furthest, sum(end - reached[partition] for partition, end in ends.items()))
    return furthest


def kill_log(rig: Rig, log: Child, rng: random.Random, tally: Tally) -> Child:
    """Kill the log writer while it has rows to write, and start it again."""
    time.sleep(rng.uniform(0.0, 0.05))  # it has just been given a stretch, and commits at most twice a second
    assert log.alive(), log.log_tail(40)
    behind = sum(
        end - event_log(rig.loaded.settings, event).watermark().get(partition, 0)
        for event in rig.project.events
        for partition, end in rig.ends[event.name].items()
    )
    log.kill()
    print(f"         the log writer, {behind:,} rows behind")
    tally.log_kills += behind > 0
    return rig.start("log")


def wait_group(rig: Rig, supervisor: Child, before: set[int]) -> list[int]:
    """The processes of the supervisor's group once they own the lanes and none of an earlier group is among them."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert supervisor.alive(), supervisor.log_tail(40)
        children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        group = [int(child) for child in children if int(child) not in before]
        if len(group) == 2 and len(group) == len(children) and lag_of(rig) == 0:
            return group
        assert time.monotonic() < deadline, supervisor.log_tail(40)
        time.sleep(0.05)


# --- what must be -----------------------------------------------------------------------------------------------------


def compare_with_undisturbed(services: Services, tmp_path: Path, rig: Rig, tally: Tally) -> None:
    """Run over the same topics in peace, and compare everything."""
    with Rig(services, tmp_path / "b", f"{rig.name}-undisturbed", beside=rig) as calm:
        calm.start("stream")
        calm.start("log")
        calm.wait_committed()
        calm.wait_logged()
        values = states = 0
        for view in rig.project.views:
            more_values, more_states = compare_view(rig, calm, view, tally.produced)
            values, states = values + more_values, states + more_states
        rows = sum(compare_log(rig, calm, event) for event in rig.project.events)
        assert rows == len(tally.produced)
        letters = list(dead_letters(services, rig.name))
        unique = list(unique_dead_letters(letters))
        assert len(unique) == tally.broken
        assert {letter.id for letter in unique} == {letter.id for letter in dead_letters(services, calm.name)}
        print(
            f"equal to the undisturbed run: {values:,} values, {states:,} canonical states, {rows:,} rows of the log; "
            f"{len(unique)} dead letters by id, {len(letters)} written"
        )


def compare_view(rig: Rig, calm: Rig, view: hr.FeatureView, produced: Sequence[Produced]) -> tuple[int, int]:
    """Compare reads at several moments, and canonical states; returns how many of each."""
    layout = Layout.of(view)
    keys = [encode_key(key) for key in entity_keys(view, produced)]
    got, wanted = rig.reader.states(view, keys), calm.reader.states(calm.project.view(view.name), keys)
    end_us = max(time_us for _, time_us, _ in produced)
    values = 0
    for at_us in (end_us + 1, end_us + HOUR, end_us + 30 * HOUR, end_us + 6 * DAY):
        moments = np.full(len(keys), at_us)
        left, right = kernel.read(layout, got, moments), kernel.read(layout, wanted, moments)
        assert np.array_equal(left.view(np.int64), right.view(np.int64)), f"{view.name} at {at_us}"
        values += left.size
    for i, key in enumerate(keys):
        assert wanted[i], f"{view.name} {key!r} has no state"
        assert kernel.canonical(layout, got[i]) == kernel.canonical(layout, wanted[i]), f"{view.name} {key!r}"
    assert state_keys(rig, view) == state_keys(calm, view) == len(keys)
    return values, len(keys)


def state_keys(rig: Rig, view: hr.FeatureView) -> int:
    """The number of states that Redis holds of a view, whoever wrote them."""
    stem = f"{{{rig.name}:{view.name}:{view.layout_fingerprint}:*}}s*"
    return sum(1 for _ in rig.client.scan_iter(match=stem, count=5000))


def compare_log(rig: Rig, calm: Rig, event: hr.Event) -> int:
    """Compare the rows of an event's log, which have no order, without the times of receipt."""
    frames = [
        event_log(of.loaded.settings, event).scan().collect().drop(RECEIVED).sort("_partition", "_offset")
        for of in (rig, calm)
    ]
    assert frames[0].equals(frames[1], null_equal=True), f"log of {event.name}"
    assert frames[0].select(pl.struct("_partition", "_offset").n_unique()).item() == frames[0].height
    return frames[0].height


def dead_letters(services: Services, namespace: str) -> Iterator[DeadLetter]:
    """All dead letters of a namespace, repetitions included."""
    with kafka.TopicReader(services.kafka, dead_letter_topic(namespace)) as reader:
        for message in reader.read_to_end():
            headers = message.headers()
            assert isinstance(headers, list)
            yield decode_dead_letter(message.key(), message.value(), headers)
