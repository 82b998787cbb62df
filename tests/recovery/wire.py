"""A wire between the feature pipeline and Redis that a test can see through and cut: a proxy that knows where commits end.

    worker ──commands──▶ Wire ──▶ Redis          armed for the n-th commit, it lets a part of what follows through,
           ◀──answers───      ◀──                keeps the answers back, and says that the moment has come

So a test kills at a moment counted in commits, not in milliseconds, and knows what was in flight. The worker's own code is
untouched. What may not live here: what a commit means, killing.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlparse

from headrace_schemas.stores.lanes import COMMIT
from headrace_streams.session import script_id

_RECEIVE_BYTES = 1 << 20
_COMMIT = script_id(COMMIT).encode()
_BEFORE_FIELDS = 8  # EVALSHA, script, number of keys, lane, owner, expected head, id, number of fields


@dataclass(frozen=True, slots=True)
class Cut:
    """When and where the wire is cut.

    Args:
        commit: the n-th commit of states from now on, counted from 1.
        chain: wait on for a commit that does not end its lane's chain.
        forward: how many commits from there on still reach Redis.
        torn: the commit after them reaches Redis in part.
    """

    commit: int
    chain: bool = False
    forward: int = 1
    torn: bool = False


@dataclass(slots=True)
class Seen:
    """What was in flight when the wire was cut.

    Args:
        unanswered: ids of commits that reached Redis and whose answers were kept back.
        inner: those of them that do not end their chain, by lane record.
        dropped: how many commits reached Redis no more.
    """

    unanswered: list[bytes] = field(default_factory=list)
    inner: list[tuple[bytes, bytes]] = field(default_factory=list)
    dropped: int = 0
    torn: bool = False


@dataclass(frozen=True, slots=True)
class _Commit:
    """What a packed script call says: EVALSHA script 1 lane owner expected id fields …"""

    lane: bytes
    id: bytes
    ends_chain: bool


class Wire:
    """A proxy in front of Redis.

    Args:
        url: of Redis.
    """

    def __init__(self, url: str) -> None:
        parsed = urlparse(url)
        assert parsed.hostname is not None
        assert parsed.port is not None
        self._target = parsed.hostname, parsed.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{parsed.path or '/0'}"
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._left = 0
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self.seen = Seen()
        self.reached = threading.Event()
        self._muted = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.clear()

    def arm(self, cut: Cut | None) -> None:
        """Begin anew, for one worker: count its commits and cut as told; None never cuts."""
        with self._lock:
            self._cut, self.seen = cut, Seen()
            self._left = cut.forward if cut else 0
            self._commits = 0
            self.reached.clear()
            self._muted.clear()

    @property
    def holds(self) -> bool:
        """Whether answers are being kept back, though fewer commits may have come than the cut lets through."""
        return self._muted.is_set()

    def clear(self) -> None:
        """After the worker is gone: let Redis finish what reached it, and forget all connections."""
        with self._lock:
            pairs, self._open = self._open, []
            threads, self._threads = self._threads, []
        for _, upstream in pairs:
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_WR)
        for thread in threads:
            thread.join(10)  # Redis closes when it has read to the end, so all that reached it is done
        for pair in pairs:
            for end in pair:
                end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._target)
            for end in (client, upstream):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._answers, args=(upstream, client), daemon=True)
            with self._lock:
                self._open.append((client, upstream))
                self._threads.append(back)
            back.start()
            threading.Thread(target=self._commands, args=(client, upstream), daemon=True).start()

    def _answers(self, upstream: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(_RECEIVE_BYTES):
                if not self._muted.is_set():
                    with contextlib.suppress(OSError):  # the worker may be gone; Redis is read to its end all the same
                        client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _commands(self, client: socket.socket, upstream: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := client.recv(_RECEIVE_BYTES):
                data, start = rest + data, 0
                passed: list[bytes] = []
                for end in _ends(data):
                    with self._lock:
                        passed.append(self._pass(data[start:end]))
                    start = end
                upstream.sendall(b"".join(passed))
                rest = data[start:]
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_WR)

    def _pass(self, command: bytes) -> bytes:
        """What Redis gets of a command."""
        if self.reached.is_set():
            self.seen.dropped += _commit(command) is not None
            return b""
        if self._cut is None or (commit := _commit(command)) is None:
            return command
        self._commits += 1
        if not self._muted.is_set():
            if self._commits < self._cut.commit or (self._cut.chain and commit.ends_chain):
                return command
            self._muted.set()
        if self._left:
            self._left -= 1
            self.seen.unanswered.append(commit.id)
            if not commit.ends_chain:
                self.seen.inner.append((commit.lane, commit.id))
            if not self._left and not self._cut.torn:
                self.reached.set()
            return command
        self.seen.torn = True
        self.reached.set()
        return command[: len(command) // 2]


def _ends(data: bytes) -> Iterator[int]:
    """Where each whole command ends."""
    at = 0
    while (line := data.find(b"\r\n", at)) > 0:
        place = line + 2
        for _ in range(int(data[at + 1 : line])):
            line = data.find(b"\r\n", place)
            if line < 0:
                return
            place = line + 4 + int(data[place + 1 : line])
            if place > len(data):
                return
        yield place
        at = place


def _commit(command: bytes) -> _Commit | None:
    """The commit that a command is, if it is one that writes states.

    A commit without states, which keeps a lane alive or advances an idle one, belongs to no chain and proves nothing.
    """
    arguments, place = [], command.find(b"\r\n") + 2
    count = int(command[1 : place - 2])
    for _ in range(min(count, _BEFORE_FIELDS)):
        line = command.find(b"\r\n", place)
        length = int(command[place + 1 : line])
        arguments.append(command[line + 2 : line + 2 + length])
        place = line + 4 + length
    if arguments[:2] != [b"EVALSHA", _COMMIT] or count < _BEFORE_FIELDS:
        return None
    fields = int(arguments[7])
    if count == _BEFORE_FIELDS + fields:
        return None
    return _Commit(lane=arguments[3], id=arguments[6], ends_chain=fields > 0)
