"""A session with Redis for commands that may be sent twice: reads, claims, releases.

Outages are waited out: a lost connection, a server that loads or refuses. Commits do not go this way, because for them the
order of repetition is part of the protocol (`headrace_streams.flusher`). What may not live here: the meaning of commands.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.errors import ServiceUnavailable, StoreError
from headrace_schemas.stores.lanes import CLAIM, COMMIT, FORGET, RELEASE
from headrace_schemas.stores.resp import Address, Connection, Disconnected, Reply, pack
from headrace_schemas.stores.topology import Topology
from headrace_streams.commits import nothing_written
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience

_SCRIPTS = (COMMIT, CLAIM, RELEASE, FORGET)
_MULTI, _EXEC = pack("MULTI"), pack("EXEC")


def script_id(script: bytes) -> str:
    """The name under which Redis knows a loaded script."""
    return hashlib.sha1(script, usedforsecurity=False).hexdigest()


class Links:
    """Connections on which the scripts are known, one to each primary that is needed.

    Args:
        topology: where the primaries are.
        journal: where lost connections are reported.
        timeout_s: how long connecting, and each wait for progress, may take.
    """

    def __init__(self, topology: Topology, journal: Journal, timeout_s: float) -> None:
        self.topology, self._journal, self._timeout_s = topology, journal, timeout_s
        self._open: dict[Address, Connection] = {}

    def locate(self, key: bytes) -> Address:
        """The primary of a key.

        Raises:
            Disconnected: nobody says.
        """
        try:
            return self.topology.locate(key)
        except ServiceUnavailable as error:
            raise Disconnected(error.reason) from error

    def to(self, address: Address) -> Connection:
        """The connection to a primary, made if there is none.

        Raises:
            Disconnected: nobody answers, or not as a primary that takes us.
        """
        connection = self._open.get(address)
        if connection is None:
            try:
                connection = Connection(address, self._timeout_s)
            except ServiceUnavailable as error:
                raise Disconnected(error.reason) from error
            load_scripts(connection)
            self._open[address] = connection
        return connection

    def drop(self, reason: str) -> None:
        """Close all connections and ask anew where the primaries are."""
        self.topology.forget()
        for address, connection in self._open.items():
            connection.close()
            self._journal.note("redis-disconnected", reason=reason, address=str(address))
        self._open.clear()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()


def load_scripts(connection: Connection) -> None:
    """Make the scripts known; waits for the answers.

    Raises:
        Disconnected: the server refused, or the connection broke.
    """
    connection.send(b"".join(pack("SCRIPT", "LOAD", script) for script in _SCRIPTS))
    for reply in [connection.wait() for _ in _SCRIPTS]:
        if isinstance(reply, Exception):
            raise Disconnected(str(reply))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was sent, and how many replies come to it."""

    key: bytes
    command: bytes
    replies: int


def _first_error(replies: Sequence[Reply]) -> Exception | None:
    """The first error of a command or of a transaction, in which an error may also stand within the last reply."""
    last = replies[-1]
    inner = last if len(replies) > 1 and isinstance(last, list) else []
    return next((reply for reply in (*replies, *inner) if isinstance(reply, Exception)), None)


class Session:
    """Asks Redis and waits out its outages.

    Args:
        topology: where the primaries are.
        journal: where outages are reported.
        patience: how long to wait for what.
    """

    def __init__(self, topology: Topology, journal: Journal, patience: Patience) -> None:
        self.topology, self._patience = topology, patience
        self._links = Links(topology, journal, patience.answer_s)
        self._connected = False
        # Sent, not answered. All are sent again on new connections, since each may be sent twice.
        self._asked: deque[_Asked] = deque()

    def ask(self, key: bytes, command: bytes) -> None:
        """Send a command now; its answer is fetched later, in order, by `answer`.

        Args:
            key: a key of the command, which says where it goes.
            command: packed.
        """
        self._ask(_Asked(key, command, 1))

    def ask_at_once(self, key: bytes, commands: Sequence[bytes]) -> None:
        """Send commands that see one and the same moment of the server; the answer is the list of theirs.

        Args:
            key: a key of each of them.
            commands: packed.
        """
        self._ask(_Asked(key, b"".join((_MULTI, *commands, _EXEC)), 2 + len(commands)))

    def _ask(self, asked: _Asked) -> None:
        self._asked.append(asked)
        try:
            if self._connected:
                self._links.to(self._links.locate(asked.key)).send(asked.command)
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
                self._connect()
                asked = self._asked[0]
                connection = self._links.to(self._links.locate(asked.key))
                replies = [connection.wait() for _ in range(asked.replies)]
                error = _first_error(replies)
                if error is None:
                    self._asked.popleft()
                    return replies[-1]
                reason = str(error)
                if not (nothing_written(reason) or reason.startswith("NOSCRIPT")):
                    raise StoreError(
                        f"Redis at {self.topology}: a command of the feature pipeline was refused ({reason}); "
                        f"check the permissions of its user and the type of its keys"
                    )
            except Disconnected as lost:
                reason = str(lost)
            self._drop(reason)  # what was asked behind this command is asked again with it
            if time.monotonic() - since > self._patience.outage_s:
                raise ServiceUnavailable("Redis", str(self.topology), reason)
            time.sleep(pause_s)
        raise AssertionError("pauses have no end")

    def answers(self, commands: Sequence[tuple[bytes, bytes]]) -> list[Reply]:
        """Ask and wait for all answers; each command with a key that says where it goes."""
        for key, command in commands:
            self.ask(key, command)
        return [self.answer() for _ in commands]

    def of_all(self, command: bytes) -> list[Reply]:
        """The answers of all primaries to a command without keys; for counters, so an outage gives fewer of them."""
        found: list[Reply] = []
        try:
            for address in self.topology.primaries():
                connection = self._links.to(address)
                connection.send(command)
                found.append(connection.wait())
        except (Disconnected, ServiceUnavailable) as error:
            self._drop(str(error))
        return found

    def _connect(self) -> None:
        if not self._connected:
            for asked in self._asked:
                self._links.to(self._links.locate(asked.key)).send(asked.command)
            self._connected = True

    def _drop(self, reason: str) -> None:
        self._links.drop(reason)
        self._connected = False

    def close(self) -> None:
        """Close the connections."""
        self._links.close()
        self._connected = False
