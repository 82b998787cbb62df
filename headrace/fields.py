"""Fields: the type and the contract of one value of an event, an entity key or a request.

A field is independent of any encoding; ``events`` turns it into Avro, ``assembly`` into columns. What may not live here:
names (a field gets its name from the mapping that holds it) and I/O.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from headrace.errors import DefinitionError

#: Aggregated integers stay below this, so that a column of nullable integers can be held in float64 without loss.
EXACT_INTEGER = 2**53
INT64_MAX = 2**63 - 1


class FieldType(enum.Enum):
    """The types of the platform: each has one Avro type, one column type and one null."""

    STRING = "string"
    INT64 = "int64"
    FLOAT64 = "float64"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"

    @property
    def numeric(self) -> bool:
        """Whether values of this type can be aggregated and computed with."""
        return self in (FieldType.INT64, FieldType.FLOAT64)


class Required(enum.Enum):
    """The type of `REQUIRED`."""

    REQUIRED = "required"


REQUIRED = Required.REQUIRED
Default = str | int | float | bool | None | Required


@dataclass(frozen=True, slots=True)
class Field:
    """Type and contract of one value; made by ``hr.string()``, ``hr.int64()`` and their siblings.

    Attributes:
        type: the type; TIMESTAMP is microseconds since 1970 in UTC.
        nullable: whether a value may be absent.
        quantum: the decimal step to which values are rounded where they are summed; None for types that are not.
        ge: the least value allowed, if any.
        le: the greatest value allowed, if any.
        one_of: the only values allowed, if declared.
        description: for people.
        aliases: names that the field had before; a record of another schema may hold it under one of them.
        default: what the field is in records whose schema does not know it; see `fallback`.
    """

    type: FieldType
    nullable: bool = False
    quantum: str | None = None
    ge: int | float | None = None
    le: int | float | None = None
    one_of: tuple[str | int, ...] | None = None
    description: str = ""
    aliases: tuple[str, ...] = ()
    default: Default = REQUIRED

    def __post_init__(self) -> None:
        subject = f"field hr.{self.type.value}()"
        if self.nullable and self.default is None:
            object.__setattr__(self, "default", REQUIRED)
        _check_default(self, subject)
        if self.quantum is not None:
            object.__setattr__(self, "quantum", _normal_quantum(self.quantum, subject))
        for name in ("ge", "le"):
            _check_bound(name, getattr(self, name), self.type, subject)
        if self.ge is not None and self.le is not None and self.ge > self.le:
            raise DefinitionError(
                required="the lower bound is at most the upper",
                got=f"ge={self.ge} is above le={self.le}",
                remedy="swap them",
                subject=subject,
            )
        if self.one_of is not None:
            object.__setattr__(self, "one_of", _checked_choices(self.one_of, self.type, subject))

    @property
    def expected(self) -> str:
        """What a value must be, for messages.

        >>> int64(ge=0, nullable=True).expected
        'an integer of at least 0, or null'
        """
        return describe(self)

    @property
    def fallback(self) -> Default:
        """What the field is in records that do not have it: null for a nullable one; `REQUIRED` where they cannot be read.

        >>> int64(default=0).fallback, int64(nullable=True).fallback
        (0, None)
        """
        return None if self.nullable else self.default

    def canonical(self) -> dict[str, object]:
        """The meaning as JSON-able data; neither the description nor what is read from records of other schemas enters."""
        return {
            "type": self.type.value,
            "nullable": self.nullable,
            "quantum": self.quantum,
            "ge": self.ge,
            "le": self.le,
            "one_of": None if self.one_of is None else list(self.one_of),
        }


def string(
    *,
    nullable: bool = False,
    one_of: tuple[str, ...] | list[str] | None = None,
    description: str = "",
    aliases: Iterable[str] = (),
    default: str | Required | None = REQUIRED,
) -> Field:
    """A text field.

    Args:
        nullable: whether it may be absent.
        one_of: the only texts allowed.
        description: for people.
        aliases: names that it had in older schemas.
        default: its value in records whose schema does not have it; null for a nullable one.

    >>> string(one_of=["EWR", "JFK", "LGA"]).expected
    "one of 'EWR', 'JFK', 'LGA'"
    """
    choices = None if one_of is None else tuple(one_of)
    return Field(
        FieldType.STRING, nullable, one_of=choices, description=description, aliases=tuple(aliases), default=default
    )


def int64(
    *,
    nullable: bool = False,
    ge: int | None = None,
    le: int | None = None,
    one_of: tuple[int, ...] | list[int] | None = None,
    quantum: str = "1",
    description: str = "",
    aliases: Iterable[str] = (),
    default: int | Required | None = REQUIRED,
) -> Field:
    """A whole number. One that is aggregated has to stay below 2**53 in magnitude.

    Args:
        nullable: whether it may be absent.
        ge: the least value allowed.
        le: the greatest value allowed.
        one_of: the only values allowed.
        quantum: the decimal step at which it is summed.
        description: for people.
        aliases: names that it had in older schemas.
        default: its value in records whose schema does not have it; null for a nullable one.
    """
    choices = None if one_of is None else tuple(one_of)
    return Field(FieldType.INT64, nullable, quantum, ge, le, choices, description, tuple(aliases), default)


def float64(
    *,
    nullable: bool = False,
    ge: float | None = None,
    le: float | None = None,
    quantum: str = "0.000001",
    description: str = "",
    aliases: Iterable[str] = (),
    default: float | Required | None = REQUIRED,
) -> Field:
    """A finite number.

    Args:
        nullable: whether it may be absent.
        ge: the least value allowed.
        le: the greatest value allowed.
        quantum: the decimal step to which a value is rounded where it is summed, so that sums are exact and do not
            depend on the order of events: ten payments of 0.10 sum to exactly 1.0.
        description: for people.
        aliases: names that it had in older schemas.
        default: its value in records whose schema does not have it; null for a nullable one.

    >>> float64(quantum="0.010").quantum
    '0.01'
    """
    return Field(FieldType.FLOAT64, nullable, quantum, ge, le, None, description, tuple(aliases), default)


def boolean(
    *,
    nullable: bool = False,
    description: str = "",
    aliases: Iterable[str] = (),
    default: bool | Required | None = REQUIRED,
) -> Field:
    """True or false.

    Args:
        nullable: whether it may be absent.
        description: for people.
        aliases: names that it had in older schemas.
        default: its value in records whose schema does not have it; null for a nullable one.
    """
    return Field(FieldType.BOOLEAN, nullable, description=description, aliases=tuple(aliases), default=default)


def timestamp(*, nullable: bool = False, description: str = "", aliases: Iterable[str] = ()) -> Field:
    """A moment, to the microsecond, in UTC.

    Args:
        nullable: whether it may be absent.
        description: for people.
        aliases: names that it had in older schemas.
    """
    return Field(FieldType.TIMESTAMP, nullable, description=description, aliases=tuple(aliases))


def describe(field: Field) -> str:
    """What a value of this field must be, as a noun phrase."""
    if field.one_of is not None:
        text = "one of " + ", ".join(repr(choice) for choice in field.one_of)
    else:
        text = {
            FieldType.STRING: "a string",
            FieldType.INT64: "an integer",
            FieldType.FLOAT64: "a finite number",
            FieldType.BOOLEAN: "true or false",
            FieldType.TIMESTAMP: "a time (ISO 8601 with a zone, or microseconds since 1970)",
        }[field.type]
        if field.ge is not None:
            text += f" of at least {field.ge}"
        if field.le is not None:
            text += f"{' and' if field.ge is not None else ' of'} at most {field.le}"
    return f"{text}, or null" if field.nullable else text


_PYTHON = {
    FieldType.STRING: (str,),
    FieldType.INT64: (int,),
    FieldType.FLOAT64: (float, int),
    FieldType.BOOLEAN: (bool,),
    FieldType.TIMESTAMP: (int,),
}


def _check_default(field: Field, subject: str) -> None:
    aliases: tuple[object, ...] = field.aliases
    if not all(isinstance(alias, str) and alias for alias in aliases):
        raise DefinitionError(
            required="aliases are names",
            got=f"aliases={field.aliases!r} was given",
            remedy='write aliases=["old_name"]',
            subject=subject,
        )
    default = field.default
    if default is REQUIRED:
        return
    if field.nullable:
        raise DefinitionError(
            required="a nullable field is null in records that do not have it",
            got=f"default={default!r} was given",
            remedy="leave the default out, or the nullability",
            subject=subject,
        )
    fits = type(default) in _PYTHON[field.type]  # True is no 1 here
    if fits and isinstance(default, int | float):
        low = -math.inf if field.ge is None else field.ge
        high = math.inf if field.le is None else field.le
        fits = math.isfinite(default) and low <= default <= high
    if not fits or (field.one_of is not None and default not in field.one_of):
        raise DefinitionError(
            required=f"the default of a field is {describe(field)}",
            got=f"default={default!r} was given",
            remedy="give a value that the field may have, or leave the default out",
            subject=subject,
        )


def _normal_quantum(quantum: object, subject: str) -> str:
    try:
        value = Decimal(quantum) if isinstance(quantum, str) else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value <= 0:
        raise DefinitionError(
            required="a quantum is a positive decimal number in quotes",
            got=f"quantum={quantum!r} was given",
            remedy='write quantum="0.01" to sum to the cent',
            subject=subject,
        )
    return format(value.normalize(), "f")


def _check_bound(name: str, bound: object, field_type: FieldType, subject: str) -> None:
    if bound is None:
        return
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
        raise DefinitionError(
            required="a bound is a finite number",
            got=f"{name}={bound!r} was given",
            remedy=f"write {name}=0, or leave it out",
            subject=subject,
        )
    if field_type is FieldType.INT64 and not isinstance(bound, int):
        raise DefinitionError(
            required="the bound of an integer is an integer",
            got=f"{name}={bound!r} was given",
            remedy=f"write {name}={math.floor(bound)}",
            subject=subject,
        )


def _checked_choices(choices: tuple[object, ...], field_type: FieldType, subject: str) -> tuple[str | int, ...]:
    wanted = str if field_type is FieldType.STRING else int
    checked = tuple(choice for choice in choices if isinstance(choice, wanted) and not isinstance(choice, bool))
    if not choices or len(checked) != len(choices):
        raise DefinitionError(
            required=f"one_of lists values of type {field_type.value}",
            got=f"one_of={list(choices)!r} was given",
            remedy="list at least one, all of that type",
            subject=subject,
        )
    return checked
