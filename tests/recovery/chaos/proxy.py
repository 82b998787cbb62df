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
        self._closed = False
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._accepting.join()
        self._reset_all()
        for serving in self._serving:
            serving.join()

    def set(self, way: Way, *, delay_s: float = 0.0) -> None:
        """From now on. What was swallowed is gone, so connections that lost bytes are reset when they pass again."""
        before, self._way, self.delay_s = self._way, way, delay_s
        if way is Way.CUT or before is Way.SWALLOW:
            self._reset_all()

    def _reset_all(self) -> None:
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._serving = [thread for thread in self._serving if thread.is_alive()]
            self._serving.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
            self._serving[-1].start()

    def _serve(self, client: socket.socket) -> None:
        """One connection: its two directions, until either end closes."""
        with client:
            if self._way is Way.CUT:
                return
            try:
                service = socket.create_connection((HOST, self.target), timeout=5)
            except OSError:
                return
            with service:
                service.settimeout(None)
                for end in (client, service):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open |= {client, service}
                if self._closed:
                    self._reset_all()
                back = threading.Thread(target=self._pump, args=(service, client), daemon=True)
                back.start()
                self._pump(client, service)
                back.join()
                with self._lock:
                    self._open -= {client, service}

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
