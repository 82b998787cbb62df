"""The errors of Headrace: one tree, free of transport, each with its facts as attributes.

    HeadraceError                 exit_code 1
    ├── DefinitionError           a declaration breaks a rule: subject, where, required, got, remedy
    ├── ConfigError               exit_code 2: settings or arguments are wrong
    ├── NotFound                  exit_code 2: a name that nobody declared: kind, name, known
    ├── ContractError             a value breaks its event's or request's contract: field, required, got, row
    ├── CodecError                bytes that are not what their schema says: what, reason
    └── StoreError                a store refused or lost something
        ├── ServiceUnavailable    exit_code 3: a broker or store does not answer: service, address
        ├── Fenced                another worker owns the lane or table: resource, owner
        ├── Gap                   a range does not follow the one before: resource, expected, got
        ├── Stale                 a store went back in time: resource
        └── IdentityError         a topic is not the one that was read before: topic, required, got

A message says where · what was required · what came · what to do. Exit codes are those of the command line. What may not
live here: anything that knows HTTP, Kafka or Redis.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace.suggestions import did_you_mean

_CORE = str(Path(__file__).parent) + os.sep


@dataclass(frozen=True, slots=True)
class Location:
    """A line of a user's file; printed relative to the working directory where it lies below it.

    >>> str(Location("features.py", 41))
    'features.py:41'
    """

    file: str
    line: int

    def __str__(self) -> str:
        path = Path(self.file)
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.line}"


def caller() -> Location:
    """The line outside the core that is calling it: the line that a user wrote."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_core(frame.f_code.co_filename):
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno)


def _is_core(filename: str) -> bool:
    # "<string>" is the code that dataclasses generate for their __init__.
    return filename.startswith(_CORE) or filename == "<string>"


class HeadraceError(Exception):
    """Whatever Headrace raises on purpose."""

    exit_code = 1


class DefinitionError(HeadraceError):
    """A declaration breaks a rule.

    Args:
        required: the rule, as a clause.
        got: what was declared instead, as a clause.
        remedy: what to write.
        subject: the definition, such as ``feature view 'origin_departures'``.
        where: the user's line; by default the line that is calling the core now.

    >>> print(DefinitionError(required="a window is at least as long as its tile '2m'", got="window '90s' is shorter",
    ...     remedy="declare tile='10s' or a window of at least '2m'", subject="feature view 'origin_departures'",
    ...     where=Location("features.py", 41)))
    feature view 'origin_departures' (features.py:41): a window is at least as long as its tile '2m', but window '90s' is shorter; declare tile='10s' or a window of at least '2m'
    """

    def __init__(
        self, *, required: str, got: str, remedy: str, subject: str | None = None, where: Location | None = None
    ) -> None:
        self.required, self.got, self.remedy, self.subject = required, got, remedy, subject
        self.where = where if where is not None else caller()
        place = f"{subject} ({self.where})" if subject else str(self.where)
        super().__init__(f"{place}: {required}, but {got}; {remedy}")

    def located(self, subject: str, where: Location) -> DefinitionError:
        """The same error, told of the definition that it belongs to."""
        return DefinitionError(required=self.required, got=self.got, remedy=self.remedy, subject=subject, where=where)

    def __reduce__(self) -> tuple[object, ...]:
        return _definition_error, (self.required, self.got, self.remedy, self.subject, self.where)


def _definition_error(required: str, got: str, remedy: str, subject: str | None, where: Location) -> DefinitionError:
    return DefinitionError(required=required, got=got, remedy=remedy, subject=subject, where=where)


class ConfigError(HeadraceError):
    """A setting or an argument is wrong; the message names it and what to write."""

    exit_code = 2


class NotFound(HeadraceError):  # noqa: N818  (it reads as a sentence where it is raised and caught)
    """Nobody declared this name.

    >>> print(NotFound("feature view", "origin_departure", ["origin_departures", "weather"]))
    there is no feature view 'origin_departure'; did you mean 'origin_departures'? known: origin_departures, weather
    """

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(f"there is no {kind} {name!r}; {did_you_mean(name, self.known)}")

    def __reduce__(self) -> tuple[object, ...]:
        return NotFound, (self.kind, self.name, self.known)


class ContractError(HeadraceError):
    """A value breaks the contract of its event or request.

    >>> print(ContractError("distance", "an integer of at least 0", "-3", row=2))
    row 2, field 'distance': required an integer of at least 0, got -3
    """

    def __init__(self, field: str, required: str, got: str, row: int | None = None) -> None:
        self.field, self.required, self.got, self.row = field, required, got, row
        place = f"field {field!r}" if row is None else f"row {row}, field {field!r}"
        super().__init__(f"{place}: required {required}, got {got}")

    def __reduce__(self) -> tuple[object, ...]:
        return ContractError, (self.field, self.required, self.got, self.row)


class CodecError(HeadraceError):
    """Bytes are not what their schema says.

    >>> print(CodecError("state of view 'weather'", "version 9 is newer than this program's 1"))
    state of view 'weather': version 9 is newer than this program's 1
    """

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(f"{what}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return CodecError, (self.what, self.reason)


class StoreError(HeadraceError):
    """A store refused or lost something."""


class ServiceUnavailable(StoreError):  # noqa: N818
    """A broker or a store does not answer.

    >>> print(ServiceUnavailable("Redis", "localhost:6379", "connection refused"))
    Redis at localhost:6379 does not answer (connection refused); start it, or set its address in headrace.toml
    """

    exit_code = 3

    def __init__(self, service: str, address: str, reason: str, remedy: str | None = None) -> None:
        self.service, self.address, self.reason = service, address, reason
        self.remedy = remedy or "start it, or set its address in headrace.toml"
        super().__init__(f"{service} at {address} does not answer ({reason}); {self.remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return ServiceUnavailable, (self.service, self.address, self.reason, self.remedy)


class Fenced(StoreError):  # noqa: N818
    """Another worker owns the lane or the table; this one has to stop and must not claim it again unasked.

    >>> print(Fenced("lane 3 of view 'weather'", owner="9f2c"))
    lane 3 of view 'weather' is owned by another worker (9f2c); this one stops
    """

    def __init__(self, resource: str, owner: str | None = None) -> None:
        self.resource, self.owner = resource, owner
        by = f" ({owner})" if owner else ""
        super().__init__(f"{resource} is owned by another worker{by}; this one stops")

    def __reduce__(self) -> tuple[object, ...]:
        return Fenced, (self.resource, self.owner)


class Gap(StoreError):  # noqa: N818
    """A range of offsets does not follow the one before it.

    >>> print(Gap("lane 3 of view 'weather', partition 0", expected=120, got=125))
    lane 3 of view 'weather', partition 0: offsets 120 to 124 are missing; restart the worker from its stored position
    """

    def __init__(self, resource: str, expected: int, got: int) -> None:
        self.resource, self.expected, self.got = resource, expected, got
        super().__init__(
            f"{resource}: offsets {expected} to {got - 1} are missing; restart the worker from its stored position"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return Gap, (self.resource, self.expected, self.got)


class Stale(StoreError):  # noqa: N818
    """A store went back in time: it no longer holds the last commit that it acknowledged.

    >>> print(Stale("lane 3 of view 'weather'"))
    lane 3 of view 'weather' no longer holds its last acknowledged commit; restart the worker from its stored position
    """

    def __init__(self, resource: str) -> None:
        self.resource = resource
        super().__init__(
            f"{resource} no longer holds its last acknowledged commit; restart the worker from its stored position"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return Stale, (self.resource,)


class IdentityError(StoreError):
    """A topic is not the one that was read before: re-created, truncated, or with other partitions.

    >>> print(IdentityError("flights.departures", required="topic id 5f", got="topic id 9a", remedy="run a backfill"))
    topic 'flights.departures': required topic id 5f, got topic id 9a; run a backfill
    """

    def __init__(self, topic: str, required: str, got: str, remedy: str) -> None:
        self.topic, self.required, self.got, self.remedy = topic, required, got, remedy
        super().__init__(f"topic {topic!r}: required {required}, got {got}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return IdentityError, (self.topic, self.required, self.got, self.remedy)
