"""Events: one record on a Kafka topic, with a schema, an event time and, if declared, an id.

An event is declared from fields, from which its Avro schema is generated, or from an ``.avsc`` file, whose schema is kept as
it is. What may not live here: encoding and decoding (``headrace_schemas.codecs``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from typing import ClassVar, Literal

from headrace import avro, json_schema
from headrace.durations import parse_us
from headrace.errors import DefinitionError, Location, NotFound, caller
from headrace.fields import Field, FieldType
from headrace.frozen import Definition, FrozenMap, check_name, is_a
from headrace.suggestions import did_you_mean

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_FORMATS = ("avro", "json")
_FRAMINGS = ("none", "confluent")


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Event(Definition):
    """A record on a topic.

    Args:
        name: unique within the project.
        fields: name and field of each value of the record, in the order of the Avro schema.
        time: the timestamp field that says when it happened.
        id: a string or int64 field that is unique per event. With it a retried or replayed event counts once, and a
            prediction may count its own request; without it a hash of the record serves.
        topic: the Kafka topic; by default the name.
        format: how records are encoded, ``"avro"`` or ``"json"``.
        framing: what stands before a record: nothing, or the Confluent wire format, ``"confluent"``, by which every record names
            its schema in a registry, and records of older and newer schemas are read too.
        future_tolerance: how far an event's time may lie after its recorded arrival before the event becomes a dead letter;
            None switches the check off.
        description: for people.

    Raises:
        DefinitionError: a field that is not there or of the wrong type.

    >>> import headrace as hr
    >>> paid = hr.Event("paid", fields={"card": hr.string(), "at": hr.timestamp(), "amount": hr.float64()}, time="at")
    >>> paid.topic, [field["name"] for field in paid.avro_schema["fields"]]
    ('paid', ['card', 'at', 'amount'])
    """

    kind: ClassVar[str] = "event"

    name: str
    fields: Mapping[str, Field]
    time: str
    id: str | None
    topic: str
    format: Literal["avro", "json"]
    framing: Literal["none", "confluent"]
    future_tolerance_us: int | None
    avro_schema: Mapping[str, object]
    json_schema: Mapping[str, object] | None
    description: str
    location: Location

    def __init__(
        self,
        name: str,
        fields: Mapping[str, Field],
        *,
        time: str,
        id: str | None = None,  # noqa: A002  (the word of the field; it reads as a keyword only)
        topic: str | None = None,
        format: Literal["avro", "json"] = "avro",  # noqa: A002  (the field's own word)
        framing: Literal["none", "confluent"] = "none",
        future_tolerance: str | timedelta | None = "5m",
        description: str = "",
    ) -> None:
        self._set(
            name=name,
            fields=FrozenMap(fields),
            time=time,
            id=id,
            topic=name if topic is None else topic,
            format=format,
            framing=framing,
            json_schema=None,
            description=description,
            location=caller(),
        )
        self._check_name()
        try:
            tolerance = None if future_tolerance is None else parse_us(future_tolerance)
        except DefinitionError as error:
            raise error.located(f"future_tolerance of {self.subject}", self.location) from None
        self._set(future_tolerance_us=tolerance)
        self._check_fields()
        self._check_transport()
        self._set(avro_schema=avro.record_schema(name, self.fields, description))

    @classmethod
    def from_avsc(
        cls,
        name: str,
        schema: str | PathLike[str] | Mapping[str, object],
        *,
        time: str,
        id: str | None = None,  # noqa: A002  (the field's own word)
        topic: str | None = None,
        fields: Mapping[str, Field] | None = None,
        framing: Literal["none", "confluent"] = "none",
        future_tolerance: str | timedelta | None = "5m",
        description: str = "",
    ) -> Event:
        """An event whose Avro schema exists already.

        Args:
            name: unique within the project; the schema's own name may differ.
            schema: an ``.avsc`` file, relative to the file that declares the event, or the schema itself.
            time: as in ``Event``.
            id: as in ``Event``.
            topic: as in ``Event``.
            fields: a declaration with bounds, choices or a quantum in place of the one that the schema gives for a field;
                its type and nullability stay the schema's.
            framing: as in ``Event``.
            future_tolerance: as in ``Event``.
            description: for people.

        Raises:
            DefinitionError: the file cannot be read, or a field has a type that the platform does not know.
        """
        where = caller()
        subject = f"event {name!r}"
        try:
            record = avro.load_schema(schema, where)
            declared = avro.fields_of(record, fields or {})
        except DefinitionError as error:
            raise error.located(subject, where) from None
        event = cls(
            name,
            declared,
            time=time,
            id=id,
            topic=topic,
            framing=framing,
            future_tolerance=future_tolerance,
            description=description,
        )
        event._set(avro_schema=record)
        return event

    @classmethod
    def from_json_schema(
        cls,
        name: str,
        schema: str | PathLike[str] | Mapping[str, object],
        *,
        time: str,
        id: str | None = None,  # noqa: A002  (the field's own word)
        topic: str | None = None,
        fields: Mapping[str, Field] | None = None,
        framing: Literal["none", "confluent"] = "none",
        future_tolerance: str | timedelta | None = "5m",
        description: str = "",
    ) -> Event:
        """An event of JSON records whose JSON Schema exists already; every record is validated against the whole of it.

        Args:
            name: unique within the project.
            schema: a file, relative to the file that declares the event, or the schema itself. Its plain properties become
                fields; objects and arrays are validated only.
            time: as in ``Event``.
            id: as in ``Event``.
            topic: as in ``Event``.
            fields: a declaration in place of the one that the schema gives for a property.
            framing: as in ``Event``.
            future_tolerance: as in ``Event``.
            description: for people.

        Raises:
            DefinitionError: the file cannot be read, or is no JSON Schema of an object with properties.

        >>> import headrace as hr
        >>> schema = {"properties": {"card": {"type": "string"}, "at": {"type": "string", "format": "date-time"}},
        ...           "required": ["card", "at"]}
        >>> list(hr.Event.from_json_schema("paid", schema, time="at").fields)
        ['card', 'at']
        """
        where = caller()
        try:
            loaded = json_schema.load_schema(schema, where)
            declared = json_schema.fields_of(loaded, fields or {})
        except DefinitionError as error:
            raise error.located(f"event {name!r}", where) from None
        event = cls(
            name,
            declared,
            time=time,
            id=id,
            topic=topic,
            format="json",
            framing=framing,
            future_tolerance=future_tolerance,
            description=description,
        )
        event._set(json_schema=loaded)
        return event

    def field(self, name: str) -> FieldRef:
        """A reference to one field, to use it in a model or a transform.

        Raises:
            NotFound: the event has no such field.
        """
        if name not in self.fields:
            raise NotFound(f"field of event {self.name!r} named", name, self.fields)
        return FieldRef(self, name)

    def __getitem__(self, name: str) -> FieldRef:
        return self.field(name)

    def canonical(self) -> dict[str, object]:
        """Name, topic, format, time, id, tolerance and fields, and how records are told from those of other schemas.

        The order of the fields matters to Avro.
        """
        evolution: dict[str, object] = {}
        if self.framing != "none":
            evolution["framing"] = self.framing
        if self.json_schema is not None:
            evolution["json_schema"] = dict(self.json_schema)
        return {
            **evolution,
            "name": self.name,
            "topic": self.topic,
            "format": self.format,
            "time": self.time,
            "id": self.id,
            "future_tolerance_us": self.future_tolerance_us,
            "fields": [[name, field.canonical()] for name, field in self.fields.items()],
        }

    def _check_fields(self) -> None:
        for name, field in self.fields.items():
            check_name(name, f"field {name!r} of {self.subject}", self.location)
            if not isinstance(field, Field):
                raise self.broken(
                    "a field is declared by hr.string(), int64(), float64(), boolean() or timestamp()",
                    f"field {name!r} is {field!r}",
                    "call one of them",
                )
        self._check_role("time", self.time, (FieldType.TIMESTAMP,))
        if self.id is not None:
            self._check_role("id", self.id, (FieldType.STRING, FieldType.INT64))

    def _check_role(self, role: str, name: str, types: tuple[FieldType, ...]) -> None:
        allowed = " or ".join(f"hr.{field_type.value}()" for field_type in types)
        if name not in self.fields:
            raise self.broken(f"{role} names a field", f"there is no field {name!r}", did_you_mean(name, self.fields))
        field = self.fields[name]
        if field.type not in types or field.nullable:
            got = f"{name!r} is of type {field.type.value}" if field.type not in types else f"{name!r} is nullable"
            raise self.broken(f"the {role} field is {allowed} and never null", got, f"declare it as {allowed}")

    def _check_transport(self) -> None:
        if not is_a(self.topic, str) or not _TOPIC.match(self.topic) or self.topic in (".", ".."):
            raise self.broken(
                "a topic's name has at most 249 letters, digits, dots, underscores and dashes",
                f"topic={self.topic!r} was given",
                "rename it",
            )
        if self.format not in _FORMATS:
            raise self.broken(
                "the format is 'avro' or 'json'",
                f"format={self.format!r} was given",
                did_you_mean(str(self.format), _FORMATS),
            )
        if self.framing not in _FRAMINGS:
            raise self.broken(
                "the framing is 'none' or 'confluent'",
                f"framing={self.framing!r} was given",
                did_you_mean(str(self.framing), _FRAMINGS),
            )


@dataclass(frozen=True, slots=True)
class FieldRef:
    """One field of one event, as an input of a model or of an on-demand transform.

    Attributes:
        event: the event.
        name: the field's name.
    """

    event: Event
    name: str

    @property
    def field(self) -> Field:
        """The field's declaration."""
        return self.event.fields[self.name]
