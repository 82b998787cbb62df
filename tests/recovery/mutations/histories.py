"""Histories in which one rule of the protocol is what keeps every event counted once; each returns what a reader sees in the end.

What may not live here: the mutations, which are made around a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest import mock

import polars as pl

from headrace.errors import Fenced, Stale
from headrace_schemas.stores.log import LogTable
from headrace_schemas.tables import event_schema
from headrace_streams import flushes
from headrace_streams.flusher import Flusher
from tests.recovery.mutations.rig import PAID, TOPIC_ID, Crash, Found, Rig, Worker, cards


def zombie_before_the_first_commit(rig: Rig) -> Found:
    """A worker freezes with a flush in its hands; it wakes when its successor has claimed and folded, but not committed yet."""
    rig.produce(*cards(4))
    rig.finish().stop()
    rig.produce(*cards(4))
    zombie = rig.start().frozen_at_flush(_read_and_tick)
    successor = rig.start()
    heir = successor.frozen_at_flush(_read_and_tick)
    first, second = zombie.wake(), heir.wake()
    rig.finish(None if second else successor)
    told = [] if isinstance(first, Fenced) else ["the zombie was not fenced"]
    if second is not None:
        told.append("the rightful owner was thrown out")
    return rig.compare(" and ".join(told))


def zombie_that_knows_less(rig: Rig) -> Found:
    """A worker freezes with the first commit of a chain in its hands and dies behind it; its successor had folded more by then."""
    rig.produce(*cards(6))
    rig.finish().stop()
    rig.produce(*cards(6))
    one_state, one_commit = (
        mock.patch.object(flushes, "MAX_COMMIT_KEYS", 1), mock.patch.object(Flusher, "_send", _send_one_and_crash),
    )  # fmt: skip
    with one_state, one_commit:
        zombie = rig.start().frozen_at_flush(Worker.read)
    successor = rig.finish()
    rig.produce(*cards(6))
    rig.finish(successor)
    zombie.wake()
    rig.finish()
    return rig.compare()


def store_that_went_back(rig: Rig) -> Found:
    """The replica that takes over does not know the last commits; the worker holds every state in its cache, and goes on."""
    rig.produce(*cards(4))
    worker = rig.finish()
    bring_back = rig.past()
    rig.produce("card 0", "card 1")
    worker.read()
    worker.tick()
    bring_back()
    rig.produce("card 2", "card 3")
    rig.finish(worker)
    return rig.compare()


def claim_that_was_forgotten(rig: Rig) -> Found:
    """Two workers claim one after the other, the first claim lost in a fail-over: they must not look like the same owner."""
    rig.produce("card 0")
    rig.produce("card 0", partition=1)
    rig.finish().stop()
    bring_back = rig.past()
    first = rig.start()
    rig.produce("card 0")
    first.read()
    first.tick()
    rig.produce("card 0")
    zombie = first.frozen_at_flush(_read_and_tick)
    bring_back()
    second = rig.start()
    rig.produce("card 0", "card 0", partition=1)
    second.read()
    second.flusher.wait()
    zombie.wake()
    with suppress(Stale, Fenced):
        second.tick()
    rig.finish()
    return rig.compare()


def chain_that_broke_off(rig: Rig) -> Found:
    """A lane's states need several commits; the worker is killed behind the first, so the watermark is behind some of them."""
    rig.produce(*cards(6), *cards(3))
    worker = rig.start()
    with mock.patch.object(flushes, "MAX_COMMIT_KEYS", 1), mock.patch.object(Flusher, "_send", _send_one_and_crash), \
            suppress(Crash):  # fmt: skip
        worker.read()
    rig.finish()
    return rig.compare()


def killed_before_the_states(rig: Rig) -> Found:
    """The worker is killed before the bytes of its states leave."""
    rig.produce(*cards(4))
    rig.finish().stop()
    rig.produce(*cards(4))
    worker = rig.start()
    with mock.patch.object(Flusher, "_send", _crash), suppress(Crash):
        worker.read()
    rig.finish()
    return rig.compare()


def lanes_of_two_heights(rig: Rig) -> Found:
    """The worker is killed when one lane of two was committed; the next one reads from the lower position on."""
    rig.produce(*cards(8))
    worker = rig.start()
    with mock.patch.object(Flusher, "_send", _send_one_and_crash), suppress(Crash):
        worker.read()
    rig.finish()
    return rig.compare()


def answer_lost_while_the_store_goes_back(rig: Rig) -> Found:
    """The answer to a flush is lost, and the replica that takes over does not know the flush before it either."""
    rig.produce(*cards(4))
    worker = rig.finish()
    bring_back = rig.past()
    rig.produce("card 0", "card 1")
    worker.read()
    worker.tick()
    rig.produce("card 2", "card 3")
    send, sent = worker.flusher._send, []

    def send_and_lose(indices: Sequence[int]) -> None:
        send(indices)
        if not sent:
            bring_back()
            rig.cut_connections()
        sent.append(indices)

    worker.flusher._send = send_and_lose  # type: ignore[method-assign]
    rig.finish(worker)
    return rig.compare()


def two_log_writers(_: Rig, directory: Path) -> Found:
    """Two log writers hold the same rows; the second commits between the first one's look and its commit."""
    schema = event_schema(PAID)
    rows = _log_rows(schema.frame_schema)
    first, second = (LogTable.open(directory / "log", schema, TOPIC_ID) for _ in range(2))
    first.append(rows.head(4), {0: (0, 4)})
    cut = LogTable._rows

    def cut_and_be_late(table: LogTable, *arguments: object) -> pl.DataFrame:
        fresh: pl.DataFrame = cut(table, *arguments)  # type: ignore[arg-type]
        if table is first:
            second.append(rows, {0: (0, rows.height)})
        return fresh

    note = "the first writer was not fenced"
    with mock.patch.object(LogTable, "_rows", cut_and_be_late):
        try:
            first.append(rows, {0: (0, rows.height)})
        except Fenced:
            note = ""
    offsets = (
        LogTable.open(directory / "log", schema, TOPIC_ID).scan().select("_offset").collect().to_series().to_list()
    )
    missing = len(set(range(rows.height)) - set(offsets))
    return Found(missing, len(offsets) - len(set(offsets)), 0, note)


def _read_and_tick(worker: Worker) -> None:
    worker.read()
    worker.tick()


# --- how a worker dies ------------------------------------------------------------------------------------------------


def _crash(_flusher: Flusher, _indices: Sequence[int]) -> None:
    raise Crash


_send = Flusher._send


def _send_one_and_crash(flusher: Flusher, indices: Sequence[int]) -> None:
    """Only the first commit leaves, and is applied."""
    _send(flusher, indices[:1])
    for line in flusher._lines.values():
        line.connection.wait()
    raise Crash


def _log_rows(schema: pl.Schema) -> pl.DataFrame:
    columns = {
        "card": [f"card {n}" for n in range(10)], "amount": [1.0] * 10, "at": list(range(10)), "_partition": [0] * 10,
        "_offset": list(range(10)), "_timestamp_us": [0] * 10, "_timestamp_type": [0] * 10, "_received_us": [0] * 10,
        "_event_time_us": list(range(10)), "_id_hash": list(range(10)),
    }  # fmt: skip
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)
