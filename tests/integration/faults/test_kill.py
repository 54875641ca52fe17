"""kill -9 at every storage operation in turn, and at those of the recovery: the results are exact all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Place = Any

NOTHING_BETWEEN = {"slot.append.after", "journal.sync.before", "slot.sync.after", "journal.look.before"}
"""Points with another one right behind or before them, and no system call in between."""


def points_of(place: Place) -> list[str]:
    return [point for point in place.points() if point.partition(":")[0] not in NOTHING_BETWEEN]


def names(points: list[str]) -> set[str]:
    return {point.partition(":")[0] for point in points}


def copied(place: Callable[..., Place], origin: Place, name: str) -> Place:
    """A place in the state that another was left in."""
    twin = place(name)
    shutil.copytree(origin.folder, twin.folder, dirs_exist_ok=True)
    return twin


@pytest.mark.parametrize("part", range(4))
def test_a_run_killed_at_any_storage_operation_goes_on_and_repeats_nothing_committed(
    place: Callable[..., Place], part: int
) -> None:
    every = points_of(place("whole"))
    assert {"slot.append.before", "slot.sync.before", "store.create.before_link"} <= names(every)
    points = every[part::4]
    killed = set()
    for point in points:
        here = place(point.replace(":", "-"))
        life = here.live(fault=f"{point}:kill")
        if life.killed:
            killed.add(point.partition(":")[0])
        else:
            here.check(life)  # more records shared a batch than when the points were counted
        here.finish()
    assert {"slot.append.before", "slot.sync.before", "store.create.before_link"} & names(points) <= killed


def killed_in_recovery(place: Callable[..., Place], first: str, part: int, of: int) -> None:
    origin = place(f"first-{first.replace(':', '-')}")
    if not origin.live(fault=f"{first}:kill").killed:
        return
    for second in points_of(copied(place, origin, f"{origin.folder.name}-counted"))[part::of]:
        here = copied(place, origin, f"{origin.folder.name}-{second.replace(':', '-')}")
        life = here.live(fault=f"{second}:kill")
        if not life.killed:
            here.check(life)
        here.finish()
        shutil.rmtree(here.folder)


@pytest.mark.big
@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("first", ["slot.append.before:2", "slot.sync.before:6"])
def test_a_run_killed_again_at_any_storage_operation_of_its_recovery_goes_on(
    place: Callable[..., Place], first: str, part: int
) -> None:
    killed_in_recovery(place, first, part, 3)


@pytest.mark.big
@pytest.mark.timeout(1200)
def test_a_run_killed_at_many_an_operation_and_at_any_of_its_recovery_goes_on(place: Callable[..., Place]) -> None:
    for first in points_of(place("whole"))[::5]:
        killed_in_recovery(place, first, 0, 1)


def test_a_whole_process_is_killed_by_the_environment_variable(place: Callable[..., Place]) -> None:
    here = place()
    assert here.spawn(EXOFLOW_FAULT="journal.acknowledged:2:kill").killed
    here.finish()


STRACE = shutil.which("strace")


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "times"),
    [
        ("fsync", 20),
        ("link", 6),
        *(
            pytest.param(*each, marks=pytest.mark.big)
            for each in [("fdatasync", 9), ("write", 4), ("flock", 1), ("unlink", 4)]
        ),
    ],
)
def test_a_process_killed_from_outside_at_a_system_call_of_its_store_goes_on(
    place: Callable[..., Place], call: str, times: int, tmp_path: Path
) -> None:
    killed = 0
    for when in range(1, times + 1, max(1, times // 3)):
        here = place(f"{call}-{when}")
        here.store.mkdir()
        inject = f"inject={call}:signal=SIGKILL:when={when}"
        only = ["-P", str(here.store)] if call == "fsync" else []
        life = here.spawn(str(STRACE), "-f", "-qq", "-o", "/dev/null", *only, "-e", f"trace={call}", "-e", inject)
        killed += life.killed
        if not life.killed:
            here.check(life)
        here.finish()
    assert killed
