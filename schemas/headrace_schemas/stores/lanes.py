"""The lane record and the scripts that guard it: who owns a lane, its last commit, and how far it has come.

A lane is a fixed share of one view's entities. Its record is a Redis hash under the same hash tag as its states:

    owner                      16 random bytes: the worker that may write; the first 8 are those of its group
    beat                       Redis' clock in microseconds at the owner's last commit; silent for 3 s means dead
    head                       16 random bytes: the id of the last commit
    wm:<topic id>:<partition>  "<next offset>:<leader epoch>:<digest of the record before it>"

Every commit names the owner and the head that it expects; the script checks both before its first write, so a zombie, a
repeated command or a store that went back in time never mixes with what is there. Owners and heads are random, never
counters: a counter repeats after a failover and would match where it must not. The scripts return Redis' clock, the only
time at which a reader can have seen the value. What may not live here: connections, retries, what to do with an answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace.errors import CodecError

DEAD_AFTER_US = 3_000_000
TOKEN_BYTES = 16
GROUP_BYTES = 8
MAX_COMMIT_KEYS = 200  # longer scripts stall readers
MAX_COMMIT_BYTES = 1_000_000

# KEYS: lane record. ARGV: token, "1" to take over from anybody, microseconds of silence after which an owner is dead, the groups
# that are known to be dead, one behind the other. Returns the record as it was found, with the owner that is replaced.
# A repeated claim with the same token is the same claim. A beat from the future (the clock of a failed-over server) counts as
# silence too, or nobody could ever claim.
CLAIM = b"""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local r = redis.call('HMGET', KEYS[1], 'owner', 'beat')
local silence = math.abs(now - tonumber(r[2] or '0'))
local free = not r[1] or r[1] == ARGV[1] or ARGV[2] == '1' or silence >= tonumber(ARGV[3])
for at = 1, #ARGV[4], 8 do
  free = free or string.sub(r[1], 1, 8) == string.sub(ARGV[4], at, at + 7)
end
if not free then
  return {0, r[1], silence}
end
local found = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'beat', string.format('%.0f', now))
return {1, found, now}
"""

# KEYS: lane record. ARGV: owner, expected head, new head, number of record fields and values, those, then keys and values of
# states. One MSET and not a SET for each: half the server's time (measured: 1.0 against 1.8 us for a state of 600 bytes).
# State keys come as arguments; the lane record under KEYS has the same hash tag and routes them all.
COMMIT = b"""
local r = redis.call('HMGET', KEYS[1], 'owner', 'head')
if r[1] ~= ARGV[1] then return {1, r[1] or '', r[2] or ''} end
if (r[2] or '') ~= ARGV[2] then return {2, r[1], r[2] or ''} end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local n = tonumber(ARGV[4])
if #ARGV > 4 + n then redis.call('MSET', unpack(ARGV, 5 + n)) end
redis.call('HSET', KEYS[1], 'head', ARGV[3], 'beat', string.format('%.0f', now), unpack(ARGV, 5, 4 + n))
return now
"""

# KEYS: lane record. ARGV: owner, expected head, new head, number of record fields and values, those, then keys of states that go.
FORGET = b"""
local r = redis.call('HMGET', KEYS[1], 'owner', 'head')
if r[1] ~= ARGV[1] then return {1, r[1] or '', r[2] or ''} end
if (r[2] or '') ~= ARGV[2] and r[2] ~= ARGV[3] then return {2, r[1], r[2] or ''} end
local n = tonumber(ARGV[4])
if #ARGV > 4 + n then redis.call('DEL', unpack(ARGV, 5 + n)) end
redis.call('HSET', KEYS[1], 'head', ARGV[3], unpack(ARGV, 5, 4 + n))
return 1
"""

# KEYS: lane record. ARGV: owner. The next claim need not wait for three seconds of silence.
RELEASE = b"""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'beat', '0')
return 1
"""

FORGOTTEN_FIELD = b"forgotten"

OTHER_OWNER = 1  # first element of a commit's refusal
OTHER_HEAD = 2


def fresh_token(group: bytes = b"") -> bytes:
    """A new owner or commit id: 128 random bits, of which a group's are given."""
    return group + os.urandom(TOKEN_BYTES - len(group))


def fresh_group() -> bytes:
    """A new group of workers: the bits that the tokens of all of them begin with."""
    return os.urandom(GROUP_BYTES)


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a lane has folded one partition.

    Args:
        next: the first offset that is not folded yet.
        epoch: leader epoch of the record before it; −1 where the broker does not say.
        digest: digest of the record before it, in hexadecimal; empty where there was none to see.

    >>> Watermark(120, 3, "9f2c").encode()
    b'120:3:9f2c'
    >>> Watermark.decode(b"120:3:9f2c")
    Watermark(next=120, epoch=3, digest='9f2c')
    """

    next: int
    epoch: int = -1
    digest: str = ""

    def encode(self) -> bytes:
        return f"{self.next}:{self.epoch}:{self.digest}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Watermark:
        try:
            following, epoch, digest = data.decode().split(":")
            return cls(int(following), int(epoch), digest)
        except ValueError:
            raise CodecError("lane record", f"{data!r} is not <next>:<leader epoch>:<digest>") from None


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """What Redis knows of a lane; a lane that nobody claimed yet has no owner, no head and no watermarks.

    `forgotten` counts the deletions of the forgotten-list (`headrace_schemas.forgotten`) that were carried out in it.
    """

    owner: bytes = b""
    beat_us: int = 0
    head: bytes = b""
    watermarks: Mapping[tuple[str, int], Watermark] = field(default_factory=dict)
    forgotten: int = 0

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> LaneRecord:
        """The record from the fields of its hash."""
        watermarks = {}
        for name, value in fields.items():
            if name.startswith(b"wm:"):
                topic_id, _, partition = name[3:].decode().rpartition(":")
                watermarks[topic_id, int(partition)] = Watermark.decode(value)
        forgotten = int(fields.get(FORGOTTEN_FIELD, b"0"))
        return cls(
            fields.get(b"owner", b""), int(fields.get(b"beat", b"0")), fields.get(b"head", b""), watermarks, forgotten
        )


def watermark_field(topic_id: str, partition: int) -> bytes:
    """The record's field for one partition.

    >>> watermark_field("0F3c", 2)
    b'wm:0F3c:2'
    """
    return f"wm:{topic_id}:{partition}".encode()


def lowest(records: Iterable[LaneRecord], topic_id: str, partition: int) -> int | None:
    """The lowest next offset over lanes; None where a lane has none, since it has to begin at the beginning."""
    found = [record.watermarks.get((topic_id, partition)) for record in records]
    return None if None in found else min((mark.next for mark in found if mark is not None), default=None)
