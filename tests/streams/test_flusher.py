"""Every answer that Redis can give to a chain of commits, on a wire (PROTOCOL: exactly once, step 6)."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from headrace.errors import Fenced, ServiceUnavailable, Stale
from headrace_schemas.stores.lanes import COMMIT
from headrace_schemas.stores.resp import pack
from headrace_streams.commits import Commit
from headrace_streams.flusher import Flusher, LaneNames
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.session import script_id
from tests.streams.scripted_redis import LaneState, ScriptedRedis, scripted_redis

OWNER = b"owner of the lane"[:16]
LANE = b"{n:v:f:0}lane"
LANES = LaneNames(lambda lane: f"lane {lane}", lambda lane: b"{n:v:f:%d}lane" % lane)
QUICK = Patience(answer_s=0.3, pause_s=0.01, longest_pause_s=0.02, outage_s=5.0)


def chain(count: int, lane: int = 0, head: bytes = b"") -> list[Commit]:
    """Commits of one lane, each expecting the one before it."""
    commits = []
    for index in range(count):
        new = f"lane {lane} commit {index}".encode()
        commits.append(Commit(lane, head, new))
        head = new
    return commits


def packed(commits: list[Commit]) -> tuple[np.ndarray, np.ndarray]:
    """The commands of commits; each writes one state of its own, the last also the watermark."""
    commands = [
        pack(
            "EVALSHA", script_id(COMMIT), 1, b"{n:v:f:%d}lane" % commit.lane, OWNER, commit.expected, commit.id,
            *(("2", "wm:t:0", "9:0:") if commit is commits[-1] else ("0",)), b"state of " + commit.id, commit.id,
        )
        for commit in commits
    ]  # fmt: skip
    bounds = np.cumsum([0, *map(len, commands)]).astype(np.int64)
    return np.frombuffer(b"".join(commands), np.uint8), bounds


def flush(server: ScriptedRedis, commits: list[Commit], patience: Patience = QUICK) -> str:
    """Run one flush to its end; returns what was written into the journal."""
    for lane in {commit.lane for commit in commits}:
        server.lanes.setdefault(b"{n:v:f:%d}lane" % lane, LaneState(owner=OWNER))
    diary = io.StringIO()
    flusher = Flusher(server.topology, Journal("test", diary), patience)
    try:
        data, bounds = packed(commits)
        flusher.start(commits, data, bounds, LANES)
        flusher.wait()
        assert not flusher.busy
    finally:
        flusher.close()
    return diary.getvalue()


def states(server: ScriptedRedis, lane: int = 0) -> list[bytes]:
    return sorted(server.lanes[b"{n:v:f:%d}lane" % lane].states)


def test_an_applied_chain_is_sent_once_and_carries_the_watermark_in_its_last_commit() -> None:
    with scripted_redis() as server:
        commits = chain(3)
        flush(server, commits)
        assert server.executed == len(server.arrived) == 3
        assert server.lanes[LANE].head == commits[-1].id
        assert server.lanes[LANE].fields == {b"wm:t:0": b"9:0:"}
        assert [commit.time_us for commit in commits] == [1_700_000_000_000_001 + i for i in range(3)]


@pytest.mark.parametrize("lost_at", [0, 1, 2])
def test_a_lost_reply_is_recognised_by_the_stored_head(lost_at: int) -> None:
    with scripted_redis(*["ok"] * lost_at, "lose reply") as server:
        commits = chain(3)
        flush(server, commits)
        assert server.executed == 3
        assert states(server) == [b"state of lane 0 commit %d" % i for i in range(3)]
        assert commits[lost_at].time_us is None, "the time of a commit whose reply was lost is unknown"


def test_a_chain_of_three_that_was_applied_and_is_sent_again_counts_as_applied() -> None:
    """Answered naively it would be STALE, STALE, APPLIED: only the last commit finds its own id."""
    with scripted_redis("silence", "silence", "silence") as server:
        commits = chain(3)
        flush(server, commits)
        assert server.executed == 3
        assert len(server.arrived) == 6
        assert server.arrived[3:] == server.arrived[:3], "the same bytes, in the same order"


def test_after_a_time_out_only_what_is_unanswered_is_sent_again() -> None:
    with scripted_redis("ok", "silence", "silence") as server:
        flush(server, chain(3))
        assert server.executed == 3
        assert server.arrived[3:] == server.arrived[1:3]


def test_a_lost_command_is_executed_by_the_repetition() -> None:
    with scripted_redis("ok", "lose command") as server:
        flush(server, chain(3))
        assert server.executed == 3
        assert states(server) == [b"state of lane 0 commit %d" % i for i in range(3)]


@pytest.mark.parametrize(
    "error",
    [
        "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381", "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down", "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.", "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
        "NOREPLICAS Not enough good replicas to write.", "BUSY Redis is busy running a script.",
        "ERR Error running script (call to f_1): @user_script:12: @user_script: 12: -OOM command not allowed",
        "ERR Script attempted to access a non local key in a cluster node script: 31aa, on @user_script:9.",
        "ERR Script attempted to execute a write command while the cluster is down and readonly script: 31aa",
    ],
)  # fmt: skip
def test_a_refusal_writes_nothing_and_is_repeated_after_a_pause(error: str) -> None:
    with scripted_redis(f"error: {error}", f"error: {error}") as server:
        commits = chain(3)
        diary = flush(server, commits)
        assert server.executed == 3
        assert states(server) == [b"state of lane 0 commit %d" % i for i in range(3)]
        events = [json.loads(line)["event"] for line in diary.splitlines()]
        elsewhere = ["redis-disconnected"] if error.startswith(("MOVED", "ASK", "READONLY")) else []
        assert events == ["redis-trouble", *elsewhere, "redis-back"]


def test_a_refusal_in_the_middle_holds_back_the_rest_of_its_chain_only() -> None:
    with scripted_redis("ok", "error: OOM no", "ok", "ok", "ok") as server:
        commits = [*chain(3), *chain(2, lane=1)]
        flush(server, commits)
        assert server.executed == 5
        again = [(command[3], command[6]) for command in server.arrived[5:]]
        assert again == [(LANE, b"lane 0 commit 1"), (LANE, b"lane 0 commit 2")]


def test_a_missing_script_is_loaded_and_the_commit_repeated_at_once() -> None:
    with scripted_redis("error: NOSCRIPT No matching script.") as server:
        flush(server, chain(2), Patience(answer_s=0.3, pause_s=3.0, outage_s=5.0))
        assert server.executed == 2


def test_another_owner_fences() -> None:
    with scripted_redis("ok", "other owner") as server:
        with pytest.raises(Fenced, match=r"lane 0 is owned by another worker \(736f6d65\); this one stops"):
            flush(server, chain(3))
        assert server.executed == 1


@pytest.mark.parametrize("instruction", ["rewind", "forget"])
def test_a_store_that_went_back_in_time_is_stale(instruction: str) -> None:
    with scripted_redis("ok", "ok", instruction) as server, pytest.raises(Stale, match="restart the worker"):
        flush(server, chain(3))


def test_a_store_that_went_back_between_two_flushes_is_stale() -> None:
    with scripted_redis("ok", "ok", "rewind") as server:
        first = chain(2)
        flush(server, first)
        second = [Commit(0, first[-1].id, b"next"), Commit(0, b"next", b"after")]
        with pytest.raises(Stale):
            flush(server, second)


def test_any_other_error_is_stale_and_says_which() -> None:
    with scripted_redis("error: WRONGTYPE Operation against a key") as server:
        with pytest.raises(Stale) as caught:
            flush(server, chain(1))
        assert "WRONGTYPE" in caught.value.__notes__[0]


def test_an_outage_longer_than_the_patience_ends_the_worker() -> None:
    with scripted_redis(*["lose command"] * 1000) as server:
        with pytest.raises(ServiceUnavailable, match=r"Redis at 127.0.0.1:\d+ does not answer"):
            flush(server, chain(1), Patience(answer_s=0.2, pause_s=0.01, longest_pause_s=0.02, outage_s=0.2))
        assert server.executed == 0
        assert len(set(server.arrived)) == 1, "the same bytes every time"


def test_poll_does_not_wait_for_an_answer_that_is_not_there() -> None:
    with scripted_redis("silence") as server:
        server.lanes[LANE] = LaneState(owner=OWNER)
        flusher = Flusher(server.topology, Journal("test", io.StringIO()), QUICK)
        commits = chain(1)
        flusher.start(commits, *packed(commits), LANES)
        assert flusher.poll() is False
        assert flusher.busy
        assert flusher.wait() is True
        assert server.executed == 1
        flusher.close()
