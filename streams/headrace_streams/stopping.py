"""Stopping on signals without a lock: SIGTERM and SIGINT set an event, whatever the program is doing at that moment.

A Python signal handler runs in the main thread, between two of its steps. Were it to set the event itself while that thread waits
for the event, and so may hold its lock, both would wait for ever: the program would never stop. So the interpreter writes the
signal's number into a socket, and a thread of its own reads it. What may not live here: what stopping means.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; afterwards they do again what they did before. For the main thread."""
    stop = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    listener = threading.Thread(target=_listen, args=(reader, stop), name="signals", daemon=True)
    listener.start()
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _leave_to_the_listener) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        writer.close()
        listener.join()
        reader.close()


def _listen(reader: socket.socket, stop: threading.Event) -> None:
    while numbers := reader.recv(64):
        if any(number in _SIGNALS for number in numbers):
            stop.set()


def _leave_to_the_listener(number: int, frame: object) -> None:
    """Without a handler in Python the interpreter would tell nobody."""
