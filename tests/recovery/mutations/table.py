"""The mutations: what is broken, how, and the history that shows it.

Some rules guard what another one guards as well; they are broken together with that one, and the table says so. What may not
live here: histories.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from headrace import kernel
from headrace.errors import Stale
from headrace_schemas.stores import lanes
from headrace_schemas.stores.lanes import TOKEN_BYTES
from headrace_schemas.stores.log import LogTable
from headrace_streams import flushes, session
from headrace_streams.commits import Commit
from headrace_streams.flusher import Flusher
from headrace_streams.positions import Positions
from headrace_streams.writer import ShardWriter
from tests.recovery.mutations import histories
from tests.recovery.mutations.rig import Found, Rig

Breaks = Callable[[Rig], AbstractContextManager[None]]
_OWNER_CHECK = b"if r[1] ~= ARGV[1] then return {1, r[1] or '', r[2] or ''} end\n"
_HEAD_CHECK = b"if (r[2] or '') ~= ARGV[2] then return {2, r[1], r[2] or ''} end\n"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One row of the table.

    Args:
        name: the rule that is gone.
        history: shows it.
        breaks: what is broken.
        beside: the other guard that has to be gone as well, if there is one.
        lanes: of the history's view.
        partitions: of its topic.
    """

    name: str
    history: Callable[..., Found]
    breaks: tuple[Breaks, ...]
    beside: str = ""
    lanes: int = 2
    partitions: int = 1

    def run(self, url: str, directory: Path, *, broken: bool) -> Found:
        """What a reader sees after the history, with the rule or without."""
        rig = Rig(url, f"mutation-{_numbers():d}", lanes=self.lanes, partitions=self.partitions)
        try:
            with ExitStack() as stack:
                for breaks in self.breaks if broken else ():
                    stack.enter_context(breaks(rig))
                if self.history is histories.two_log_writers:
                    return self.history(rig, directory / f"{self.name}-{broken}")
                return self.history(rig)
        finally:
            rig.close()


_counter = itertools.count()


def _numbers() -> int:
    return next(_counter)


# --- the store's scripts ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _script_without(*checks: bytes) -> Iterator[None]:
    script = lanes.COMMIT
    for check in checks:
        assert check in script, "the script is written otherwise now; so must be the mutation"
        script = script.replace(check, b"")
    call = b"$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n" % session.script_id(script).encode()
    scripts = tuple(script if one == lanes.COMMIT else one for one in session._SCRIPTS)
    assert scripts != session._SCRIPTS
    with mock.patch.object(flushes, "_CALL", call), mock.patch.object(session, "_SCRIPTS", scripts):
        yield


def owner_unchecked(_: Rig) -> AbstractContextManager[None]:
    """A commit is accepted from anybody."""
    return _script_without(_OWNER_CHECK)


def head_unchecked(_: Rig) -> AbstractContextManager[None]:
    """A commit is accepted behind any other."""
    return _script_without(_HEAD_CHECK)


def neither_checked(_: Rig) -> AbstractContextManager[None]:
    """Both."""
    return _script_without(_OWNER_CHECK, _HEAD_CHECK)


@contextlib.contextmanager
def counters(rig: Rig) -> Iterator[None]:
    """Owners and commits are numbered, one above what is found."""

    def following(token: bytes) -> bytes:
        return (int.from_bytes(token) + 1).to_bytes(TOKEN_BYTES)

    def numbered(lane: int, expected: bytes, _: bytes) -> Commit:
        return Commit(lane, expected, following(expected))

    rig.token_of = lambda of: following(of.records()[0].owner)
    with mock.patch.object(flushes, "Commit", numbered):
        yield


@contextlib.contextmanager
def two_scripts(rig: Rig) -> Iterator[None]:
    """The watermarks go first, the states after them."""
    waiting: list[tuple[bytes, Sequence[bytes]]] = []
    call, start = flushes._call, Flusher.start

    def call_without_marks(lane: Any, commit: Commit, told: Sequence[bytes], states: int) -> bytes:
        if told:
            waiting.append((rig.keys.lane_key(commit.lane), told))
        return call(lane, commit, [], states)

    def marks_then_states(flusher: Flusher, *arguments: Any) -> None:
        for key, told in waiting:
            rig.client.hset(key, mapping=dict(zip(told[::2], told[1::2], strict=True)))  # type: ignore[arg-type]
        waiting.clear()
        start(flusher, *arguments)

    with (
        mock.patch.object(flushes, "_call", call_without_marks),
        mock.patch.object(Flusher, "start", marks_then_states),
    ):
        yield


# --- the worker -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def entities_not_skipped(_: Rig) -> Iterator[None]:
    """A state does not know which offsets it holds."""
    update, unknown = kernel.update, itertools.count(1_000)

    def update_anew(layout: Any, states: Any, events: Any, slot: Any) -> Any:
        elsewhere = np.full(len(events.offset), next(unknown), np.int32)
        return update(layout, states, replace(events, partition=elsewhere), slot)

    with mock.patch.object(kernel, "update", update_anew):
        yield


@contextlib.contextmanager
def lanes_not_skipped(_: Rig) -> Iterator[None]:
    """A lane takes every row, also those below its position."""

    def every_row(_positions: Positions, _lanes: Any, _partition: Any, offset: Any) -> Any:
        return np.arange(len(offset))

    def never(_positions: Positions, _spans: Any) -> bool:
        return False

    with mock.patch.object(Positions, "new_rows", every_row), mock.patch.object(Positions, "is_old", never):
        yield


@contextlib.contextmanager
def cache_kept(_: Rig) -> Iterator[None]:
    """A worker that is refused claims again and goes on with what it has."""
    write = ShardWriter.write

    def write_all_the_same(writer: ShardWriter, items: Sequence[Any]) -> None:
        try:
            write(writer, items)
        except Stale:
            writer.flusher._ledger = writer._sending = None
            writer._claim()

    with mock.patch.object(ShardWriter, "write", write_all_the_same):
        yield


@contextlib.contextmanager
def recomputed(rig: Rig) -> Iterator[None]:
    """What is not answered is sent again under new ids, behind whatever head the store has by then."""
    send, seen = Flusher._send, []

    def send_anew(flusher: Flusher, indices: Sequence[int]) -> None:
        if flusher._ledger is not None and any(flusher._ledger is one for one in seen):
            _recompute(rig, flusher, indices)
        seen.append(flusher._ledger)
        send(flusher, indices)

    with mock.patch.object(Flusher, "_send", send_anew):
        yield


def _recompute(rig: Rig, flusher: Flusher, indices: Sequence[int]) -> None:
    assert flusher._ledger is not None
    bounds = flusher._bounds.tolist()
    pieces = [bytes(flusher._data[a:b]) for a, b in itertools.pairwise(bounds)]
    heads = [record.head for record in rig.records()]
    for index in indices:
        commit = flusher._ledger.commits[index]
        before = _bulk(commit.expected) + _bulk(commit.id)
        assert before in pieces[index]
        commit.expected, commit.id = heads[commit.lane], lanes.fresh_token()
        heads[commit.lane] = commit.id
        pieces[index] = pieces[index].replace(before, _bulk(commit.expected) + _bulk(commit.id))
    flusher._data = memoryview(b"".join(pieces))
    flusher._bounds = np.cumsum([0, *map(len, pieces)])


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


# --- the log ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def log_unfenced(_: Rig) -> Iterator[None]:
    """The log commits through the newest handle, not through the one that it has looked at."""
    commit = LogTable._commit

    def commit_behind_anything(table: LogTable, handle: Any, *arguments: Any) -> None:
        handle.update_incremental()
        commit(table, handle, *arguments)

    with mock.patch.object(LogTable, "_commit", commit_behind_anything):
        yield


MUTATIONS = (
    Mutation("owner check", histories.zombie_before_the_first_commit, (owner_unchecked,)),
    Mutation("owner check and head check", histories.zombie_that_knows_less, (neither_checked,)),
    Mutation("head check", histories.store_that_went_back, (head_unchecked,)),
    Mutation("random tokens", histories.claim_that_was_forgotten, (counters,), lanes=1, partitions=2),
    Mutation("entity skip", histories.chain_that_broke_off, (entities_not_skipped,)),
    Mutation(
        "lane skip", histories.lanes_of_two_heights, (lanes_not_skipped, entities_not_skipped), beside="entity skip"
    ),
    Mutation("states and watermark in one script", histories.killed_before_the_states, (two_scripts,)),
    Mutation("cache dropped when refused", histories.store_that_went_back, (cache_kept,)),
    Mutation("the same bytes again", histories.answer_lost_while_the_store_goes_back, (recomputed,)),
    Mutation("the log's fence", histories.two_log_writers, (log_unfenced,)),
)
