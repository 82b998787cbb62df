"""A client of an app in this process: the app's lifespan runs in an event loop of its own, requests are plain calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import httpx

from headrace_serving.app import ServingApp

T = TypeVar("T")


class Client:
    """Starts the app on entering, ends it on leaving; may be called from several threads."""

    def __init__(self, app: ServingApp) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lifespan = app.router.lifespan_context(app)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30)

    def __enter__(self) -> Client:
        self._thread.start()
        self._run(self._lifespan.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._http.aclose())
        self._run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, path: str) -> httpx.Response:
        """A GET."""
        return self._run(self._http.get(path))

    def post(self, path: str, **body: Any) -> httpx.Response:
        """A POST with ``json=`` or ``content=``."""
        return self._run(self._http.post(path, **body))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
