"""A client of the inference service, on one kept-alive connection. What may not live here: what the answers mean."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from headrace.errors import HeadraceError, ServiceUnavailable

_SERVERS_FAULT = 500
_IDLE_S = (
    2.0  # servers close idle connections, uvicorn after five seconds; a connection that may be closed is made anew
)


class Refused(HeadraceError):  # noqa: N818  (it reads as a sentence where it is raised and caught)
    """The service answered, but not with what was asked for.

    Args:
        status: the HTTP status.
        message: the service's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        self.exit_code = 3 if status >= _SERVERS_FAULT else 2
        super().__init__(f"the service answered {status}: {message}")

    def __reduce__(self) -> tuple[object, ...]:
        return Refused, (self.status, self.message)


class Service:
    """The inference service at one address.

    Args:
        url: such as ``http://127.0.0.1:8000``.
        timeout_s: for each answer.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        address = urlsplit(self.url)
        factory = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self._connection = factory(address.hostname or "127.0.0.1", address.port, timeout=timeout_s)
        self._used = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def predict(self, model: str, body: object) -> dict[str, Any]:
        """Ask for predictions.

        Args:
            model: the model's name.
            body: one row as a mapping, or ``{"rows": […]}``.

        Raises:
            Refused: the service did not answer with predictions.
            ServiceUnavailable: it does not answer at all.
        """
        return self._json("POST", f"/v1/models/{quote(model, safe='')}/predict", body)

    def features(self, view: str, keys: list[dict[str, object]], at: str | None = None) -> dict[str, Any]:
        """Ask for the features of entities; errors as in `predict`."""
        body: dict[str, object] = {"view": view, "keys": keys}
        return self._json("POST", "/v1/features", body if at is None else body | {"at": at})

    def readiness(self) -> dict[str, Any]:
        """What the service says of its own health, also while it is down for requests.

        Raises:
            ServiceUnavailable: it does not answer at all.
        """
        _, answer = self._ask("GET", "/health/ready", None)
        parsed = json.loads(answer)
        return parsed if isinstance(parsed, dict) else {}

    def await_answer(self, *, check: Callable[[], object], patience_s: float = 60.0) -> None:
        """Wait until the service answers at all; `check` is called meanwhile.

        Raises:
            ServiceUnavailable: it does not within the time.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self.readiness()
                return
            except ServiceUnavailable:
                if time.monotonic() > deadline:
                    raise
            check()
            time.sleep(0.05)

    def await_ready(self, model: str, *, patience_s: float = 60.0) -> None:
        """Wait until a model serves.

        Raises:
            ServiceUnavailable: it does not within the time.
        """
        deadline, reason = time.monotonic() + patience_s, "not ready in time"
        while time.monotonic() < deadline:
            try:
                facts = self.readiness().get("models", {}).get(model, {})
                if facts.get("status") == "serving":
                    return
                reason = str(facts.get("reason") or reason)
            except ServiceUnavailable as error:
                reason = error.reason
            time.sleep(0.05)
        raise ServiceUnavailable(f"model {model!r}", self.url, reason)

    def _json(self, method: str, path: str, body: object) -> dict[str, Any]:
        status, answer = self._ask(method, path, json.dumps(body, default=str).encode())
        if status != http.client.OK:
            raise Refused(status, _message(answer))
        parsed = json.loads(answer)
        assert isinstance(parsed, dict)
        return parsed

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if time.monotonic() - self._used > _IDLE_S:
            self._connection.close()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
            self._used = time.monotonic()
            return response.status, answer
        except (OSError, http.client.HTTPException) as error:
            # The connection is made anew by the next request. A request is never repeated: it may have been logged.
            self._connection.close()
            raise ServiceUnavailable(
                "the service",
                self.url,
                str(error) or type(error).__name__,
                "start it: `headrace serve` or `headrace dev`",
            ) from error


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer[:500].decode(errors="replace") or "nothing"
