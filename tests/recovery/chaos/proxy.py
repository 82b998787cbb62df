"""A TCP proxy that can be told to cut, to swallow and to delay: the network between the pipeline and a service.

    client ──▶ Proxy ──▶ service        pass · cut (connections are reset, new ones refused) · swallow (bytes go nowhere, nobody
                                        is told) · delay (each piece waits)

What may not live here: protocols.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from enum import Enum
from typing import Self

_RECEIVE_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
HOST = "127.0.0.1"


class Way(Enum):
    """What becomes of bytes."""

    PASS = "pass"
    CUT = "cut"
    SWALLOW = "swallow"
    DELAY = "delay"


class Proxy:
    """One listening port in front of one service.

    Args:
        target: the service's port; it may be set later.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.delay_s = 0.0
        self._way = Way.PASS
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._reset_all()

    def set(self, way: Way, *, delay_s: float = 0.0) -> None:
        """From now on. What was swallowed is gone, so connections that lost bytes are reset when they pass again."""
        before, self._way, self.delay_s = self._way, way, delay_s
        if way is Way.CUT or before is Way.SWALLOW:
            self._reset_all()

    def _reset_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._way is Way.CUT:
                client.close()
                continue
            try:
                service = socket.create_connection((HOST, self.target), timeout=5)
                service.settimeout(None)
                for end in (client, service):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, service}
            for source, drain in ((client, service), (service, client)):
                threading.Thread(target=self._pump, args=(source, drain), daemon=True).start()

    def _pump(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(_RECEIVE_BYTES):
                if self._way is Way.SWALLOW:
                    continue
                if self._way is Way.DELAY:
                    time.sleep(self.delay_s)
                drain.sendall(data)
        for end in (source, drain):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(end)
