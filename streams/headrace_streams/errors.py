"""How the programs of this room end, and the errors that only they know.

exit code   what happened                                            what the supervisor does
0           stopped as asked                                         nothing
1           anything unforeseen                                      starts again, a few times
2           wrong settings or definitions                            stops with the message
3           Kafka or Redis is away                                   starts again, a few times
10          another worker group owns the lanes or the log           stops with the message
11          a gap, a store that went back in time, more partitions,
            records that expired before they were read,
            another process of the group that ended                 starts again
12          a topic is not the one that was read before              stops with the message
13          one process in place of several was careful enough       starts all of them again, at once
"""

from __future__ import annotations

from headrace.errors import ConfigError, DefinitionError, Fenced, Gap, HeadraceError, IdentityError, NotFound, Stale

STOPPED = 0
UNFORESEEN = 1
WRONG_SETTINGS = 2
SERVICE_AWAY = 3
FENCED = 10
RESTART = 11
IDENTITY = 12
CAREFUL_ENOUGH = 13

FINAL = frozenset({STOPPED, WRONG_SETTINGS, FENCED, IDENTITY})
"""Exit codes after which starting again would not help."""


class RestartNeeded(HeadraceError):  # noqa: N818  (it reads as a sentence where it is raised)
    """The worker group has to start anew, for example because a topic has more partitions now.

    >>> print(RestartNeeded("topic 'flights.departures' grew from 2 to 4 partitions", "read them"))
    topic 'flights.departures' grew from 2 to 4 partitions; the worker group starts again to read them
    """

    def __init__(self, reason: str, purpose: str) -> None:
        self.reason, self.purpose = reason, purpose
        super().__init__(f"{reason}; the worker group starts again to {purpose}")

    def __reduce__(self) -> tuple[object, ...]:
        return RestartNeeded, (self.reason, self.purpose)


class GroupBroken(HeadraceError):  # noqa: N818  (it reads as a sentence where it is raised)
    """Another process of the worker group ended, and this one with it.

    >>> print(GroupBroken(1))
    worker 1: another process of its group ended, so it ends too; see why in that one's lines; the group starts again
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        super().__init__(
            f"worker {worker}: another process of its group ended, so it ends too; see why in that one's lines; "
            f"the group starts again"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return GroupBroken, (self.worker,)


def exit_code(error: BaseException) -> int:
    """The exit code of a program that ends with this error.

    >>> exit_code(Fenced("lane 3")), exit_code(Stale("lane 3")), exit_code(ValueError())
    (10, 11, 1)
    """
    if isinstance(error, Fenced):
        return FENCED
    if isinstance(error, Gap | Stale | RestartNeeded | GroupBroken):
        return RESTART
    if isinstance(error, IdentityError):
        return IDENTITY
    if isinstance(error, ConfigError | NotFound | DefinitionError):
        return WRONG_SETTINGS
    if isinstance(error, HeadraceError):
        return error.exit_code
    return UNFORESEEN
