"""The flights example: its plain functions, and its tasks as the plain functions that they are outside a flow."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")
sys.path.append(str(Path(__file__).parents[2] / "examples" / "etl"))  # as for a script

import etl  # noqa: E402  its folder is on the path only from here on
from etl_figures import delay_figures, disagreeing, write_parquet  # noqa: E402  likewise


def clocks(*rows: tuple[float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["dep_time", "sched_dep_time", "dep_delay"])


def delays(*minutes: float, day: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"day": day, "arr_delay": minutes})


EVERY_DAY_ONCE = np.ones((5, 1), dtype=int)


def test_clock_times_that_tell_another_delay_disagree() -> None:
    assert disagreeing(clocks((517, 515, 2), (517, 515, 3)), "dep").tolist() == [False, True]


def test_a_delay_past_midnight_agrees_with_its_clock_times() -> None:
    assert disagreeing(clocks((15, 2350, 25), (2355, 5, -10), (2400, 2359, 1)), "dep").tolist() == [False] * 3


def test_a_cancelled_flight_disagrees_with_nothing() -> None:
    assert disagreeing(clocks((np.nan, 900, np.nan)), "dep").tolist() == [False]


def test_a_flight_is_late_from_fifteen_minutes_on() -> None:
    assert delay_figures(delays(14, 15, 16, -3), "arr_delay", EVERY_DAY_ONCE)["late_percent"] == 50


def test_percentiles_are_those_of_the_empirical_distribution() -> None:
    minutes = np.random.default_rng(1).integers(-60, 300, 1001)
    found = delay_figures(delays(*minutes), "arr_delay", EVERY_DAY_ONCE)
    assert found["median_min"] == np.quantile(minutes, 0.5, method="inverted_cdf")
    assert found["p90_min"] == np.quantile(minutes, 0.9, method="inverted_cdf")


def test_a_single_day_drawn_once_leaves_an_interval_without_width() -> None:
    found = delay_figures(delays(0, 20, 40), "arr_delay", EVERY_DAY_ONCE)
    assert found["median_min_low"] == found["median_min"] == found["median_min_high"] == 20


def test_an_interval_spans_what_the_resampled_days_say() -> None:
    two_days = pd.concat([delays(0, 0, day=0), delays(60, 60, day=1)])
    found = delay_figures(two_days, "arr_delay", np.array([[2, 0], [0, 2]] * 50))
    assert (found["late_percent_low"], found["late_percent"], found["late_percent_high"]) == (0, 50, 100)


def test_a_resample_without_any_flight_is_left_out() -> None:
    found = delay_figures(delays(30, day=0), "arr_delay", np.array([[0, 2], [1, 1]]))
    assert found["late_percent_low"] == found["late_percent_high"] == 100


def test_extreme_delays_count_but_move_no_percentile() -> None:
    found = delay_figures(delays(-200, 0, 0, 0, 5_000), "arr_delay", EVERY_DAY_ONCE)
    assert (found["median_min"], found["late_percent"]) == (0, pytest.approx(20))


def planned(*rows: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["origin", "time_hour", "tailnum"])
    return table.assign(time_hour=pd.to_datetime(table["time_hour"], utc=True), year=2013)


def observed(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["origin", "time_hour", "wind_speed", "precip", "visib"])
    return table.assign(time_hour=pd.to_datetime(table["time_hour"], utc=True))


PLANES = pd.DataFrame({"tailnum": ["N1", "N2"], "year": [2003, np.nan]})
WEATHER = observed(("EWR", "2013-01-01T10:00Z", 12, 0.0, 10), ("JFK", "2013-01-01T10:00Z", 30, 0.05, 0.5))


def test_a_flight_gets_the_weather_of_its_own_airport_and_hour() -> None:
    row = etl.join(planned(("JFK", "2013-01-01T10:00Z", "N1")), WEATHER, PLANES).iloc[0]
    assert (row["rain"], row["visibility"], row["wind"], row["age"]) == ("up to 0.1", "0-1", "25+", "9-11")


def test_a_missing_hour_takes_the_last_observation_of_at_most_three_hours_ago() -> None:
    flights = planned(("EWR", "2013-01-01T13:00Z", "N1"), ("EWR", "2013-01-01T14:00Z", "N1"))
    assert etl.join(flights, WEATHER, PLANES)["wind_speed"].isna().tolist() == [False, True]


def test_a_plane_that_nobody_registered_has_no_age() -> None:
    flights = planned(("EWR", "2013-01-01T10:00Z", "N2"), ("EWR", "2013-01-01T10:00Z", "N9"))
    assert etl.join(flights, WEATHER, PLANES)["age"].isna().all()


def source(folder: Path, name: str, data: bytes) -> etl.Source:
    (folder / name).write_bytes(data)
    return etl.Source("0.0.3", str(folder), {name: hashlib.sha256(data).hexdigest()})


def test_wind_that_no_instrument_can_have_seen_is_missing(tmp_path: Path) -> None:
    lines = b"origin,time_hour,temp,wind_speed,precip,visib\nEWR,2013-01-01T06:00:00Z,39,1048.4,0,10\n"
    assert etl.read_weather(source(tmp_path, "weather.csv", lines))["wind_speed"].isna().all()


def test_a_source_that_changed_since_it_was_found_is_refused(tmp_path: Path) -> None:
    found = source(tmp_path, "planes.csv", b"tailnum,year\nN1,2003\n")
    (tmp_path / "planes.csv").write_bytes(b"tailnum,year\nN1,2004\n")
    with pytest.raises(ValueError, match=r"planes\.csv changed"):
        etl.read_table(found, "planes.csv")


def test_the_delays_of_a_view_are_the_same_at_every_attempt() -> None:
    days = np.arange(200) % 28 + 1
    flights = pd.DataFrame({"carrier": ["AA", "UA"] * 100, "arr_delay": days * 2.0, "month": 1, "day": days})
    once, again = (etl.delays_by("carrier", "arr_delay", [flights], 50) for _ in range(2))
    pd.testing.assert_frame_equal(once, again, check_exact=True)
    assert once["carrier"].tolist() == ["AA", "UA"]


def test_the_same_table_makes_the_same_parquet_bytes(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    write_parquet(table, tmp_path / "one")
    write_parquet(table.copy(), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"pandas" not in (tmp_path / "one").read_bytes()


def test_publishing_twice_points_latest_at_the_same_release(tmp_path: Path) -> None:
    (tmp_path / "releases" / "r1").mkdir(parents=True)
    for _ in range(2):
        etl.publish(str(tmp_path), "r1")
    assert (tmp_path / "latest").resolve() == (tmp_path / "releases" / "r1").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "releases"]


def test_an_undone_release_is_gone_and_a_second_undo_is_harmless(tmp_path: Path) -> None:
    folder = etl.release_folder(str(tmp_path), "key")
    folder.mkdir(parents=True)
    for _ in range(2):
        etl.discard("key", str(tmp_path), [], {}, b"")
    assert not folder.exists()


def test_a_release_that_never_came_to_be_can_be_undone_and_its_late_attempt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etl.discard("key", str(tmp_path), [], {}, b"")
    monkeypatch.setattr(etl.exoflow, "idempotency_key", lambda: "key")  # as in a task's attempt
    with pytest.raises(FileExistsError, match="discarded"):
        etl.stage(str(tmp_path), [], {}, b"")


def test_the_chart_is_the_same_picture_every_time_and_carries_no_software_version() -> None:
    def report(view: str, groups: list[object]) -> pd.DataFrame:
        late = np.linspace(10, 40, len(groups))
        columns = {"late_percent": late, "late_percent_low": late - 2, "late_percent_high": late + 2}
        return pd.DataFrame({view: groups, "flights": 500, **columns})

    hours = report("hour", list(range(5, 24)))
    reports = {f"arr_delay_by_{view}": report(view, list(labels)) for view, (_, _, labels) in etl.BINS.items()}
    reports |= {"arr_delay_by_hour": hours, "arr_delay_by_carrier": report("carrier", ["AA", "UA"])}
    airlines = pd.DataFrame({"carrier": ["AA", "UA"], "name": ["American Airlines Inc.", "United Air Lines Inc."]})
    one, two = (etl.draw_delays(reports, [hours] * 12, airlines, "a source") for _ in range(2))
    assert one == two
    assert one.startswith(b"\x89PNG")
    assert b"Software" not in one
