"""Notices that Redis throws states away, or may from now on, although it was checked: its settings can change while it runs.

What may not live here: the check at the start (`headrace_schemas.stores.online.check_policy`).
"""

from __future__ import annotations

import re

from headrace.errors import ConfigError
from headrace_schemas.stores.online import evicting
from headrace_schemas.stores.resp import Reply, pack
from headrace_streams.session import Session

_EVERY_S = 5.0
_COUNT = re.compile(rb"^evicted_keys:(\d+)", re.MULTILINE)
_POLICY = re.compile(rb"^maxmemory_policy:([\w-]+)", re.MULTILINE)


class Evictions:
    """Asks Redis every few seconds how many keys it has evicted, and whether it may.

    Args:
        session: with Redis.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: int | None = None
        self._asked_s = float("-inf")

    def check(self, now_s: float) -> None:
        """Ask, if it is time.

        Args:
            now_s: monotonic clock.

        Raises:
            ConfigError: keys were evicted since the first time, so some states are gone; or they may be from now on.
        """
        if now_s - self._asked_s < _EVERY_S:
            return
        self._asked_s = now_s
        told = self._session.of_all(pack("INFO"))
        if not told:
            return
        for reply in told:
            policy = _POLICY.search(reply) if isinstance(reply, bytes) else None
            if policy is not None and policy[1] != b"noeviction":
                raise evicting(str(self._session.topology), policy[1].decode())
        counts = [self._counted(reply) for reply in told]
        count = sum(counts)
        if self._known is not None and count > self._known:
            raise ConfigError(
                f"Redis must keep every key, but it evicted {count - self._known} since this worker started: states are gone "
                f"and features would be wrong; set maxmemory-policy to noeviction, give it more memory, and begin anew with "
                f"another [project] namespace in headrace.toml"
            )
        self._known = count

    @staticmethod
    def _counted(reply: Reply) -> int:
        found = _COUNT.search(reply) if isinstance(reply, bytes) else None
        return int(found[1]) if found else 0
