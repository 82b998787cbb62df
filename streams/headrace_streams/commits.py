"""What the answers to one flush mean: a ledger of commits, without I/O.

A flush is a sequence of commits; those of one lane form a chain, each naming the one before it as the head that it expects.

    answer                                     then
    ------                                     ----
    an integer (Redis' clock)                  APPLIED
    other head = id of this or a later one     APPLIED, and so is everything before it in the chain: a reply was lost
    other head = id of an earlier one          not applied, because one between them was refused; send again
    other head, unknown                        STALE: Redis went back in time
    no owner                                   STALE: Redis lost the lane
    the owner whom this worker replaced        STALE: Redis lost the claim
    other owner                                FENCED
    MOVED, LOADING, OOM …                      nothing was written; send again after a pause, to whom it is then
    NOSCRIPT                                   nothing was written; load the script, send again
    any other error                            STALE
    none                                       send the same bytes again, from the first unanswered one

What may not live here: sockets, clocks, encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from headrace.errors import Fenced, Stale
from headrace_schemas.stores.lanes import OTHER_HEAD, OTHER_OWNER

# Redis refuses these before a script's first write; old versions wrap the code into "ERR Error running script … -OOM …".
_NOTHING_WRITTEN = (
    "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY",
)  # fmt: skip
_WRAPPED = re.compile(rf"(?:^|-)({'|'.join(_NOTHING_WRITTEN)})\b")
# A script's states are one MSET, its first write: where a cluster refuses that one, because its slot is on the move, none is written.
_ON_THE_MOVE = re.compile(
    r"Script attempted to (access a non local key|execute a (write )?command while the cluster is down)"
)
_NOT_HERE = re.compile(r"\b(MOVED|ASK|READONLY)\b")  # another server is the one to ask, or soon will be


class Status(Enum):
    """What is known of a commit."""

    WAITING = "waiting"
    APPLIED = "applied"
    REFUSED = "refused"


@dataclass(slots=True)
class Commit:
    """One script call.

    Args:
        lane: which lane's chain it belongs to; any number that the caller understands.
        expected: the head that it names.
        id: its own id, the head after it.
    """

    lane: int
    expected: bytes
    id: bytes
    status: Status = Status.WAITING
    time_us: int | None = None  # Redis' clock at the commit; None where the reply was lost


def nothing_written(error: str) -> bool:
    """Whether an error reply means that the script has written nothing and may be sent again after a pause.

    >>> nothing_written("OOM command not allowed when used memory > 'maxmemory'.")
    True
    >>> nothing_written("ERR Error running script (call to f_5): @user_script: 9: -READONLY You can't write")
    True
    >>> nothing_written("WRONGTYPE Operation against a key holding the wrong kind of value")
    False
    """
    code = error.split(" ", 1)[0]
    if code in _NOTHING_WRITTEN:
        return True
    return code == "ERR" and bool(_WRAPPED.search(error) or _ON_THE_MOVE.search(error))


class Ledger:
    """What is known of one flush's commits.

    Args:
        commits: in the order of sending.
        name: the lane's name for messages.
        replaced: the owner that the worker found when it claimed the lane.
    """

    def __init__(
        self,
        commits: Sequence[Commit],
        name: Callable[[int], str],
        replaced: Callable[[int], bytes] = lambda lane: b"",
    ) -> None:
        self.commits = commits
        self._name, self._replaced = name, replaced
        self._chains: dict[int, list[int]] = {}
        for index, commit in enumerate(commits):
            self._chains.setdefault(commit.lane, []).append(index)
        self.refusal: str | None = None  # the last reason to pause before sending again
        self.scripts_missing = False
        self.moved = False  # some refusal says that another server is the one to send to

    @property
    def done(self) -> bool:
        """Whether everything is applied."""
        return all(commit.status is Status.APPLIED for commit in self.commits)

    def to_send(self) -> list[int]:
        """Commits that are not known to be applied, in order; sending them again starts a new round of answers."""
        self.refusal, self.scripts_missing, self.moved = None, False, False
        return [index for index, commit in enumerate(self.commits) if commit.status is not Status.APPLIED]

    def answer(self, index: int, reply: object) -> None:
        """Note the answer to a commit.

        Raises:
            Fenced: another worker owns the lane.
            Stale: Redis no longer holds what it acknowledged, or answers what it must not.
        """
        commit = self.commits[index]
        if isinstance(reply, int):
            self._apply(commit, reply)
        elif isinstance(reply, list) and len(reply) == 3 and reply[0] in (OTHER_OWNER, OTHER_HEAD):
            if reply[0] == OTHER_OWNER:
                self._other_owner(commit, reply[1])
            else:
                self._other_head(index, reply[2])
        elif str(reply).startswith("NOSCRIPT"):
            commit.status, self.scripts_missing = Status.REFUSED, True
        elif isinstance(reply, Exception) and nothing_written(str(reply)):
            commit.status, self.refusal = Status.REFUSED, str(reply)
            self.moved = self.moved or _NOT_HERE.search(str(reply)) is not None
        else:
            raise self._stale(commit, f"it answered {reply!r}")

    def _apply(self, commit: Commit, time_us: int | None) -> None:
        if commit.status is not Status.APPLIED:
            commit.status, commit.time_us = Status.APPLIED, time_us

    def _other_owner(self, commit: Commit, owner: bytes) -> None:
        if not owner:
            raise self._stale(commit, "the lane record is gone")
        if owner == self._replaced(commit.lane):
            raise self._stale(commit, "its owner is again the one whom this worker replaced")
        raise Fenced(self._name(commit.lane), owner.hex()[:8])

    def _other_head(self, index: int, head: bytes) -> None:
        commit = self.commits[index]
        chain = self._chains[commit.lane]
        ids = [self.commits[chain[0]].expected, *(self.commits[i].id for i in chain)]
        if head not in ids:
            raise self._stale(commit, f"its head is {head.hex() or 'empty'}")
        reached = ids.index(head)  # this many commits of the chain are applied
        place = chain.index(index)
        if reached > place:
            for earlier in chain[:reached]:
                self._apply(self.commits[earlier], None)
        elif any(self.commits[i].status is not Status.APPLIED for i in chain[reached:place]):
            commit.status = Status.REFUSED
        else:
            raise self._stale(commit, f"its head {head.hex() or 'empty'} is older than what it acknowledged")

    def _stale(self, commit: Commit, detail: str) -> Stale:
        error = Stale(self._name(commit.lane))
        error.add_note(detail)
        return error
