"""The definitions that the tests of the core declare: flights, as in the guide, in a few lines."""

from __future__ import annotations

from typing import Any

import headrace as hr


def departures(**changes: Any) -> hr.Event:
    fields = {
        "flight_id": hr.string(),
        "origin": hr.string(),
        "dest": hr.string(),
        "departed_at": hr.timestamp(),
        "dep_delay": hr.float64(nullable=True),
        "distance": hr.int64(ge=0),
        "charter": hr.boolean(),
        "carrier": hr.string(nullable=True),
    }
    arguments: dict[str, Any] = {"time": "departed_at", "id": "flight_id", "topic": "flights.departures", **changes}
    return hr.Event("departures", arguments.pop("fields", fields), **arguments)


def arrivals() -> hr.Event:
    fields = {"flight_id": hr.string(), "arrived_at": hr.timestamp(), "arr_delay": hr.float64(), "status": hr.string()}
    return hr.Event("arrivals", fields, time="arrived_at", id="flight_id")


def airport(**changes: Any) -> hr.Entity:
    return hr.Entity("airport", **{"keys": {"airport": hr.string()}, **changes})


def origin_view(**changes: Any) -> hr.FeatureView:
    arguments: dict[str, Any] = {
        "entity": airport(),
        "event": departures(),
        "keys": {"airport": "origin"},
        "features": {
            "departures": hr.count().over("30m", "3h"),
            "delay": hr.mean("dep_delay").over("30m", "3h"),
            "late_share": hr.count(where=hr.col("dep_delay") > 15).over("3h") / hr.count().over("3h"),
            "since_last": hr.time_since_last().lifetime(),
        },
        **changes,
    }
    return hr.FeatureView("origin_departures", **arguments)


def late(**changes: Any) -> hr.Label:
    arguments: dict[str, Any] = {
        "join": {"flight_id": "flight_id"},
        "value": hr.col("arr_delay") > 30,
        "horizon": "24h",
        "missing": "drop",
        **changes,
    }
    return hr.Label("late", arrivals(), **arguments)


def excess(view: hr.FeatureView | None = None) -> hr.OnDemand:
    usual = (view or origin_view()).lookup(airport="origin")["delay_3h"]

    @hr.on_demand(inputs={"delay": departures()["dep_delay"], "usual": usual})
    def excess_delay(delay, usual):  # type: ignore[no-untyped-def]
        """How much more than usual."""
        return delay - usual

    return excess_delay


def no_estimator() -> object:
    return None


def model(**changes: Any) -> hr.Model:
    view = origin_view()
    arguments: dict[str, Any] = {
        "request": departures(),
        "features": [view, departures()["distance"], departures()["carrier"], excess(view)],
        "label": late(),
        "estimator": no_estimator,
        "task": "binary",
        **changes,
    }
    return hr.Model("arrival_delay", **arguments)
