"""Every rule of fields, events, entities, views and expressions: the message says where, what was required, what came and what to do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.features import Constant
from tests.headrace.declared import airport, departures, origin_view
from tests.headrace.refusals import Cases, named, refusal

COUNT = {"n": hr.count().over("1h")}
HERE = Path(__file__).resolve()


def event(**changes: Any) -> hr.Event:
    return hr.Event("paid", **{"fields": {"at": hr.timestamp(), "card": hr.string()}, "time": "at", **changes})


def avsc(*fields: dict[str, object]) -> dict[str, object]:
    at = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    return {"type": "record", "name": "Paid", "fields": [at, *fields]}


FIELDS: Cases = {
    "quantum that is no decimal": (
        lambda: hr.float64(quantum="a cent"),
        (
            "field hr.float64() (HERE): a quantum is a positive decimal number in quotes, but quantum='a cent' was given; "
            'write quantum="0.01" to sum to the cent'
        ),
    ),
    "quantum that is a float": (
        lambda: hr.float64(quantum=0.01),  # type: ignore[arg-type]
        (
            "field hr.float64() (HERE): a quantum is a positive decimal number in quotes, but quantum=0.01 was given; "
            'write quantum="0.01" to sum to the cent'
        ),
    ),
    "quantum of nothing": (
        lambda: hr.float64(quantum="0"),
        (
            "field hr.float64() (HERE): a quantum is a positive decimal number in quotes, but quantum='0' was given; "
            'write quantum="0.01" to sum to the cent'
        ),
    ),
    "bound that is no number": (
        lambda: hr.int64(ge="zero"),  # type: ignore[arg-type]
        "field hr.int64() (HERE): a bound is a finite number, but ge='zero' was given; write ge=0, or leave it out",
    ),
    "fractional bound of an integer": (
        lambda: hr.int64(le=1.5),  # type: ignore[arg-type]
        "field hr.int64() (HERE): the bound of an integer is an integer, but le=1.5 was given; write le=1",
    ),
    "bounds that exclude everything": (
        lambda: hr.float64(ge=2, le=1),
        "field hr.float64() (HERE): the lower bound is at most the upper, but ge=2 is above le=1; swap them",
    ),
    "choices of another type": (
        lambda: hr.int64(one_of=["a"]),  # type: ignore[list-item]
        (
            "field hr.int64() (HERE): one_of lists values of type int64, but one_of=['a'] was given; "
            "list at least one, all of that type"
        ),
    ),
    "no choice": (
        lambda: hr.string(one_of=[]),
        (
            "field hr.string() (HERE): one_of lists values of type string, but one_of=[] was given; "
            "list at least one, all of that type"
        ),
    ),
}

EVENTS: Cases = {
    "name with a dash": (
        lambda: hr.Event("late-flights", fields={"at": hr.timestamp()}, time="at"),
        (
            "event 'late-flights' (HERE): a name starts with a letter and holds at most 64 letters, digits and underscores, "
            "but 'late-flights' was given; rename it"
        ),
    ),
    "name that is no string": (
        lambda: hr.Event(7, fields={"at": hr.timestamp()}, time="at"),  # type: ignore[arg-type]
        "event 7 (HERE): a name is a string, but 7 was given; write the name first, in quotes",
    ),
    "field with a leading underscore": (
        lambda: event(fields={"_at": hr.timestamp()}, time="_at"),
        (
            "field '_at' of event 'paid' (HERE): a name starts with a letter and holds at most 64 letters, digits and underscores, "
            "but '_at' was given; rename it"
        ),
    ),
    "field that is no field": (
        lambda: event(fields={"at": hr.timestamp}),
        (
            "event 'paid' (HERE): a field is declared by hr.string(), int64(), float64(), boolean() or timestamp(), "
            f"but field 'at' is {hr.timestamp!r}; call one of them"
        ),
    ),
    "time that is not there": (
        lambda: event(time="att"),
        "event 'paid' (HERE): time names a field, but there is no field 'att'; did you mean 'at'? known: at, card",
    ),
    "time that is no timestamp": (
        lambda: event(time="card"),
        (
            "event 'paid' (HERE): the time field is hr.timestamp() and never null, but 'card' is of type string; "
            "declare it as hr.timestamp()"
        ),
    ),
    "nullable id": (
        lambda: event(fields={"at": hr.timestamp(), "n": hr.int64(nullable=True)}, id="n"),
        (
            "event 'paid' (HERE): the id field is hr.string() or hr.int64() and never null, but 'n' is nullable; "
            "declare it as hr.string() or hr.int64()"
        ),
    ),
    "topic with a blank": (
        lambda: event(topic="paid events"),
        (
            "event 'paid' (HERE): a topic's name has at most 249 letters, digits, dots, underscores and dashes, "
            "but topic='paid events' was given; rename it"
        ),
    ),
    "unknown format": (
        lambda: event(format="avrro"),
        "event 'paid' (HERE): the format is 'avro' or 'json', but format='avrro' was given; did you mean 'avro'? known: avro, json",
    ),
    "tolerance that is no duration": (
        lambda: event(future_tolerance="5 minutes"),
        (
            "future_tolerance of event 'paid' (HERE): a duration is digits and a unit, such as '90s', '30m', '3h', '7d' or '1h30m', "
            "of at most 100 years, but '5 minutes' was given; write the number and one of the units w, d, h, m, s, ms, us without spaces"
        ),
    ),
    "avsc that is no record": (
        lambda: hr.Event.from_avsc("paid", {"type": "string"}, time="at"),
        (
            "event 'paid' (HERE): the schema of an event is an Avro record, but it is 'string'; "
            'write {"type": "record", "name": …, "fields": […]}'
        ),
    ),
    "avsc with a nested record": (
        lambda: hr.Event.from_avsc(
            "paid", avsc({"name": "tags", "type": {"type": "array", "items": "string"}}), time="at"
        ),
        (
            "event 'paid' (HERE): every field of the schema has a type that the platform knows, but field 'tags' is "
            '{"type": "array", "items": "string"}; use string, long, int, double, float, boolean, enum, timestamp-micros, '
            "or a union of null and one of them"
        ),
    ),
    "avsc refined in an unknown field": (
        lambda: hr.Event.from_avsc("paid", avsc(), time="at", fields={"amont": hr.float64()}),
        "event 'paid' (HERE): fields= refines fields of the schema, but it has no field 'amont'; known: at",
    ),
    "avsc refined to another type": (
        lambda: hr.Event.from_avsc("paid", avsc({"name": "n", "type": "long"}), time="at", fields={"n": hr.float64()}),
        (
            "event 'paid' (HERE): fields= keeps the type and the nullability of the schema, but field 'n' is hr.float64() there and "
            "hr.int64() in the schema; declare it by hr.int64() and its bounds"
        ),
    ),
}

ENTITIES: Cases = {
    "no key": (
        lambda: airport(keys={}),
        "entity 'airport' (HERE): an entity has at least one key, but keys is empty; write keys={\"airport\": hr.string()}",
    ),
    "key of another type": (
        lambda: airport(keys={"airport": hr.float64()}),
        "entity 'airport' (HERE): a key is hr.string() or hr.int64(), but key 'airport' is float64; declare one of these types",
    ),
    "nullable key": (
        lambda: airport(keys={"airport": hr.string(nullable=True)}),
        (
            "entity 'airport' (HERE): a key always has a value, but key 'airport' is nullable; "
            "leave nullable=True out; an event whose key is null becomes a dead letter"
        ),
    ),
    "key that lookups cannot name": (
        lambda: airport(keys={"alias": hr.string()}),
        "entity 'airport' (HERE): a key can be named in lookup(…), but 'alias' is taken there; rename the key",
    ),
}

VIEWS: Cases = {
    "name with two underscores": (
        lambda: hr.FeatureView("by__origin", entity=airport(), event=departures(), features=COUNT),
        (
            "feature view 'by__origin' (HERE): two underscores stand between a view's name and its feature's, so neither holds them "
            "itself, but 'by__origin' was given; write 'by_origin'"
        ),
    ),
    "entity that is none": (
        lambda: origin_view(entity="airport"),
        "feature view 'origin_departures' (HERE): entity is an hr.Entity, but entity='airport' was given; declare one and pass it",
    ),
    "event that is none": (
        lambda: origin_view(event="departures"),
        "feature view 'origin_departures' (HERE): event is an hr.Event, but event='departures' was given; declare one and pass it",
    ),
    "key that the entity lacks": (
        lambda: origin_view(keys={"airprt": "origin"}),
        (
            "feature view 'origin_departures' (HERE): keys names keys of entity 'airport', but it has no key 'airprt'; "
            "did you mean 'airport'? known: airport"
        ),
    ),
    "key without a field": (
        lambda: origin_view(keys={"airport": "orign"}),
        (
            "feature view 'origin_departures' (HERE): entity key 'airport' comes from a field of event 'departures', "
            "but it has no field 'orign'; write keys={'airport': …}; did you mean 'origin'? known: flight_id, origin, dest, "
            "departed_at, dep_delay, distance, charter, carrier"
        ),
    ),
    "key of another type": (
        lambda: origin_view(keys={"airport": "distance"}),
        (
            "feature view 'origin_departures' (HERE): entity key 'airport' and its field are of one type, "
            "but the key is string and field 'distance' is int64; declare both alike"
        ),
    ),
    "no lanes": (
        lambda: origin_view(lanes=0),
        "feature view 'origin_departures' (HERE): lanes is a whole number from 1 to 4096, but lanes=0 was given; change it",
    ),
    "dedupe that is no number": (
        lambda: origin_view(dedupe=True),
        "feature view 'origin_departures' (HERE): dedupe is a whole number from 0 to 1024, but dedupe=True was given; change it",
    ),
    "no features": (
        lambda: origin_view(features={}),
        (
            "feature view 'origin_departures' (HERE): a view has at least one feature, but features is empty; "
            "write {'n': hr.count().over('1h')}"
        ),
    ),
    "aggregation without a window": (
        lambda: origin_view(features={"n": hr.count()}),
        (
            "feature view 'origin_departures' (HERE): a feature says over which windows, but feature 'n' has none; "
            "write .over('30m', '3h') or .lifetime() behind it"
        ),
    ),
    "feature that is no aggregation": (
        lambda: origin_view(features={"n": 3}),
        (
            "feature view 'origin_departures' (HERE): a feature is an aggregation over windows, or arithmetic over them, "
            "but feature 'n' is 3; write hr.count().over('1h')"
        ),
    ),
    "constant feature": (
        lambda: origin_view(features={"n": Constant(1.0)}),
        "feature view 'origin_departures' (HERE): a feature aggregates events, but feature 'n' is a constant; leave it out",
    ),
    "features of one name": (
        lambda: origin_view(features={"n": hr.count().over("1h"), "n_1h": hr.count().lifetime()}),
        "feature view 'origin_departures' (HERE): feature names are unique, but 'n_1h' comes twice; rename one",
    ),
    "unknown aggregated field": (
        lambda: origin_view(features={"d": hr.mean("dep_dely").over("1h")}),
        (
            "feature 'd_1h' of feature view 'origin_departures' (HERE): hr.mean takes an int64 or float64 field of event 'departures', "
            "but it has no field 'dep_dely'; did you mean 'dep_delay'? known: flight_id, origin, dest, departed_at, dep_delay, "
            "distance, charter, carrier"
        ),
    ),
    "aggregated text": (
        lambda: origin_view(features={"d": hr.mean("dest").over("1h")}),
        (
            "feature 'd_1h' of feature view 'origin_departures' (HERE): hr.mean takes an int64 or float64 field of event 'departures', "
            "but field 'dest' is of type string; count it with a filter, as in hr.count(where=hr.col('status') == 'late')"
        ),
    ),
    "aggregated truth": (
        lambda: origin_view(features={"d": hr.sum("charter").over("1h")}),
        (
            "feature 'd_1h' of feature view 'origin_departures' (HERE): hr.sum takes an int64 or float64 field of event 'departures', "
            "but field 'charter' is of type boolean; count it with a filter, as in hr.count(where=hr.col('charter'))"
        ),
    ),
    "window shorter than its tile": (
        lambda: origin_view(features={"n": hr.count().over("90s")}, tile="2m"),
        (
            "feature view 'origin_departures' (HERE): a window is at least as long as its tile, and a tile longer than nothing, "
            "but window '90s' is shorter than its tile '2m'; declare tile='1s' or a window of at least '2m'"
        ),
    ),
    "quantum that the kernel does not know": (
        lambda: hr.FeatureView(
            "spending",
            entity=hr.Entity("card", keys={"card": hr.string()}),
            event=event(fields={"at": hr.timestamp(), "card": hr.string(), "amount": hr.float64(quantum="0.03")}),
            features={"n": hr.sum("amount").over("1h")},
        ),
        (
            "feature view 'spending' (HERE): the quantum of an aggregated field is a whole fraction of one, from 1 to "
            "0.000000000001, but field 'amount' of event 'paid' has quantum '0.03'; declare quantum='0.01' to sum to the cent, "
            "or '1' for whole numbers"
        ),
    ),
    "where that is no condition": (
        lambda: origin_view(where=hr.col("distance")),
        (
            "feature view 'origin_departures' (HERE): & | ~ and filters take conditions, but distance is of type int64; "
            "compare it, as in (hr.col('amount') > 0), each side of & and | in parentheses"
        ),
    ),
    "where that is no expression": (
        lambda: origin_view(where=True),
        (
            "feature view 'origin_departures' (HERE): a filter is a condition, but where=True was given; "
            "write where=hr.col('amount') > 0"
        ),
    ),
    "filter over another event's field": (
        lambda: origin_view(features={"n": hr.count(where=hr.col("arr_delay") > 1).over("1h")}),
        (
            "feature 'n_1h' of feature view 'origin_departures' (HERE): an expression uses fields of event 'departures', "
            "but it has no field 'arr_delay'; did you mean 'dep_delay'? known: flight_id, origin, dest, departed_at, dep_delay, "
            "distance, charter, carrier"
        ),
    ),
    "lookup of an unknown feature": (
        lambda: origin_view().lookup("delay_3"),
        (
            "feature view 'origin_departures' (HERE): a lookup names features of the view, but it has no feature 'delay_3'; "
            "did you mean 'delay_3h'? known: departures_30m, departures_3h, delay_30m, delay_3h, late_share, since_last"
        ),
    ),
    "lookup by an unknown key": (
        lambda: origin_view().lookup(origin="origin"),
        (
            "feature view 'origin_departures' (HERE): a lookup names entity keys of the view, but it has no entity key 'origin'; "
            "known: airport"
        ),
    ),
    "alias with two underscores": (
        lambda: origin_view().lookup(alias="a__b"),
        (
            "alias of feature view 'origin_departures' (HERE): two underscores stand between a view's name and its feature's, "
            "so neither holds them itself, but 'a__b' was given; write 'a_b'"
        ),
    ),
}


EXPRESSIONS: Cases = {
    "col of nothing": (
        lambda: hr.col(""),
        "HERE: col takes the name of a field, but '' was given; write hr.col(\"amount\")",
    ),
    "and instead of &": (
        lambda: hr.col("a") > 1 and hr.col("b") > 2,
        (
            "HERE: conditions are combined with & | ~, each side in parentheses, but (a > 1) was used with and, or, not, if, or as "
            "part of a chained comparison; write (a > 1) & (a < 3), not a > 1 and a < 3"
        ),
    ),
    "comparison with None": (
        lambda: hr.col("a") == None,  # noqa: E711
        (
            "HERE: an expression is made of columns, texts, finite numbers, booleans and datetimes, but None was given; "
            'use hr.col("…").is_null() to ask for null, and hr.col("…").is_in([…]) for several values'
        ),
    ),
    "a moment without a zone": (
        lambda: hr.col("a") > datetime.datetime(2013, 1, 1),  # noqa: DTZ001
        (
            "HERE: a datetime names its zone, but datetime.datetime(2013, 1, 1, 0, 0) was given; "
            "write datetime(2013, 1, 1, tzinfo=datetime.UTC)"
        ),
    ),
    "is_in of a text": (
        lambda: hr.col("a").is_in("JFK"),
        "HERE: is_in takes a list, but 'JFK' was given; write is_in(['JFK'])",
    ),
    "a text compared with a number": (
        lambda: origin_view(where=hr.col("dest") == 3),
        (
            "feature view 'origin_departures' (HERE): both sides of a comparison are of one type, but in (dest == 3) they are string "
            "and int64; compare a string with text in quotes, a timestamp with a datetime, a number with a number"
        ),
    ),
    "a number among texts": (
        lambda: origin_view(where=hr.col("dest").is_in(["ORD", 3])),
        (
            "feature view 'origin_departures' (HERE): both sides of a comparison are of one type, but in (dest == 3) they are "
            "string and int64; compare a string with text in quotes, a timestamp with a datetime, a number with a number"
        ),
    ),
    "a number among conditions": (
        lambda: origin_view(where=hr.col("charter") & hr.col("distance")),
        (
            "feature view 'origin_departures' (HERE): & | ~ and filters take conditions, but distance is of type int64; "
            "compare it, as in (hr.col('amount') > 0), each side of & and | in parentheses"
        ),
    ),
    "texts in order": (
        lambda: origin_view(where=hr.col("dest") < "K"),
        (
            "feature view 'origin_departures' (HERE): numbers and timestamps have an order, but in (dest < 'K') values of type string "
            "are compared with <; use ==, != or is_in([…])"
        ),
    ),
    "arithmetic with times": (
        lambda: origin_view(where=hr.col("departed_at") - 5 > 3),
        (
            "feature view 'origin_departures' (HERE): arithmetic is between numbers, but in (departed_at - 5) departed_at is of type "
            "timestamp; use fields of type int64 or float64; differences of times belong into an on-demand transform"
        ),
    ),
}


@pytest.mark.parametrize(
    ("declaration", "message"), named(field=FIELDS, event=EVENTS, entity=ENTITIES, view=VIEWS, expression=EXPRESSIONS)
)
def test_broken_rule_is_told_with_its_place_and_its_remedy(declaration: Callable[[], object], message: str) -> None:
    assert refusal(declaration, __file__) == message


def test_error_names_the_very_line_of_the_declaration() -> None:
    with pytest.raises(hr.DefinitionError) as caught:
        hr.Entity("airport", keys={})
    line = next(
        n for n, text in enumerate(HERE.read_text().splitlines(), 1) if text.strip() == 'hr.Entity("airport", keys={})'
    )
    assert caught.value.where == hr.Location(__file__, line)
    assert f"test_definition_errors.py:{line})" in str(caught.value)


def test_error_carries_its_parts_as_data() -> None:
    with pytest.raises(hr.DefinitionError) as caught:
        origin_view(lanes=0)
    error = caught.value
    assert error.subject == "feature view 'origin_departures'"
    assert (error.required, error.got, error.remedy) == (
        "lanes is a whole number from 1 to 4096",
        "lanes=0 was given",
        "change it",
    )


def test_unreadable_avsc_names_the_file_and_how_paths_are_meant(tmp_path: Path) -> None:
    broken = tmp_path / "paid.avsc"
    broken.write_text("{")
    for path in (tmp_path / "missing.avsc", broken):
        with pytest.raises(hr.DefinitionError, match="an Avro schema is a readable JSON file") as caught:
            hr.Event.from_avsc("paid", path, time="at")
        assert str(path) in str(caught.value)
        assert "relative to the file that declares the event" in caught.value.remedy


def test_avsc_is_found_beside_the_file_that_declares_the_event(tmp_path: Path) -> None:
    (tmp_path / "paid.avsc").write_text(json.dumps(avsc()))
    features = tmp_path / "features.py"
    features.write_text('import headrace as hr\npaid = hr.Event.from_avsc("paid", "paid.avsc", time="at")\n')
    namespace: dict[str, Any] = {}
    exec(compile(features.read_text(), str(features), "exec"), namespace)
    assert namespace["paid"].avro_schema == avsc()
