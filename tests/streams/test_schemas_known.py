"""The pipeline and a schema registry: older and newer records, unknown schemas, a registry that is away for a while."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from headrace_ops.dead_letters import read_box
from headrace_ops.plans import apply, plan
from headrace_schemas.avro import physical
from headrace_schemas.framing import framed
from headrace_schemas.stores import schema_registry
from headrace_schemas.stores.log import event_log
from tests.schema_registry import FakeRegistry
from tests.services import Services
from tests.streams.shop import START_US, Shop

OLD = """
paid = hr.Event("paid", fields={"id": hr.string(), "card": hr.string(), "shop": hr.int64(), "town": hr.string(),
    "amount": hr.float64(nullable=True), "at": hr.timestamp()}, time="at", id="id", topic="PREFIXpaid", future_tolerance=None,
    framing="confluent")
"""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    yield fake
    fake.close()


class FramedShop(Shop):
    """The shop, whose payments are framed."""

    def __init__(self, services: Services, prefix: str, root: Path, registry: FakeRegistry) -> None:
        self.registry = registry
        super().__init__(services, prefix, root, partitions=1, settings=f'[schema_registry]\nurl = "{registry.url}"\n')

    def declare(self, views: str) -> Any:
        return super().declare(OLD.replace("PREFIX", self.prefix) + views)

    def register(self, *fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Another producer's schema."""
        record = {"type": "record", "name": "other", "namespace": "their.own", "fields": list(fields)}
        _, answer = self.registry.post(f"/subjects/{self.topic}-value/versions", {"schema": json.dumps(record)})
        return answer["id"], record  # type: ignore[index,call-overload]

    def pay(self, schema: tuple[int, dict[str, Any]], **changes: Any) -> None:
        """One payment by a schema."""
        number = len(self.events)
        event = {
            "id": f"p{number}",
            "card": "card 1",
            "shop": 1,
            "town": "Linz",
            "amount": float(number),
            "at": START_US + number,
        }
        event |= {name: value for name, value in changes.items() if name in event}
        out = io.BytesIO()
        written = {"card_number": event["card"], "sent": event["at"] // 1000, **event, **changes}
        fastavro.schemaless_writer(out, fastavro.parse_schema(physical(schema[1])), written)
        self.events.append(event)
        self._send(event, framed(schema[0], out.getvalue()))
        assert self._producer.flush(20) == 0


OWN = (
    {"name": "id", "type": "string"}, {"name": "card", "type": "string"}, {"name": "shop", "type": "long"},
    {"name": "town", "type": "string"}, {"name": "amount", "type": ["null", "double"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
)  # fmt: skip
NEWER = (
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "amount", "type": "float"},
    {"name": "town", "type": "string"}, {"name": "shop", "type": "int"}, {"name": "extra", "type": {"type": "array", "items": "string"}},
    {"name": "card", "type": "string"}, {"name": "id", "type": "string"},
)  # fmt: skip


def test_records_of_two_schemas_are_folded_and_logged_alike(
    services: Services, prefix: str, tmp_path: Path, registry: FakeRegistry
) -> None:
    shop = FramedShop(services, prefix, tmp_path, registry)
    own, newer = shop.register(*OWN), shop.register(*NEWER)
    with shop.streaming() as run, shop.logging():
        for number in range(30):
            shop.pay((own, newer)[number % 2], **({"extra": ["x"]} if number % 2 else {}))
        shop.wait(run)
        assert shop.check() > 0
        shop.wait_for_log()
    log = event_log(shop.loaded.settings, shop.loaded.project.event("paid"))
    assert log.scan().collect().sort("_offset")["amount"].to_list() == [float(n) for n in range(30)]
    assert registry.asked < 20  # an id is asked for once by each reader, not once a record


def test_an_unknown_schema_is_set_aside_and_the_others_go_on(
    services: Services, prefix: str, tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_registry, "_LATE_S", 0.01)
    shop = FramedShop(services, prefix, tmp_path, registry)
    own = shop.register(*OWN)
    shop.pay(own)
    shop.produce_raw(framed(77, b"whatever"), b"no header at all")
    shop.pay(own)
    with shop.streaming() as run:
        shop.wait(run)
        shop.check()
    letters = read_box(shop.loaded.settings).letters
    assert [(letter.offset, letter.code, letter.value) for letter in letters] == [
        (1, "schema", framed(77, b"whatever")), (2, "schema", b"no header at all"),
    ]  # fmt: skip
    assert "registry" in letters[0].reason


def test_a_registry_that_is_away_holds_records_up_and_loses_none(
    services: Services, prefix: str, tmp_path: Path, registry: FakeRegistry
) -> None:
    shop = FramedShop(services, prefix, tmp_path, registry)
    own, newer = shop.register(*OWN), shop.register(*NEWER)
    with shop.streaming() as run:
        shop.pay(own)
        shop.wait(run)
        registry.away = True
        shop.pay(own)  # a schema that is known goes on
        shop.wait(run)
        shop.pay(newer, extra=[])
        shop.pay(own)
        run.wait_for("schema-registry-away")
        time.sleep(1.5)  # the lanes stay ours meanwhile
        assert run.error is None
        registry.away = False
        run.wait_for("schema-registry-back")
        shop.wait(run)
        shop.check()
    assert read_box(shop.loaded.settings).letters == []


def test_a_registry_that_stays_away_ends_the_worker_and_the_next_one_goes_on(
    services: Services, prefix: str, tmp_path: Path, registry: FakeRegistry
) -> None:
    from dataclasses import replace

    from headrace.errors import ServiceUnavailable
    from tests.streams.shop import QUICK

    shop = FramedShop(services, prefix, tmp_path, registry)
    shop.pay(shop.register(*OWN))
    registry.away = True
    options = replace(QUICK, patience=replace(QUICK.patience, outage_s=1.0))
    with shop.streaming(options) as run:
        error = run.fails()
    assert isinstance(error, ServiceUnavailable)
    assert registry.url in str(error)
    registry.away = False
    with shop.streaming(take_over=True) as run:
        shop.wait(run)
        shop.check()


def test_plan_says_what_could_not_be_read(
    services: Services, prefix: str, tmp_path: Path, registry: FakeRegistry
) -> None:
    shop = FramedShop(services, prefix, tmp_path, registry)
    first = plan(shop.loaded)
    assert [(event.action, event.problems) for event in first.events] == [("register", ())]
    apply(shop.loaded, first)
    assert plan(shop.loaded).events[0].action == "keep"
    shop.register(*[field for field in OWN if field["name"] != "town"], {"name": "must", "type": "string"})
    problems = plan(shop.loaded).problems
    assert len(problems) == 2
    assert "become dead letters: field 'town' is not in it and has no default" in problems[0]
    assert "could not read what this project produces: field 'must'" in problems[1]
