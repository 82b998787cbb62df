"""Will this flight arrive more than 30 minutes late? Asked at the moment when it leaves the gate.

One declaration of everything that runs: three streams of events, six feature views of four entities (two views read the
departures, three the arrivals), what is computed at request time, the outcome, and the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import headrace as hr

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# --- events ---------------------------------------------------------------------------------------------------------------

departures = hr.Event(
    "departures",
    topic="flights.departures",
    time="departed_at",
    id="flight_id",
    fields={
        "flight_id": hr.string(description="day, carrier, number and origin"),
        "departed_at": hr.timestamp(),
        "scheduled_at": hr.timestamp(),
        "carrier": hr.string(description="two-letter code"),
        "origin": hr.string(one_of=("EWR", "JFK", "LGA")),
        "dest": hr.string(description="airport code"),
        "tailnum": hr.string(description="the plane"),
        "dep_delay": hr.float64(ge=-120, le=3000, description="minutes; negative is early"),
        "distance": hr.int64(ge=0, description="miles"),
        "scheduled_minutes": hr.int64(ge=0, description="gate to gate"),
        "seats": hr.int64(nullable=True, ge=1),
        "built": hr.int64(nullable=True, ge=1900, description="year"),
    },
)

arrivals = hr.Event(
    "arrivals",
    topic="flights.arrivals",
    time="arrived_at",
    id="flight_id",
    fields={
        "flight_id": hr.string(),
        "arrived_at": hr.timestamp(),
        "carrier": hr.string(),
        "origin": hr.string(),
        "dest": hr.string(),
        "tailnum": hr.string(),
        "arr_delay": hr.float64(ge=-300, le=3000, description="minutes; negative is early"),
        "lost_minutes": hr.float64(description="arrival delay less departure delay"),
        "air_time": hr.float64(ge=0, description="minutes"),
    },
)

weather = hr.Event(
    "weather",
    topic="flights.weather",
    time="observed_at",
    id="report_id",
    fields={
        "report_id": hr.string(),
        "observed_at": hr.timestamp(),
        "origin": hr.string(),
        "temp": hr.float64(nullable=True, description="°F"),
        "humid": hr.float64(nullable=True, ge=0, le=100),
        # The file holds one gale of 1,048 mph. It breaks this contract and becomes a dead letter; the stream goes on.
        "wind_speed": hr.float64(nullable=True, ge=0, le=250, description="mph"),
        "wind_gust": hr.float64(nullable=True, ge=0, le=250, description="mph"),
        "precip": hr.float64(ge=0, description="inches in the hour"),
        "pressure": hr.float64(nullable=True, description="millibar"),
        "visib": hr.float64(ge=0, description="miles"),
    },
)

# --- entities and their feature views ---------------------------------------------------------------------------------------

airport = hr.Entity("airport", keys={"airport": hr.string()})
carrier = hr.Entity("carrier", keys={"carrier": hr.string()})
plane = hr.Entity("plane", keys={"tailnum": hr.string()})
route = hr.Entity("route", keys={"origin": hr.string(), "dest": hr.string()})

LEFT_LATE = hr.col("dep_delay") > 15
CAME_LATE = hr.col("arr_delay") > 30

origin_departures = hr.FeatureView(
    "origin_departures",
    entity=airport,
    event=departures,
    keys={"airport": "origin"},
    description="How busy and how late the airport is that the flight leaves.",
    features={
        "departures": hr.count().over("30m", "3h", "24h"),
        "delay": hr.mean("dep_delay").over("30m", "3h", "24h"),
        "delay_max": hr.max("dep_delay").over("3h"),
        "late_share": hr.count(where=LEFT_LATE).over("3h") / hr.count().over("3h"),
        "since_last": hr.time_since_last().lifetime(),
    },
)

carrier_departures = hr.FeatureView(
    "carrier_departures",
    entity=carrier,
    event=departures,
    description="Whether the airline as a whole has a bad day, at all three airports.",
    features={
        "departures": hr.count().over("3h", "24h"),
        "delay": hr.mean("dep_delay").over("3h", "24h"),
        "delay_spread": hr.std("dep_delay").over("24h"),
        "trend": hr.mean("dep_delay").over("3h") - hr.mean("dep_delay").over("7d"),
    },
)

destination_arrivals = hr.FeatureView(
    "destination_arrivals",
    entity=airport,
    event=arrivals,
    keys={"airport": "dest"},
    description="How late flights from New York have been reaching the airport where this one goes.",
    features={
        "arrivals": hr.count().over("3h", "24h"),
        "delay": hr.mean("arr_delay").over("3h", "24h"),
        "lost_minutes": hr.mean("lost_minutes").over("3h", "24h"),
    },
)

route_arrivals = hr.FeatureView(
    "route_arrivals",
    entity=route,
    event=arrivals,
    description="What is usual between the two airports.",
    tolerance="1h",
    features={
        "arrivals": hr.count().over("7d"),
        "lost_minutes": hr.mean("lost_minutes").over("24h", "7d"),
        "lost_spread": hr.std("lost_minutes").over("7d"),
        "late_share": hr.count(where=CAME_LATE).over("7d") / hr.count().over("7d"),
        "fastest": hr.min("air_time").over("7d"),
    },
)

plane_arrivals = hr.FeatureView(
    "plane_arrivals",
    entity=plane,
    event=arrivals,
    description="How the plane's recent flights from New York went; between two of them it came back.",
    features={
        "flights": hr.count().over("24h"),
        "last_delay": hr.last("arr_delay").over("24h"),
        "delay_worst": hr.max("arr_delay").over("7d"),
        "all_flights": hr.count().lifetime(),
        "since_last": hr.time_since_last().lifetime(),
    },
)

origin_weather = hr.FeatureView(
    "origin_weather",
    entity=airport,
    event=weather,
    keys={"airport": "origin"},
    description="The weather at the airport that the flight leaves.",
    features={
        "temp": hr.last("temp").over("6h"),
        "wind": hr.last("wind_speed").over("6h"),
        "gust": hr.max("wind_gust", default=0.0).over("6h"),
        "rain": hr.sum("precip").over("6h", "24h"),
        "view": hr.min("visib").over("6h"),
        "foggy_hours": hr.count(where=hr.col("visib") < 3).over("24h"),
        "pressure_change": hr.last("pressure").over("6h") - hr.first("pressure").over("6h"),
    },
)

# --- at request time --------------------------------------------------------------------------------------------------------

at_origin = origin_departures.lookup(airport="origin")
of_route = route_arrivals.lookup()


@hr.on_demand(inputs={"delay": departures["dep_delay"], "usual": at_origin["delay_3h"]})
def later_than_others(delay: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How much later than the airport's other recent departures this flight leaves, in minutes."""
    return delay - usual


@hr.on_demand(inputs={"delay": departures["dep_delay"], "lost": of_route["lost_minutes_7d"]})
def expected_delay(delay: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """The arrival delay if this flight loses or makes up what is usual on its route, in minutes."""
    return delay + hr.where(hr.is_null(lost), 0.0, lost)


@hr.on_demand(inputs={"minutes": departures["scheduled_minutes"], "fastest": of_route["fastest_7d"]})
def slack(minutes: np.ndarray, fastest: np.ndarray) -> np.ndarray:
    """Scheduled minutes beyond the fastest recent time in the air: what can be made up."""
    return minutes - fastest


@hr.on_demand(inputs={"scheduled_at": departures["scheduled_at"]})
def hour_of_day(scheduled_at: np.ndarray) -> np.ndarray:
    """The scheduled hour in UTC, as a number with a fraction."""
    return scheduled_at % 86_400_000_000 / 3_600_000_000


# --- outcome and model ------------------------------------------------------------------------------------------------------

late = hr.Label(
    "late",
    event=arrivals,
    join={"flight_id": "flight_id"},
    value=hr.col("arr_delay") > 30,
    horizon="24h",
    missing="drop",  # diverted: neither late nor on time
)

CATEGORIES = ["carrier", "origin", "dest"]


def gradient_boosting() -> Pipeline:
    """The encoding of categories is fitted on the training data and becomes part of the ONNX graph, like the trees."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    numbers = [column.name for column in late_arrival.inputs if column.name not in CATEGORIES]
    rare = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("numbers", "passthrough", numbers), ("categories", rare, CATEGORIES)])
    trees = HistGradientBoostingClassifier(
        learning_rate=0.1, max_iter=120, max_leaf_nodes=31, min_samples_leaf=100, random_state=0
    )
    return Pipeline([("columns", columns), ("trees", trees)])


late_arrival = hr.Model(
    "late_arrival",
    request=departures,
    features=[
        departures["dep_delay"],
        departures["distance"],
        departures["scheduled_minutes"],
        departures["seats"],
        departures["carrier"],
        departures["origin"],
        departures["dest"],
        at_origin,
        carrier_departures,
        destination_arrivals.lookup(airport="dest"),
        of_route,
        plane_arrivals,
        origin_weather.lookup(airport="origin"),
        later_than_others,
        expected_delay,
        slack,
        hour_of_day,
    ],
    label=late,
    estimator=gradient_boosting,
    task="binary",
    description="The probability that a flight which leaves now arrives more than 30 minutes late.",
)
