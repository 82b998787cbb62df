"""Deleting entities from the online store, through their lanes, before a worker reads anything.

    forgotten-list ──▶ lanes that hold such an entity ──claim──▶ one script: the state goes, the watermark goes back to the deletion

The state may hold events that came after the deletion, which stay; so the lane's watermark goes back to the deletion's bounds, and these
events come again. The other entities of the lane skip them by their own included offsets, as they do after any replay, and the
forgotten events themselves are passed over by every reader. A worker that runs notices a longer list and starts again. What may not
live here: the list, the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import Fenced, Stale, StoreError
from headrace.views import FeatureView
from headrace_schemas.forgotten import Forgotten
from headrace_schemas.keys import ViewKeys
from headrace_schemas.settings import Settings
from headrace_schemas.stores.forgotten import length_of_list
from headrace_schemas.stores.lanes import (
    FORGET,
    FORGOTTEN_FIELD,
    OTHER_OWNER,
    LaneRecord,
    Watermark,
    fresh_token,
    watermark_field,
)
from headrace_schemas.stores.online import connect, lane_records
from headrace_schemas.stores.resp import Reply, pack
from headrace_schemas.stores.topology import parse_topology
from headrace_streams.claims import Claimant, claim
from headrace_streams.errors import RestartNeeded
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.session import Session, script_id

_FORGET_ID = script_id(FORGET)


@dataclass(frozen=True, slots=True)
class _Task:
    """What has to be done in one lane."""

    view: FeatureView
    keys: ViewKeys
    lane: int
    entries: tuple[Forgotten, ...]

    @property
    def name(self) -> str:
        return f"lane {self.lane} of view {self.view.name!r}"


def forget_entities(
    settings: Settings,
    views: Sequence[FeatureView],
    entries: Sequence[Forgotten],
    claimant: Claimant,
    patience: Patience,
    journal: Journal,
    *,
    worker: int,
    workers: int,
) -> None:
    """Carry out what the list asks for in this worker's lanes, each deletion once.

    Args:
        settings: the project's.
        views: its views.
        entries: the whole list.
        claimant: as whom to claim the lanes; it keeps them.
        patience: how long to wait for what.
        journal: where it is reported.
        worker: this process's number.
        workers: how many there are.

    Raises:
        Fenced: another group owns the lanes.
        Stale: Redis went back in time meanwhile; start again.
        ServiceUnavailable: Redis is away.
    """
    tasks = _tasks(settings, views, entries, worker, workers) if entries else []
    if not tasks:
        return
    session = Session(parse_topology(settings.redis), journal, patience)
    try:
        lane_keys = [task.keys.lane_key(task.lane) for task in tasks]
        records = claim(session, lane_keys, claimant, claim_s=patience.claim_s, name=lambda place: tasks[place].name)
        for task, record in zip(tasks, records, strict=True):
            _carry_out(session, task, record, claimant.token)
    finally:
        session.close()
    journal.note("forgotten", lanes=len(tasks), entities=len({one.position for task in tasks for one in task.entries}))


def _tasks(
    settings: Settings, views: Sequence[FeatureView], entries: Sequence[Forgotten], worker: int, workers: int
) -> list[_Task]:
    tasks = []
    client = connect(settings.redis)
    try:
        for view in views:
            keys = ViewKeys(settings.namespace, view)
            by_lane: dict[int, list[Forgotten]] = {}
            for one in entries:
                if one.entity == view.entity.name and keys.lane_of(one.key_hash) % workers == worker:
                    by_lane.setdefault(keys.lane_of(one.key_hash), []).append(one)
            records = lane_records(client, keys) if by_lane else []
            for lane, asked in sorted(by_lane.items()):
                left = tuple(one for one in asked if one.position >= records[lane].forgotten)
                if left:
                    tasks.append(_Task(view, keys, lane, left))
    finally:
        client.close()
    return tasks


def _carry_out(session: Session, task: _Task, record: LaneRecord, owner: bytes) -> None:
    fields: list[bytes | str] = [FORGOTTEN_FIELD, str(1 + max(one.position for one in task.entries))]
    for place, mark in _marks(record, task.entries).items():
        fields += [watermark_field(*place), mark.encode()]
    names = _names(session, task)
    # Sent again after a lost answer, the same command finds its own head and does the same again.
    command = pack(
        "EVALSHA",
        _FORGET_ID,
        1,
        task.keys.lane_key(task.lane),
        owner,
        record.head,
        fresh_token(),
        len(fields),
        *fields,
        *names,
    )
    session.ask(task.keys.lane_key(task.lane), command)
    _judge(session.answer(), task)


def _marks(record: LaneRecord, entries: Sequence[Forgotten]) -> Mapping[tuple[str, int], Watermark]:
    """The watermarks that have to go back."""
    found: dict[tuple[str, int], Watermark] = {}
    for one in entries:
        for topic_id, ends in one.bounds.items():
            for partition, end in ends.items():
                known = found.get((topic_id, partition), record.watermarks.get((topic_id, partition)))
                if known is not None and known.next > end:
                    found[topic_id, partition] = Watermark(end)
    return found


def _names(session: Session, task: _Task) -> list[bytes]:
    """The keys of the states that go: found by their hash, because the list does not know them by name."""
    from headrace.kernel import hash_bytes

    wanted, prefix = {one.key_hash for one in task.entries}, task.keys.state_key(task.lane, b"")
    found: list[bytes] = []
    cursor = b"0"
    while True:
        session.ask(prefix, pack("SCAN", cursor, "MATCH", _literal(prefix) + b"*", "COUNT", 1000))
        reply = session.answer()
        assert isinstance(reply, list)
        position, names = reply
        assert isinstance(position, bytes)
        assert isinstance(names, list)
        cursor = position
        states = [name for name in names if isinstance(name, bytes)]
        found += [name for name in states if hash_bytes(name[len(prefix) :]) in wanted]
        if cursor == b"0":
            return found


def _literal(pattern: bytes) -> bytes:
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in pattern)


def _judge(reply: Reply, task: _Task) -> None:
    if isinstance(reply, list):
        if reply[0] == OTHER_OWNER:
            raise Fenced(task.name, reply[1].hex()[:8] if isinstance(reply[1], bytes) else "")
        raise Stale(task.name)
    if not isinstance(reply, int):
        raise StoreError(f"{task.name}: a deletion was answered with {reply!r}; look at the Redis server's log")


def longer_list(settings: Settings, known: int, *, every_s: float) -> Callable[[], None]:
    """A check that the list has not grown; looks three times less often than it is called.

    Args:
        settings: the project's.
        known: how long the list was.
        every_s: how often it is called.

    Raises:
        RestartNeeded: it has.
    """
    looked_s = time.monotonic()

    def check() -> None:
        nonlocal looked_s
        if time.monotonic() - looked_s < 3 * every_s:
            return
        looked_s = time.monotonic()
        if length_of_list(settings) > known:
            raise RestartNeeded("an entity is to be forgotten", "do it")

    return check
