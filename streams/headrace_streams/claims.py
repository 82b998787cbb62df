"""Becoming the owner of lanes, and giving them back. What may not live here: what an owner does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.errors import Fenced
from headrace_schemas.stores.lanes import CLAIM, DEAD_AFTER_US, RELEASE, LaneRecord, fresh_token
from headrace_schemas.stores.resp import Reply, pack
from headrace_streams.session import Session, script_id

_CLAIM_ID, _RELEASE_ID = script_id(CLAIM), script_id(RELEASE)
_ASK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims, and from whom it may take lanes at once. From anybody else it waits for silence.

    Args:
        token: the new owner; claiming twice with the same one is claiming once.
        dead: groups whose processes have all been seen to exit.
        take_over: take lanes from whoever owns them; only on an operator's word.
    """

    token: bytes = field(default_factory=fresh_token)
    dead: tuple[bytes, ...] = ()
    take_over: bool = False


def claim(
    session: Session,
    lane_keys: Sequence[bytes],
    claimant: Claimant,
    *,
    claim_s: float,
    name: Callable[[int], str],
) -> list[LaneRecord]:
    """Become the owner of lanes; returns their records as they were found, the only ones to be trusted.

    Args:
        session: with Redis.
        lane_keys: Redis keys of the lane records.
        claimant: who claims.
        claim_s: how long to wait for an owner to fall silent.
        name: a lane's name for messages, by its place in `lane_keys`.

    Raises:
        Fenced: an owner stays alive.
    """
    deadline = time.monotonic() + claim_s
    who = (claimant.token, "1" if claimant.take_over else "0", DEAD_AFTER_US, b"".join(claimant.dead))
    commands = [(key, pack("EVALSHA", _CLAIM_ID, 1, key, *who)) for key in lane_keys]
    records: list[LaneRecord | None] = [None] * len(commands)
    while None in records:
        left = [index for index, record in enumerate(records) if record is None]
        for index, reply in zip(left, session.answers([commands[index] for index in left]), strict=True):
            claimed, owner = _read(reply)
            records[index] = claimed
            if claimed is None and time.monotonic() > deadline:
                raise Fenced(name(index), owner.hex()[:8])
        if None in records:
            time.sleep(_ASK_AGAIN_S)
    return [record for record in records if record is not None]


def _read(reply: Reply) -> tuple[LaneRecord | None, bytes]:
    """The record if the claim succeeded, else the owner that is alive."""
    assert isinstance(reply, list)
    if reply[0] == 1:
        fields = reply[1]
        assert isinstance(fields, list)
        texts = [field for field in fields if isinstance(field, bytes)]
        return LaneRecord.decode(dict(zip(texts[::2], texts[1::2], strict=True))), b""
    owner = reply[1]
    assert isinstance(owner, bytes)
    return None, owner


def release(session: Session, lane_keys: Sequence[bytes], token: bytes) -> None:
    """Give lanes back, so that the next worker need not wait for silence."""
    session.answers([(key, pack("EVALSHA", _RELEASE_ID, 1, key, token)) for key in lane_keys])
