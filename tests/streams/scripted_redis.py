"""A Redis that keeps lanes and does to each commit what the test's script says.

It speaks enough RESP for the worker's two kinds of connection, runs the commit script's rules on a dictionary of lanes, and
takes one instruction per commit that arrives:

    "ok"             execute and answer
    "error: TEXT"    do not execute, answer with the error
    "lose reply"     execute, close the connection without an answer
    "lose command"   close the connection without executing
    "silence"        execute, never answer
    "rewind"         first go back to the lane as it was before its last commit, then execute and answer
    "other owner"    first another worker takes the lane, then execute and answer
    "forget"         first lose the lane, then execute and answer

Behind the end of the script everything is "ok".
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from headrace_schemas.stores.lanes import COMMIT
from headrace_schemas.stores.topology import parse_topology
from headrace_streams.session import script_id

_COMMIT_ID = script_id(COMMIT).encode()


@dataclass
class LaneState:
    """One lane as this server keeps it."""

    owner: bytes = b""
    head: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    states: dict[bytes, bytes] = field(default_factory=dict)

    def copy(self) -> LaneState:
        return LaneState(self.owner, self.head, dict(self.fields), dict(self.states))


class ScriptedRedis:
    """The server; commits that arrive are kept in `arrived`, byte for byte as argument lists."""

    def __init__(self, script: list[str]) -> None:
        self.script = list(script)
        self.lanes: dict[bytes, LaneState] = {}
        self.arrived: list[tuple[bytes, ...]] = []
        self.executed = 0
        self.connections = 0
        self._history: dict[bytes, list[LaneState]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.topology = parse_topology(f"redis://127.0.0.1:{self._listener.getsockname()[1]}")
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for opened in [self._listener, *self._open]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with suppress(OSError, ValueError):
            while line := stream.readline():
                arguments = []
                for _ in range(int(line[1:])):
                    size = int(stream.readline()[1:])
                    arguments.append(stream.read(size))
                    stream.read(2)
                reply = self._answer(tuple(arguments))
                if reply is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(reply)

    def _answer(self, command: tuple[bytes, ...]) -> bytes | None:
        if command[0] == b"ROLE":
            return b"*1\r\n$6\r\nmaster\r\n"
        if command[0] == b"EVALSHA" and command[1] == _COMMIT_ID:
            self.arrived.append(command)
            return self._commit(self.script.pop(0) if self.script else "ok", command)
        return b"+OK\r\n"

    def _commit(self, instruction: str, command: tuple[bytes, ...]) -> bytes | None:
        key = command[3]
        lane = self.lanes.setdefault(key, LaneState())
        history = self._history.setdefault(key, [])
        if instruction.startswith("error: "):
            return b"-" + instruction.removeprefix("error: ").encode() + b"\r\n"
        if instruction == "lose command":
            return None
        if instruction == "rewind":
            lane = self.lanes[key] = history.pop()
        elif instruction == "other owner":
            lane.owner = b"somebody else..."
        elif instruction == "forget":
            lane = self.lanes[key] = LaneState()
        reply = self._execute(key, lane, history, command[4:])
        return {"lose reply": None, "silence": b""}.get(instruction, reply)

    def _execute(self, key: bytes, lane: LaneState, history: list[LaneState], arguments: tuple[bytes, ...]) -> bytes:
        owner, expected, new = arguments[:3]
        if lane.owner != owner:
            return _refusal(1, lane)
        if lane.head != expected:
            return _refusal(2, lane)
        history.append(lane.copy())
        told, states = arguments[4 : 4 + int(arguments[3])], arguments[4 + int(arguments[3]) :]
        lane.head = new
        lane.fields.update(zip(told[::2], told[1::2], strict=True))
        lane.states.update(zip(states[::2], states[1::2], strict=True))
        self.executed += 1
        return b":%d\r\n" % (1_700_000_000_000_000 + self.executed)


def _refusal(kind: int, lane: LaneState) -> bytes:
    return b"*3\r\n:%d\r\n" % kind + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in (lane.owner, lane.head))


@contextmanager
def scripted_redis(*script: str) -> Iterator[ScriptedRedis]:
    """A server with a script, closed at the end."""
    server = ScriptedRedis(list(script))
    try:
        yield server
    finally:
        server.close()
