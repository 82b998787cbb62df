"""Fields: the type and the contract of one value of an event, an entity key or a request.

A field is independent of any encoding; ``events`` turns it into Avro, ``assembly`` into columns. What may not live here:
names (a field gets its name from the mapping that holds it) and I/O.
"""

from __future__ import annotations

import enum
import math
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
    """

    type: FieldType
    nullable: bool = False
    quantum: str | None = None
    ge: int | float | None = None
    le: int | float | None = None
    one_of: tuple[str | int, ...] | None = None
    description: str = ""

    def __post_init__(self) -> None:
        subject = f"field hr.{self.type.value}()"
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

    def canonical(self) -> dict[str, object]:
        """The meaning as JSON-able data; the description does not enter."""
        return {
            "type": self.type.value,
            "nullable": self.nullable,
            "quantum": self.quantum,
            "ge": self.ge,
            "le": self.le,
            "one_of": None if self.one_of is None else list(self.one_of),
        }


def string(
    *, nullable: bool = False, one_of: tuple[str, ...] | list[str] | None = None, description: str = ""
) -> Field:
    """A text field.

    Args:
        nullable: whether it may be absent.
        one_of: the only texts allowed.
        description: for people.

    >>> string(one_of=["EWR", "JFK", "LGA"]).expected
    "one of 'EWR', 'JFK', 'LGA'"
    """
    return Field(FieldType.STRING, nullable, one_of=None if one_of is None else tuple(one_of), description=description)


def int64(
    *,
    nullable: bool = False,
    ge: int | None = None,
    le: int | None = None,
    one_of: tuple[int, ...] | list[int] | None = None,
    quantum: str = "1",
    description: str = "",
) -> Field:
    """A whole number. One that is aggregated has to stay below 2**53 in magnitude.

    Args:
        nullable: whether it may be absent.
        ge: the least value allowed.
        le: the greatest value allowed.
        one_of: the only values allowed.
        quantum: the decimal step at which it is summed.
        description: for people.
    """
    choices = None if one_of is None else tuple(one_of)
    return Field(FieldType.INT64, nullable, quantum, ge, le, choices, description)


def float64(
    *,
    nullable: bool = False,
    ge: float | None = None,
    le: float | None = None,
    quantum: str = "0.000001",
    description: str = "",
) -> Field:
    """A finite number.

    Args:
        nullable: whether it may be absent.
        ge: the least value allowed.
        le: the greatest value allowed.
        quantum: the decimal step to which a value is rounded where it is summed, so that sums are exact and do not
            depend on the order of events: ten payments of 0.10 sum to exactly 1.0.
        description: for people.

    >>> float64(quantum="0.010").quantum
    '0.01'
    """
    return Field(FieldType.FLOAT64, nullable, quantum, ge, le, None, description)


def boolean(*, nullable: bool = False, description: str = "") -> Field:
    """True or false."""
    return Field(FieldType.BOOLEAN, nullable, description=description)


def timestamp(*, nullable: bool = False, description: str = "") -> Field:
    """A moment, to the microsecond, in UTC."""
    return Field(FieldType.TIMESTAMP, nullable, description=description)


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
