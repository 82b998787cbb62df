"""The registry client, against a real registry and against the fake that other tests use."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.errors import ConfigError, NotFound, ServiceUnavailable, StoreError
from headrace_ops.embedded import EmbeddedServer
from headrace_schemas.framing import WriterSchema
from headrace_schemas.stores import schema_registry
from headrace_schemas.stores.schema_registry import SchemaRegistry
from tests.schema_registry import FakeRegistry, find_apicurio


@pytest.fixture(scope="module", params=["fake", "apicurio"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "fake":
        fake = FakeRegistry()
        yield fake.url
        fake.close()
        return
    program = find_apicurio()
    if isinstance(program, str):
        pytest.skip(program)
    server = EmbeddedServer(program, tmp_path_factory.mktemp("apicurio"))
    try:
        yield server.start(timeout_s=90)
    finally:
        server.stop()


@contextmanager
def asking(url: str) -> Iterator[SchemaRegistry]:
    registry = SchemaRegistry(url)
    try:
        yield registry
    finally:
        registry.close()


def avro(*names: str) -> WriterSchema:
    fields = [{"name": name, "type": "long"} for name in names]
    return WriterSchema("AVRO", json.dumps({"type": "record", "name": "paid", "fields": fields}))


def test_what_is_registered_is_found_by_its_id_and_as_the_latest(url: str) -> None:
    subject = f"s{secrets.token_hex(4)}-value"
    with asking(url) as registry:
        first = registry.register(subject, avro("a", subject[:9]))
        second = registry.register(subject, avro("a", "b", subject[:9]))
        assert first != second
        assert registry.register(subject, avro("a", subject[:9])) == first
    with asking(url) as reader:
        found = reader.schema(first)
        assert (found.kind, json.loads(found.text)) == ("AVRO", json.loads(avro("a", subject[:9]).text))
        latest = reader.latest(subject)
    assert latest is not None
    assert latest[:2] == (2, second)
    assert json.loads(latest[2].text) == json.loads(avro("a", "b", subject[:9]).text)


def test_json_schemas_keep_their_kind(url: str) -> None:
    subject = f"s{secrets.token_hex(4)}-value"
    text = json.dumps({"type": "object", "title": subject, "properties": {"a": {"type": "string"}}})
    with asking(url) as registry, asking(url) as reader:
        assert reader.schema(registry.register(subject, WriterSchema("JSON", text))).kind == "JSON"


def test_an_unknown_id_and_an_unknown_subject(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "_LATE_S", 0.01)
    with asking(url) as registry:
        assert not registry.knows(987_654)
        with pytest.raises(NotFound, match=r"registry at http.*987654"):
            registry.schema(987_654)
        assert registry.knows(987_654)  # for a while: a flood of such records does not become a flood of requests
        assert registry.latest("nobody-value") is None


def test_a_schema_that_is_none_is_refused_with_what_to_do(url: str) -> None:
    with asking(url) as registry, pytest.raises(StoreError, match="refused the schema of 'x-value'"):
        registry.register("x-value", WriterSchema("AVRO", '{"type": "record", "fields": 7'))


def test_a_registry_that_is_away_is_a_service_that_is_away() -> None:
    fake = FakeRegistry()
    with asking(fake.url) as registry, asking(fake.url) as other:
        schema_id = registry.register("a-value", avro("a"))
        fake.away = True
        with pytest.raises(ServiceUnavailable, match="schema registry at"):
            other.schema(schema_id)
        fake.away = False
        assert other.schema(schema_id).kind == "AVRO"
        fake.close()
        with pytest.raises(ServiceUnavailable):
            other.latest("a-value")
        assert other.schema(schema_id).kind == "AVRO"  # an id never means another schema


@pytest.mark.parametrize("url", ["localhost:8081", "ftp://localhost"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[schema_registry\] url"):
        SchemaRegistry(url)


def test_a_password_is_never_shown() -> None:
    with asking("http://user:s3cret@127.0.0.1:1") as registry, pytest.raises(ServiceUnavailable) as raised:
        registry.schema(1)
    assert "s3cret" not in str(raised.value)
    assert "user" in str(raised.value)
