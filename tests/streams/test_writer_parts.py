"""The small parts around the shard: journal, supervisor, lanes' claims, the log's pace, evictions."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.errors import ConfigError, Fenced, Gap, IdentityError, ServiceUnavailable, Stale
from headrace_schemas.keys import ViewKeys
from headrace_schemas.loading import load_project
from headrace_schemas.stores.lanes import Watermark, fresh_token, watermark_field
from headrace_schemas.stores.log import event_log
from headrace_schemas.stores.topology import parse_topology
from headrace_streams import identity
from headrace_streams.claims import Claimant, claim, release
from headrace_streams.errors import GroupBroken, RestartNeeded, exit_code
from headrace_streams.evictions import Evictions
from headrace_streams.items import Span, Stop, Tick
from headrace_streams.journal import Journal
from headrace_streams.log_writer import LogSink, Pace, Rows
from headrace_streams.patience import Patience
from headrace_streams.poison import Suspicion
from headrace_streams.session import Session
from headrace_streams.supervisor import Restarts, Start, Supervisor
from tests.services import Services
from tests.streams.shop import Shop

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
QUICK = Restarts(most=2, within_s=60.0, pause_s=0.01, longest_pause_s=0.02, grace_s=5.0)


def supervise(
    *scripts: str, restarts: Restarts = QUICK, workers: int = 1, suspicion: Suspicion | None = None
) -> tuple[int, list[dict[str, object]]]:
    """Run groups of scripts, one script per start; the exit code and what was noted."""
    diary, starts = io.StringIO(), iter(scripts)
    current: list[str] = []

    def command(start: Start) -> list[str]:
        if start.worker == 0:
            current[:] = [next(starts)]
        script = current[0].replace("WORKER", str(start.worker)).replace("PULSE", str(start.pulse))
        return [sys.executable, "-c", script]

    supervisor = Supervisor(command, workers, Journal("supervisor", diary), restarts, suspicion=suspicion)
    code = supervisor.run(threading.Event())
    return code, [json.loads(line) for line in diary.getvalue().splitlines()]


def test_a_group_that_stops_is_not_started_again() -> None:
    code, notes = supervise("pass")
    assert code == 0
    assert [note["event"] for note in notes] == ["started", "ended"]


_BEATS = "import os, signal, time\nfor _ in range({}):\n    os.write(PULSE, b'.')\n    time.sleep(0.05)\n"
_FREEZES = "os.kill(os.getpid(), signal.SIGSTOP)"
IMPATIENT = Restarts(pause_s=0.01, grace_s=5.0, wedged_s=1.5, start_s=60.0)


def test_a_process_that_stands_still_is_killed_and_its_group_started_again() -> None:
    code, notes = supervise(_BEATS.format(3) + _FREEZES, _BEATS.format(60), restarts=IMPATIENT, workers=2)
    assert code == 0
    assert [note["event"] for note in notes if note["event"] != "wedged"] == ["started", "failed", "started", "ended"]
    wedged = [note for note in notes if note["event"] == "wedged"]
    assert wedged
    assert all(note["begun"] for note in wedged)
    assert wedged[0]["pid"] in notes[0]["pids"]  # type: ignore[operator]


def test_a_process_that_never_begins_has_longer() -> None:
    slow = Restarts(pause_s=0.01, grace_s=5.0, wedged_s=0.2, start_s=1.5)
    code, notes = supervise("import time; time.sleep(60)", "import time; time.sleep(0.5)", restarts=slow)
    assert code == 0
    assert [note["event"] for note in notes] == ["started", "wedged", "failed", "started", "ended"]
    assert notes[1]["begun"] is False


def test_a_killed_group_is_started_again_and_takes_over() -> None:
    code, notes = supervise("import os; os.kill(os.getpid(), 9)", "pass")
    assert code == 0
    assert [len(note["succeeds"]) for note in notes if note["event"] == "started"] == [0, 1]


@pytest.mark.parametrize("final", [2, 10, 12])
def test_what_a_restart_cannot_mend_stops_the_supervisor(final: int) -> None:
    code, notes = supervise(f"import sys; sys.exit({final})")
    assert code == final
    assert len(notes) == 2


def test_a_group_that_fails_too_often_is_given_up() -> None:
    code, notes = supervise(*["import sys; sys.exit(11)"] * 3)
    assert code == 11
    assert notes[-1]["event"] == "gave-up"
    assert notes[-1]["failures"] == 3


def test_all_of_a_group_has_exited_before_it_is_started_again(tmp_path: Path) -> None:
    first = (
        "import sys, time, signal, pathlib\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "if WORKER == 0: time.sleep(0.3); sys.exit(11)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), (place / 'exited').touch(), sys.exit(0)))\n"
        "time.sleep(60)\n"
    )
    second = f"import sys, pathlib; sys.exit(0 if pathlib.Path({str(tmp_path)!r}, 'exited').exists() else 2)"
    code, _ = supervise(first, second, workers=2)
    assert code == 0


KILLED = "import os; os.kill(os.getpid(), 9)"


def test_after_two_unforeseen_ends_one_process_stands_in_until_that_was_enough(tmp_path: Path) -> None:
    """It does not count as a failure, and one more end brings it back."""
    settings = load_project(FLIGHTS, environ={"HEADRACE_RUN_PATH": str(tmp_path)}).settings
    enough = "import sys; sys.exit(13)"
    code, notes = supervise(
        KILLED, KILLED, enough, KILLED, enough, "pass",
        restarts=Restarts(most=3, pause_s=0.01, grace_s=5.0), workers=2, suspicion=Suspicion(settings, "stream"),
    )  # fmt: skip
    assert code == 0
    started = [note["pids"] for note in notes if note["event"] == "started"]
    assert [len(pids) for pids in started if isinstance(pids, list)] == [2, 2, 1, 2, 1, 2]
    assert [note["instead_of"] for note in notes if note["event"] == "standing-in"] == [2, 2]
    assert len([note for note in notes if note["event"] == "failed"]) == 3


@pytest.mark.parametrize(
    ("worker_1", "code"), [("signal.signal(15, signal.SIG_IGN); time.sleep(0.6); sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", -9)]
)  # fmt: skip
def test_the_process_that_ended_unforeseen_counts_and_not_its_peers(worker_1: str, code: int) -> None:
    """A peer may be gone before the one that it went with."""
    first = f"import os, sys, time, signal\nif WORKER == 1: {worker_1}\ntime.sleep(0.3); sys.exit(11)"
    done, notes = supervise(first, "pass", workers=2)
    assert done == 0
    assert [note["code"] for note in notes if note["event"] == "failed"] == [code]


def test_each_error_has_the_exit_code_that_the_supervisor_understands() -> None:
    errors = [
        Fenced("lane"), Gap("lane", 1, 3), Stale("lane"), RestartNeeded("more partitions", "read them"),
        IdentityError("t", "a", "b", "c"), ConfigError("x"), ServiceUnavailable("Redis", "a", "b"), ValueError("x"),
        GroupBroken(1),
    ]  # fmt: skip
    assert [exit_code(error) for error in errors] == [10, 11, 11, 11, 12, 2, 3, 1, 11]


# --- claims ----------------------------------------------------------------------------------------------------------


def keys_of(prefix: str) -> ViewKeys:
    return ViewKeys.of(prefix + "n", "view", "fingerprint", 2)


def session_of(services: Services) -> Session:
    return Session(parse_topology(services.redis), Journal("test", io.StringIO()), Patience(outage_s=5.0))


def claim_all(
    session: Session,
    keys: ViewKeys,
    token: bytes,
    *,
    dead: tuple[bytes, ...] = (),
    take_over: bool = False,
    claim_s: float = 0.0,
) -> None:
    claim(
        session, [keys.lane_key(lane) for lane in range(keys.lanes)], Claimant(token, dead, take_over), claim_s=claim_s, name=lambda index: f"lane {index}",
    )  # fmt: skip


def test_a_lane_has_one_owner_until_it_is_released_silent_or_taken_over(services: Services, prefix: str) -> None:
    session, keys = session_of(services), keys_of(prefix)
    lanes = [keys.lane_key(lane) for lane in range(keys.lanes)]
    first, second, third, fourth = (fresh_token() for _ in range(4))
    claim_all(session, keys, first)
    claim_all(session, keys, first)  # the same claim, sent again
    with pytest.raises(Fenced, match=f"lane 0 is owned by another worker \\({first.hex()[:8]}\\)"):
        claim_all(session, keys, second)
    release(session, lanes, second)  # not its lanes: nothing happens
    with pytest.raises(Fenced):
        claim_all(session, keys, second)
    release(session, lanes, first)
    claim_all(session, keys, second)
    with pytest.raises(Fenced):
        claim_all(session, keys, third, dead=(first[:8],))  # it is not the owner's group that has ended
    claim_all(session, keys, third, dead=(first[:8], second[:8]))
    claim_all(session, keys, second, take_over=True)
    claim_all(session, keys, third, take_over=True)
    started = time.monotonic()
    claim_all(session, keys, fourth, claim_s=8.0)
    assert 2.5 < time.monotonic() - started < 5, "an owner is dead after three seconds of silence"
    session.close()


def test_evictions_since_the_start_stop_the_worker_with_the_remedy() -> None:
    class Counting:
        """A session whose Redis evicts."""

        count = 3

        def of_all(self, _command: bytes) -> list[bytes]:
            return [b"# Stats\r\nexpired_keys:9\r\nevicted_keys:%d\r\n" % self.count]

    session = Counting()
    evictions = Evictions(session)  # type: ignore[arg-type]
    evictions.check(0.0)
    session.count = 5
    evictions.check(1.0)  # not time yet
    with pytest.raises(ConfigError, match=r"it evicted 2 since this worker started.*maxmemory-policy to noeviction"):
        evictions.check(6.0)


# --- the log ---------------------------------------------------------------------------------------------------------


class Table:
    """A log table that only counts."""

    def __init__(self) -> None:
        self.commits: list[dict[int, tuple[int, int]]] = []

    def append(self, frame: pl.DataFrame, progress: dict[int, tuple[int, int]], _digests: dict[int, str]) -> int:
        self.commits.append(dict(progress))
        return frame.height

    def files(self) -> int:
        return len(self.commits)


def rows(start: int, upto: int) -> Rows:
    return Rows("t", pl.DataFrame({"x": np.arange(upto - start)}), (Span(0, start, Watermark(upto)),))


def test_the_log_commits_at_once_when_idle_and_else_every_two_seconds() -> None:
    now, table = [0.0], Table()
    sink = LogSink({"t": table}, Journal("log", io.StringIO()), Pace(), clock=lambda: now[0])  # type: ignore[dict-item]
    sink.write([rows(0, 5), rows(5, 9)])
    assert table.commits == []
    sink.write([Tick()])
    assert table.commits == [{0: (0, 9)}], "idle: at once"
    now[0] = 0.2
    sink.write([rows(9, 12), Tick()])
    assert len(table.commits) == 1, "a trickle does not make a file for every event"
    now[0] = 1.1
    sink.write([Tick()])
    assert table.commits[1:] == [{0: (9, 12)}]
    for step in range(20):
        now[0] = 1.2 + step * 0.2
        sink.write([rows(12 + step, 13 + step)])
    assert table.commits[2:] == [{0: (12, 23)}], "busy: when the oldest row is two seconds old"
    sink.write([Stop(0)])
    assert table.commits[-1] == {0: (23, 32)}
    assert sink.rows == 32


def test_the_log_commits_a_full_buffer() -> None:
    table = Table()
    sink = LogSink({"t": table}, Journal("log", io.StringIO()), Pace(most_bytes=1000), clock=lambda: 0.0)  # type: ignore[dict-item]
    sink.write([rows(0, 50)])
    assert table.commits == []
    sink.write([rows(50, 150)])
    assert table.commits == [{0: (0, 150)}]


def test_the_log_of_a_run_holds_every_valid_event_once(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path)
    shop.produce(300)
    shop.produce_raw(b"\xff\xff")
    with shop.logging():
        shop.wait_for_log()
        shop.produce(50)
        shop.wait_for_log()
    with shop.logging():
        shop.wait_for_log()
    found = event_log(shop.loaded.settings, shop.loaded.project.event("paid")).scan().collect()
    assert sorted(found["id"].to_list()) == sorted(event["id"] for event in shop.events)
    places = set(zip(found["_partition"].to_list(), found["_offset"].to_list(), strict=True))
    assert places == {(event["_partition"], event["_offset"]) for event in shop.events}


def test_the_log_notices_another_record_before_its_position(
    services: Services, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic id is the same, the offsets are there, but the history is another."""
    shop = Shop(services, prefix, tmp_path)
    shop.produce(60)
    with shop.logging():
        shop.wait_for_log()
    with shop.logging():  # it is the same history still
        shop.produce(10)
        shop.wait_for_log()
    monkeypatch.setattr(identity, "digest", lambda *_record: "0123456789abcdef")
    with (
        pytest.raises(
            IdentityError, match=r"required the record at offset \d+ of partition \d that was read before, got another"
        ),
        shop.logging(),
    ):
        time.sleep(2)


def test_the_field_of_a_watermark_names_topic_and_partition() -> None:
    assert watermark_field("AaIK", 12) == b"wm:AaIK:12"
