"""Redis' wire: addresses, packed commands and connections that pipeline without retrying anything.

The worker packs thousands of states straight from memory, and the service shares one round trip among requests; both need to
know exactly which commands were sent and answered. redis-py, which serves everything else, hides that and retries. A connection
here does as it is told and, when it breaks, says so once. What may not live here: the meaning of commands.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
from redis.connection import parse_url

from headrace.errors import ConfigError, ServiceUnavailable

Reply = int | bytes | None | list["Reply"] | hiredis.ReplyError

_RECEIVE_BYTES = 1 << 18


class Disconnected(Exception):  # noqa: N818  (an event of the wire; callers turn it into ServiceUnavailable or send again)
    """The connection broke, or an answer did not come in time; what was sent may or may not have been executed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is, and as whom to speak to it.

    >>> Address.parse("redis://app:secret@cache:6380/2")
    Address(cache:6380/2)
    """

    host: str
    port: int
    path: str  # of a Unix socket, else empty
    db: int
    username: str
    password: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in a URL: ``redis://``, ``rediss://`` (TLS) or ``unix://``.

        Raises:
            ConfigError: it is not such a URL.
        """
        try:
            parts = dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            return cls(
                host=str(parts.get("host", "localhost")),
                port=int(parts.get("port", 6379)),
                path=str(parts.get("path", "")),
                db=int(parts.get("db", 0)),
                username=str(parts.get("username") or ""),
                password=str(parts.get("password") or ""),
                tls=_tls(parts) if url.startswith("rediss://") else None,
            )
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"[redis] url must be like redis://localhost:6379/0, rediss://… or unix://…, but {_masked(url)!r} "
                f"is not ({error}); correct it in headrace.toml or HEADRACE_REDIS"
            ) from None

    def __str__(self) -> str:
        place = self.path or f"{self.host}:{self.port}"
        return f"{place}/{self.db}" if self.db else place

    def __repr__(self) -> str:
        return f"Address({self})"

    def handshake(self) -> list[bytes]:
        """The commands that open a session."""
        commands = []
        if self.password:
            commands.append(pack("AUTH", *([self.username] if self.username else []), self.password))
        if self.db:
            commands.append(pack("SELECT", self.db))
        return [*commands, pack("ROLE")]

    def check_handshake(self, replies: Sequence[Reply]) -> None:
        """Refuse a session that was not accepted, or a server that is not a master.

        Raises:
            ServiceUnavailable: an answer is an error, or the server is a replica.
        """
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ServiceUnavailable("Redis", str(self), str(reply))
        self.check_role(replies[-1])

    def check_role(self, reply: Reply) -> None:
        """Refuse a replica: what it answers may be older than what was acknowledged.

        Raises:
            ServiceUnavailable: the server is not a master.
        """
        if isinstance(reply, list) and reply and reply[0] != b"master":
            raise ServiceUnavailable("Redis", str(self), "it is a replica", "name the master in headrace.toml")


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _masked(url: str) -> str:
    scheme, at, place = url.rpartition("@")
    return f"{scheme.partition('://')[0]}://…@{place}" if at else url


def pack(*command: str | int | bytes) -> bytes:
    r"""A command as it goes over the wire.

    >>> pack("GET", b"k")
    b'*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'
    """
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says one element
    return packed


class Connection:
    """A pipelining connection of one thread: sending never waits for the server, answers come in order.

    Args:
        address: where to connect.
        timeout_s: how long connecting, and each wait for progress, may take.
    """

    def __init__(self, address: Address, timeout_s: float = 5.0) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._unsent: list[memoryview] = []
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._socket = self._open()
        for command in (commands := address.handshake()):
            self.send(command)
        try:
            address.check_handshake([self.wait() for _ in commands])
        except Exception:
            self.close()
            raise

    def _open(self) -> socket.socket:
        address = self._address
        try:
            if address.path:
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                opened.settimeout(self._timeout_s)
                opened.connect(address.path)
            else:
                opened = socket.create_connection((address.host, address.port), timeout=self._timeout_s)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                opened = address.tls.wrap_socket(opened, server_hostname=address.host)
            opened.setblocking(False)
            return opened
        except OSError as error:
            raise Disconnected(error.strerror or str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue packed commands and hand the socket what it takes now; the data must not change until it is answered."""
        self._unsent.append(memoryview(data))
        self._push()

    def _push(self) -> int:
        """Hand the socket what it takes; the number of bytes that it took."""
        taken = 0
        while self._unsent:
            head = self._unsent[0]
            try:
                sent = self._socket.send(head)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
            except OSError as error:
                raise Disconnected(error.strerror or str(error)) from error
            taken += sent
            if sent == len(head):
                self._unsent.pop(0)
            else:
                self._unsent[0] = head[sent:]
        return taken

    def _receive(self) -> int:
        """Take what has arrived; the number of bytes."""
        taken = 0
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return taken
            except OSError as error:
                raise Disconnected(error.strerror or str(error)) from error
            if not data:
                raise Disconnected("the server closed the connection")
            self._reader.feed(data)
            taken += len(data)

    def replies(self) -> list[Reply]:
        """The answers that are there, without waiting; queued commands move on meanwhile."""
        self._push()
        self._receive()
        found: list[Reply] = []
        while (reply := self._reader.gets()) is not _NOTHING:
            found.append(reply)
        return found

    def wait(self) -> Reply:
        """The next answer; waits for it as long as bytes keep moving.

        Raises:
            Disconnected: the connection broke, or nothing moved for `timeout_s`.
        """
        deadline = time.monotonic() + self._timeout_s
        while (reply := self._reader.gets()) is _NOTHING:
            if self._push() + self._receive():
                deadline = time.monotonic() + self._timeout_s
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise Disconnected(f"no answer within {self._timeout_s:g} s")
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            poll.poll(left * 1000)
        answer: Reply = reply
        return answer

    @property
    def sent(self) -> bool:
        """Whether everything queued has been handed to the socket."""
        return not self._unsent


_NOTHING = object()  # hiredis' own "incomplete" is False, which a reply could be mistaken for
