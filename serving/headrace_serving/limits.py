"""How much the service takes on: the size of a body and of a batch, the requests in flight, and the time for one.

A limit is a refusal at the door (413, 429) or an end (503); there is no queue that could grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace_serving.problems import Refusal


@dataclass(frozen=True, slots=True)
class Limits:
    """The service's limits.

    Args:
        body_bytes: the largest request body.
        batch_rows: the most rows or keys in one request.
        in_flight: the most requests being answered at one moment; the next one gets 429.
        deadline_s: from a request's first byte to its answer, the reading of its body included; then 503.
    """

    body_bytes: int = 1 << 20
    batch_rows: int = 1000
    in_flight: int = 512
    deadline_s: float = 2.0


class Admission:
    """Counts the requests in flight and refuses those over the limit.

    >>> door = Admission(1)
    >>> with door.admitted():
    ...     door.in_flight
    1
    >>> door.in_flight
    0
    """

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place while the block runs; raises :class:`Refusal` (429) when all are taken."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Take a place. The hot route calls this and :meth:`leave` itself: a context manager costs a microsecond."""
        if self.in_flight >= self.limit:
            raise Refusal(429, "overloaded", f"{self.limit} requests are in flight, which is the limit; try again")
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
