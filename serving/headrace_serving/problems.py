"""What the service answers when it does not answer: one status and one body for each error.

    400 malformed_body       the body is not JSON, or not an object
    404 not_found            a model, view or path that nobody declared
    405 method_not_allowed   the path is there, but not for this method
    413 too_large            a body or a batch over its limit
    422 invalid_request      a field is missing, unknown, mistyped or outside its contract
    429 overloaded           as many requests are in flight as the service takes
    500 internal             a defect of the service; the log has the trace, the answer does not
    503 unavailable          Redis is lost, the deadline passed, or the model has no bundle that fits its definition

The body is ``{"error": {"code", "message", "details"?}}``; ``details`` names row, field, what was required and what came.
What may not live here: anything that decides whether a request is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from headrace.errors import ContractError, HeadraceError, NotFound, ServiceUnavailable, StoreError

RETRY_AFTER_S = 1


class Refusal(HeadraceError):  # noqa: N818  (it reads as a sentence where it is raised and caught)
    """A request that the service turns away for a reason of HTTP: its size, its form, its timing.

    >>> print(Refusal(413, "too_large", "the body has 2000 bytes, at most 1000 are taken"))
    the body has 2000 bytes, at most 1000 are taken
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return Refusal, (self.status, self.code, str(self))


class InvalidRequest(HeadraceError):  # noqa: N818
    """Everything that is wrong with a request's fields, so that a caller mends them in one go.

    The message is that of the first; ``problems`` has at most :data:`SHOWN` of them.
    """

    SHOWN = 10

    def __init__(self, problems: Sequence[ContractError], total: int) -> None:
        self.problems, self.total = tuple(problems[: self.SHOWN]), total
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"{problems[0]}{more}")

    def __reduce__(self) -> tuple[object, ...]:
        return InvalidRequest, (self.problems, self.total)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as HTTP says it."""

    status: int
    code: str
    message: str
    details: tuple[dict[str, object], ...] = ()

    def body(self) -> bytes:
        """The JSON body of the answer."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        return orjson.dumps({"error": error})


def problem_of(error: BaseException) -> Problem:
    r"""The answer to an error; one that nobody foresaw becomes a 500 that gives nothing away.

    >>> problem_of(ContractError("distance", "an integer", "'far'", row=0)).body().decode()
    '{"error":{"code":"invalid_request","message":"row 0, field \'distance\': required an integer, got \'far\'","details":[{"row":0,"field":"distance","required":"an integer","got":"\'far\'"}]}}'
    """
    match error:
        case Refusal():
            return Problem(error.status, error.code, str(error))
        case InvalidRequest():
            return Problem(422, "invalid_request", str(error), tuple(_detail(each) for each in error.problems))
        case ContractError():
            return Problem(422, "invalid_request", str(error), (_detail(error),))
        case NotFound():
            return Problem(404, "not_found", str(error))
        case ServiceUnavailable():
            # The address of a store is the operator's business: it is in the log and in /health/ready.
            return Problem(503, "unavailable", f"{error.service} does not answer; try again")
        case StoreError():
            return Problem(503, "unavailable", "the online store refused the read; try again")
        case _:
            return Problem(500, "internal", "the service failed on this request; its log says why")


def _detail(error: ContractError) -> dict[str, object]:
    return {"row": error.row, "field": error.field, "required": error.required, "got": error.got}
