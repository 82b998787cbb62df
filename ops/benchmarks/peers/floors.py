"""What nobody can pass: reading the events alone, and writing the bytes alone. Each in a process of its own.

consume     the topic, consumed and decoded in columns; no state, no store
mset        MSETs of as many bytes as Headrace sent for these events, in values of its mean size; no events

Run by ``rig.py``; the last line of the output is the rate in events a second.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from headrace_schemas.loading import load_project
from ops.benchmarks.peers.contenders import HERE
from ops.benchmarks.stream import CARDS, card_name, consume_and_decode

_AT_A_TIME, _AHEAD = 200, 8


def main() -> int:
    events = int(os.environ["PEER_EVENTS"])
    if os.environ["PEER_WHAT"] == "consume":
        rate = consume_and_decode(load_project(HERE / "project", os.environ), events)
    else:
        rate = mset(os.environ["PEER_REDIS"], events, int(os.environ["FLOOR_BYTES"]), int(os.environ["FLOOR_VALUE"]))
    print(rate)
    return 0


def mset(address: str, events: int, sent: int, value: int) -> float:
    """Events a second, if they cost nothing but these bytes.

    Args:
        address: of the store.
        events: that the bytes are for.
        sent: bytes to send.
        value: bytes of one state.
    """
    host, port = address.split(":")
    commands = [
        _mset([card_name(card).encode() for card in range(first, first + _AT_A_TIME)], bytes(value))
        for first in range(0, CARDS, _AT_A_TIME)
    ]
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for command in commands:  # warm, and every key is there
            connection.sendall(command)
            _answers(connection, 1)
        started, left, open_commands, number = time.perf_counter(), sent, 0, 0
        while left > 0:
            command = commands[number % len(commands)]
            connection.sendall(command)
            left -= len(command)
            number += 1
            open_commands += 1
            if open_commands == _AHEAD:
                _answers(connection, 1)
                open_commands -= 1
        _answers(connection, open_commands)
        return events / (time.perf_counter() - started)


def _mset(keys: list[bytes], value: bytes) -> bytes:
    pairs = [b"$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value) for key in keys]
    return b"".join([b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * len(keys)), *pairs])


def _answers(connection: socket.socket, count: int) -> None:
    answer = b"+OK\r\n"
    left = count * len(answer)
    while left:
        part = connection.recv(left)
        if not part or part.strip(b"+OK\r\n"):
            raise SystemExit(f"the store answered {part!r}")
        left -= len(part)


if __name__ == "__main__":
    sys.exit(main())
