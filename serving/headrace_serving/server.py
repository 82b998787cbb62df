"""The server process: uvicorn on uvloop and httptools, a socket that is bound before anything else, a clean end.

A service that cannot listen, cannot reach Redis or cannot reach Kafka at its start says so and exits (2 for a taken port, 3 for
a missing service); what fails later is a matter of answers and of ``/health/ready``. SIGTERM and SIGINT stop accepting,
finish what is in flight, flush the prediction log and exit with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import signal
import socket
from collections.abc import Generator

import uvicorn

from headrace.errors import ConfigError
from headrace_schemas.loading import LoadedProject
from headrace_serving import logs
from headrace_serving.app import ServingApp, create_app
from headrace_serving.stores import await_stores

_log = logging.getLogger(logs.LOGGER)

_BACKLOG = 2048
_GRACE_S = 15


def run_server(loaded: LoadedProject, host: str | None = None, port: int | None = None) -> int:
    """Serve a project until a signal; the process' exit code.

    Args:
        loaded: the project.
        host: address to listen on; by default the setting.
        port: its port, 0 for any free one; by default the setting.

    Raises:
        ConfigError: the port is taken, or the fast event loop and parser are not installed.
        ServiceUnavailable: Redis or Kafka did not answer within the start's patience.
    """
    logs.configure()
    require_engines()
    listener = bind(
        host if host is not None else loaded.settings.host, port if port is not None else loaded.settings.port
    )
    try:
        await_stores(loaded.settings)
        app = create_app(loaded)
        return _serve(app, listener)
    finally:
        listener.close()


def require_engines() -> None:
    """Refuse to start on the slow event loop or the slow parser.

    Raises:
        ConfigError: uvloop or httptools is missing.
    """
    missing = [name for name in ("uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serving: it runs on uvloop and httptools, but {' and '.join(missing)} cannot be imported; "
            f"install them with `pip install 'headrace[serving]'`"
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the address is taken, not this machine's, or needs more rights; the message says what to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = "another program listens there" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise ConfigError(
            f"serving: it must listen on {host} port {port}, but {reason}; "
            f"free the port, or choose another one with --port, HEADRACE_PORT or [serving] port in headrace.toml"
        ) from error
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, but a signal ends it with code 0 instead of killing the process a second time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _serve(app: ServingApp, listener: socket.socket) -> int:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        runner.run(_announced(server, listener))
    return 0 if server.started else 1


def _event_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _announced(server: _Server, listener: socket.socket) -> None:
    """Serve, and say so once requests are taken: a parent process waits for that line."""
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.wait([serving], timeout=0.02)
    if server.started:
        host, port = listener.getsockname()[:2]
        _log.info("serving", extra={"facts": {"event": "serving", "url": f"http://{host}:{port}"}})
    await serving
    _log.info("stopped", extra={"facts": {"event": "stopped"}})
