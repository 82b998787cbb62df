"""A session with Redis for commands that may be sent twice: reads, claims, releases.

Outages are waited out: a lost connection, a server that loads or refuses. Commits do not go this way, because for them the
order of repetition is part of the protocol (`headrace_streams.flusher`). What may not live here: the meaning of commands.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Sequence

from headrace.errors import ServiceUnavailable, StoreError
from headrace_schemas.stores.lanes import CLAIM, COMMIT, RELEASE
from headrace_schemas.stores.resp import Address, Connection, Disconnected, Reply, pack
from headrace_streams.commits import nothing_written
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience

_SCRIPTS = (COMMIT, CLAIM, RELEASE)


def script_id(script: bytes) -> str:
    """The name under which Redis knows a loaded script."""
    return hashlib.sha1(script, usedforsecurity=False).hexdigest()


def connect(address: Address, timeout_s: float) -> Connection:
    """A connection on which the scripts are known.

    Raises:
        Disconnected: nobody answers, or not as a master that takes us.
    """
    try:
        connection = Connection(address, timeout_s)
    except ServiceUnavailable as error:
        raise Disconnected(error.reason) from error
    load_scripts(connection)
    return connection


def load_scripts(connection: Connection) -> None:
    """Make the scripts known; waits for the answers.

    Raises:
        Disconnected: the server refused, or the connection broke.
    """
    connection.send(b"".join(pack("SCRIPT", "LOAD", script) for script in _SCRIPTS))
    for reply in [connection.wait() for _ in _SCRIPTS]:
        if isinstance(reply, Exception):
            raise Disconnected(str(reply))


class Session:
    """Asks Redis and waits out its outages.

    Args:
        address: of the Redis master.
        journal: where outages are reported.
        patience: how long to wait for what.
    """

    def __init__(self, address: Address, journal: Journal, patience: Patience) -> None:
        self._address, self._journal, self._patience = address, journal, patience
        self._connection: Connection | None = None
        self._asked: deque[bytes] = deque()  # sent, not answered; sent again on a new connection

    def ask(self, command: bytes) -> None:
        """Send a command now; its answer is fetched later, in order, by `answer`."""
        self._asked.append(command)
        try:
            if self._connection is not None:
                self._connection.send(command)
        except Disconnected as error:
            self._drop(str(error))

    def answer(self) -> Reply:
        """The answer to the oldest command asked.

        Raises:
            ServiceUnavailable: Redis has been away for longer than the patience.
            StoreError: it answers with an error that repeating does not mend.
        """
        since = time.monotonic()
        for pause_s in self._patience.pauses():
            try:
                reply = self._connected().wait()
                if not isinstance(reply, Exception):
                    self._asked.popleft()
                    return reply
                reason = str(reply)
                if not (nothing_written(reason) or reason.startswith("NOSCRIPT")):
                    raise StoreError(
                        f"Redis at {self._address}: a command of the feature pipeline was refused ({reason}); "
                        f"check the permissions of its user and the type of its keys"
                    )
            except Disconnected as error:
                reason = str(error)
            self._drop(reason)  # what was asked behind this command is asked again with it
            if time.monotonic() - since > self._patience.outage_s:
                raise ServiceUnavailable("Redis", str(self._address), reason)
            time.sleep(pause_s)
        raise AssertionError("pauses have no end")

    def answers(self, commands: Sequence[bytes]) -> list[Reply]:
        """Ask and wait for all answers."""
        for command in commands:
            self.ask(command)
        return [self.answer() for _ in commands]

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._address, self._patience.answer_s)
            for command in self._asked:
                self._connection.send(command)
        return self._connection

    def _drop(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close()
            self._journal.note("redis-disconnected", reason=reason, address=str(self._address))
        self._connection = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
