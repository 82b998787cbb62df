"""The model's Redis and its log: what the scripts do, in a few lines, and each rule of theirs with a switch.

What a state counts is kept apart from what it says of itself: `counts` is the truth that no real state holds, `included` the
offsets that the real header holds. What may not live here: workers, chance.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

from headrace_schemas.stores.lanes import OTHER_HEAD, OTHER_OWNER, LaneRecord

Place = tuple[int, int]  # partition, offset


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of the protocol; every one can be left out.

    Args:
        owner_check: a commit names its owner.
        head_check: a commit names the commit before it.
        random_tokens: owners and commits have random ids, not counters.
        entity_skip: an event at or below a state's included offset is not folded.
        lane_skip: an event below a lane's position is not folded.
        one_script: states and watermark are written together; otherwise the watermark goes first.
        cache_dropped: a refused worker drops what it has and begins anew; otherwise it claims again and goes on.
        same_bytes: what is not answered is sent again as it was; otherwise under a new id, behind whatever head is found.
        claim_decides: a claimed record overrules what was read before the claim.
        log_fenced: the log's commit goes through the handle that was loaded before.
        read_with_head: a state is read together with its lane's head, which has to be one that the reader knows.
    """

    owner_check: bool = True
    head_check: bool = True
    random_tokens: bool = True
    entity_skip: bool = True
    lane_skip: bool = True
    one_script: bool = True
    cache_dropped: bool = True
    same_bytes: bool = True
    claim_decides: bool = True
    log_fenced: bool = True
    read_with_head: bool = True


@dataclass(slots=True)
class State:
    """One entity's state."""

    counts: Counter[Place] = field(default_factory=Counter)
    included: dict[int, int] = field(default_factory=dict)

    def copy(self) -> State:
        return State(Counter(self.counts), dict(self.included))


@dataclass(frozen=True, slots=True)
class Command:
    """A commit on its way.

    Args:
        lane: which lane.
        owner: who sends it.
        expected: the head that it expects.
        id: the head after it.
        told: fields of the lane record.
        states: by entity.
    """

    lane: int
    owner: bytes
    expected: bytes
    id: bytes
    told: dict[bytes, bytes]
    states: dict[int, State]


@dataclass(slots=True)
class Lane:
    """A lane record and its states."""

    fields: dict[bytes, bytes] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)


class Store:
    """A Redis whose failover may forget what it acknowledged.

    Args:
        lanes: how many there are.
        rules: which the scripts keep.
    """

    def __init__(self, lanes: int, rules: Rules) -> None:
        self.lanes = [Lane() for _ in range(lanes)]
        self.rules = rules
        self._past: list[list[Lane]] = []
        self._clock = 0

    def remember(self) -> None:
        """A replica has come as far as this."""
        self._past = [*self._past[-5:], copy.deepcopy(self.lanes)]

    def fail_over(self, back: float) -> None:
        """A replica takes over; 0 is the oldest that is remembered. The others may stay ahead of it, and take over later."""
        if self._past:
            self.lanes = copy.deepcopy(self._past[int(back * len(self._past))])

    def record(self, lane: int) -> LaneRecord:
        return LaneRecord.decode(self.lanes[lane].fields)

    def claim(self, lane: int, token: bytes) -> tuple[LaneRecord, bytes]:
        """A take-over: the lane's record, and the owner's token."""
        fields = self.lanes[lane].fields
        if not self.rules.random_tokens:
            token = b"%d" % (int(fields.get(b"owner", b"0")) + 1)
        fields[b"owner"] = token
        return self.record(lane), token

    def commit(self, command: Command) -> int | list[object]:
        """What the commit script answers."""
        lane = self.lanes[command.lane]
        owner, head = lane.fields.get(b"owner", b""), lane.fields.get(b"head", b"")
        if self.rules.owner_check and owner != command.owner:
            return [OTHER_OWNER, owner, head]
        if self.rules.head_check and head != command.expected:
            return [OTHER_HEAD, owner, head]
        lane.fields |= {b"head": command.id, **command.told}
        if self.rules.one_script:
            self.write(command)
        self._clock += 1
        return self._clock

    def write(self, command: Command) -> None:
        """Write a commit's states."""
        self.lanes[command.lane].states |= {entity: state.copy() for entity, state in command.states.items()}


class Log:
    """A table with versions: rows, how far it has come, and who committed last."""

    def __init__(self, rules: Rules) -> None:
        self.rows: list[Place] = []
        self.version = 0
        self._rules = rules

    def append(self, loaded: int, rows: list[Place]) -> bool:
        """Commit through the handle that was loaded at a version; whether it was accepted."""
        if self._rules.log_fenced and loaded != self.version:
            return False
        self.rows += rows
        self.version += 1
        return True

    def next_offset(self, partition: int) -> int:
        return max((offset + 1 for p, offset in self.rows if p == partition), default=0)
