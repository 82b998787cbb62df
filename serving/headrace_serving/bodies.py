"""Request bodies: read whole and bounded, parsed once. Answers: written as two ASGI messages, without a response object."""

from __future__ import annotations

import json

import orjson
from starlette.types import Receive, Scope, Send

from headrace_serving.problems import RETRY_AFTER_S, Problem, Refusal

_JSON = (b"content-type", b"application/json")


class Disconnected(Exception):  # noqa: N818  (not an error of anybody's: the client went away)
    """The client closed the connection before its request was whole."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        Refusal: 413, as soon as the declared or the received length passes the limit; the rest is not read.
        Disconnected: the client went away.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(int(value), limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(len(body), limit)
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(size, limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def too_large(got: int, limit: int) -> Refusal:
    """The refusal of a body over the limit."""
    return Refusal(413, "too_large", f"the body has {got} bytes or more, at most {limit} are taken; send fewer rows")


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object; anything else is a :class:`Refusal` (400) that says what came.

    >>> parse_object(b'{"a": 1}')
    {'a': 1}
    >>> parse_object(b"[1]")
    Traceback (most recent call last):
    ...
    headrace_serving.problems.Refusal: the body must be a JSON object, but it is an array
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        parsed = _parse_leniently(body)
        if parsed is None:
            raise Refusal(400, "malformed_body", f"the body must be JSON, but {_shown(body)}: {error}") from error
    if type(parsed) is not dict:
        raise Refusal(400, "malformed_body", f"the body must be a JSON object, but it is {json_kind(parsed)}")
    return parsed


def _parse_leniently(body: bytes) -> object:
    """What Python makes of a body that is not quite JSON: validation then names the field that holds NaN or 1e999."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _shown(body: bytes) -> str:
    return "it is empty" if not body else f"it has {len(body)} bytes that are not"


def json_kind(value: object) -> str:
    """What JSON calls a value.

    >>> json_kind(None), json_kind(True), json_kind(1.5), json_kind({})
    ('null', 'a boolean', 'a number', 'an object')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


async def send_json(send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer with a JSON body."""
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with an error; those worth a second try say when."""
    extra = ((b"retry-after", b"%d" % RETRY_AFTER_S),) if problem.status in {429, 503} else ()
    await send_json(send, problem.status, problem.body(), extra)
