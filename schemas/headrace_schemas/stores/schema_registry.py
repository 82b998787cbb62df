"""The schema registry: schemas by id, kept for ever, because an id never means another schema.

Confluent's client behind the few questions that are asked here. An id that nobody knows is asked again after a while: registries
copy schemas to one another. What may not live here: what is done with a schema.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headrace.errors import ConfigError, NotFound, ServiceUnavailable, StoreError
from headrace_schemas.framing import WriterSchema
from headrace_schemas.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.error import SchemaRegistryError

_TIMEOUT_S = 5.0
_ASK_AGAIN_S = 30.0  # an unknown id
_LATE_S, _TRIES = 0.3, 3  # a registry may learn of a schema later than a producer that asked another of its instances
_SCHEMA_UNKNOWN, _SUBJECT_UNKNOWN, _VERSION_UNKNOWN, _HTTP_UNKNOWN = 40403, 40401, 40402, 404
_CONFLICT = 409


class SchemaRegistry:
    """Asks a registry.

    Args:
        url: of a registry that speaks Confluent's API; several of one cluster are separated by commas; a user and a password may
            stand before the host.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self.address = ",".join(_without_password(part) for part in url.split(","))
        try:
            self._client: SchemaRegistryClient = SchemaRegistryClient(
                {"url": url, "timeout": _TIMEOUT_S, "max.retries": 0}
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"[schema_registry] url must be an http or https address, but {self.address!r} was given ({error}); correct it"
            ) from None
        self._known: dict[int, WriterSchema] = {}
        self._unknown: dict[int, float] = {}
        self._registered: dict[tuple[str, str], int] = {}

    def knows(self, schema_id: int) -> bool:
        """Whether `schema` answers without asking: with the schema, or because nobody knew the id a moment ago."""
        return schema_id in self._known or time.monotonic() < self._unknown.get(schema_id, 0.0)

    def schema(self, schema_id: int) -> WriterSchema:
        """The schema of an id.

        Raises:
            NotFound: the registry does not know it.
            ServiceUnavailable: the registry is away.
        """
        if schema_id in self._known:
            return self._known[schema_id]
        if not self.knows(schema_id):
            self._fetch(schema_id)
        if schema_id not in self._known:
            raise NotFound(f"schema in the registry at {self.address} with id", str(schema_id), ())
        return self._known[schema_id]

    def _fetch(self, schema_id: int) -> None:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        for attempt in range(_TRIES):
            try:
                found = self._client.get_schema(schema_id)
                self._known[schema_id] = WriterSchema(
                    found.schema_type or "AVRO", found.schema_str or "", tuple(self._references(found))
                )
                return
            except SchemaRegistryError as error:
                if not _is_unknown(error):
                    raise self._unavailable(error) from error
                if attempt + 1 < _TRIES:
                    time.sleep(_LATE_S)
            except Exception as error:  # whatever its HTTP library raises
                raise self._unavailable(error) from error
        self._unknown[schema_id] = time.monotonic() + _ASK_AGAIN_S

    def _references(self, schema: Schema) -> list[str]:
        found: list[str] = []
        for reference in schema.references or ():
            named = self._client.get_version(reference.subject or "", reference.version or "latest").schema
            found += [text for text in (*self._references(named), named.schema_str or "") if text not in found]
        return found

    def latest(self, subject: str) -> tuple[int, int, WriterSchema] | None:
        """Version, id and schema that a subject has now; None if it has none.

        Raises:
            ServiceUnavailable: the registry is away.
        """
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            found = self._client.get_latest_version(subject)
            schema = WriterSchema(
                found.schema.schema_type or "AVRO", found.schema.schema_str or "", tuple(self._references(found.schema))
            )
        except SchemaRegistryError as error:
            if _is_unknown(error):
                return None
            raise self._unavailable(error) from error
        except Exception as error:
            raise self._unavailable(error) from error
        return int(found.version or 0), int(found.schema_id or 0), schema

    def register(self, subject: str, schema: WriterSchema) -> int:
        """The id of a schema, which is a version of the subject from now on.

        Raises:
            StoreError: the registry refuses it, because it does not fit the versions before it.
            ServiceUnavailable: the registry is away.
        """
        from confluent_kafka.schema_registry import Schema
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        place = subject, schema.text
        if place not in self._registered:
            try:
                self._registered[place] = int(self._client.register_schema(subject, Schema(schema.text, schema.kind)))
            except SchemaRegistryError as error:
                if error.http_status_code != _CONFLICT and not 42200 <= (error.error_code or 0) < 42300:
                    raise self._unavailable(error) from error
                raise StoreError(
                    f"schema registry at {self.address}: it refused the schema of {subject!r} ({error.error_message}); make it "
                    f"compatible with the versions before it, or change the subject's compatibility"
                ) from error
            except Exception as error:
                raise self._unavailable(error) from error
        return self._registered[place]

    def close(self) -> None:
        """Leave the registry."""
        self._client.close()

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        reason = str(error) or type(error).__name__
        return ServiceUnavailable("schema registry", self.address, reason)


def registry_of(settings: Settings) -> SchemaRegistry | None:
    """The registry of a project, if its settings name one."""
    return SchemaRegistry(settings.schema_registry) if settings.schema_registry else None


def _is_unknown(error: SchemaRegistryError) -> bool:
    codes = (_SCHEMA_UNKNOWN, _SUBJECT_UNKNOWN, _VERSION_UNKNOWN, _HTTP_UNKNOWN)
    return error.http_status_code == _HTTP_UNKNOWN and error.error_code in codes


def _without_password(url: str) -> str:
    parts = urlsplit(url.strip())
    return url.strip() if parts.password is None else url.strip().replace(f":{parts.password}@", ":…@", 1)
