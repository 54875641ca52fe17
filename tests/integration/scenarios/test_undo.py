"""Killed while it undoes: whatever dies, and where, each booking nets to one or to none, and nothing is booked anew."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("undoing.py")
POINTS = ("before", "in", "effect", "undone", "ended")


def here(*by_default: str) -> list[object]:
    """The other points with ``-m big``."""
    return [pytest.param(point, marks=[] if point in by_default else [pytest.mark.big]) for point in POINTS]


HOTEL, FLIGHT = "hotel after flight", "flight"


class Played:
    def __init__(self, folder: Path, how: str) -> None:
        self.folder = folder
        self.how = how

    def live(self, point: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(PROGRAM), str(self.folder), self.how, point]
        life = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd=self.folder)
        if point != "none":
            assert life.returncode == -signal.SIGKILL, life.stderr
        return life

    def lines(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "trace").read_text().splitlines()]

    def of(self, what: str) -> list[str]:
        return [line[1] for line in self.lines() if line[0] == what]

    def net(self) -> dict[str, int]:
        """So many bookings of each stand: by their keys, as a service sees them."""
        undone = {line[2] for line in self.lines() if line[0] == "undone"}
        standing = {(line[1], line[2]) for line in self.lines() if line[0] == "booked" and line[2] not in undone}
        return dict(Counter(what for what, _ in standing))


@pytest.mark.parametrize("point", POINTS)
def test_a_recovery_that_dies_while_it_undoes_undoes_the_rest_before_anything_is_done_again(
    tmp_path: Path, point: str
) -> None:
    played = Played(tmp_path, "recovery")
    played.live("late")
    played.live(point)
    life = played.live("none")
    assert life.stdout == f"{HOTEL}\n", life.stderr
    assert played.net() == {HOTEL: 1, FLIGHT: 1}
    whats = [
        (what, line[0] if line else "") for what, *line in played.lines() if what in ("booked", "undone", "chosen")
    ]
    again = [what for what, _ in whats].index("chosen", 1)
    assert set(whats[3:again]) == {("undone", HOTEL), ("undone", FLIGHT)}
    assert whats[again - 1] == ("undone", FLIGHT)


@pytest.mark.parametrize("point", here("in", "undone"))
def test_a_retry_that_dies_while_it_undoes_is_not_begun_before_that_is_done(tmp_path: Path, point: str) -> None:
    played = Played(tmp_path, "retry")
    played.live(point)
    life = played.live("none")
    assert life.stdout == "hotel\n", life.stderr
    assert played.net() == {"hotel": 1}
    made = len(played.of("booked"))
    assert made == 2 or point == "ended" and made == 3, "before the end, the second result may not have been durable"


@pytest.mark.parametrize("point", here("before", "effect", "ended"))
def test_a_failed_run_that_dies_while_it_rolls_back_has_failed_and_runs_nothing_again(
    tmp_path: Path, point: str
) -> None:
    played = Played(tmp_path, "rollback")
    played.live(point)
    life = played.live("none")
    assert life.stderr.rstrip().endswith("ValueError: card declined"), life.stderr
    assert played.net() == {}
    assert played.of("booked") == [FLIGHT, HOTEL]
    assert [line[0] for line in played.lines()].count("paid") == 1
    assert list(dict.fromkeys(played.of("undone"))) == [HOTEL, FLIGHT]
    again = played.live("none")
    assert again.returncode == 1
    assert played.of("booked") == [FLIGHT, HOTEL] * 2, "it had failed, and this is a new beginning (V14)"
    assert played.net() == {}


@pytest.mark.parametrize("point", here("in", "effect"))
def test_a_cancelled_run_that_dies_while_it_undoes_is_cancelled_and_runs_nothing_again(
    tmp_path: Path, point: str
) -> None:
    played = Played(tmp_path, "cancel")
    played.live(point)
    life = played.live("none")
    assert "RunCancelled" in life.stderr
    assert played.net() == {}
    assert played.of("booked") == [FLIGHT, HOTEL]
    assert [line[0] for line in played.lines()].count("paid") == 1
    assert list(dict.fromkeys(played.of("undone"))) == [HOTEL, FLIGHT]
