"""Disks that fail, fill up, may not be written or vanish: a clear error, and nothing lost once they are mended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Place = Any

OPERATIONS = {
    "slot.create.before_write", "slot.create.before_fsync", "slot.create.before_link", "slot.create.before_dir_fsync",
    "store.create.before_write", "store.create.before_fsync", "store.create.before_link",
    "store.create.before_dir_fsync", "store.read.before", "slot.append.before", "slot.sync.before",
}  # fmt: skip
"""Points right before a system call that can fail."""


@pytest.mark.parametrize(
    ("action", "advice"), [("enospc", "space"), pytest.param("eio", "I/O error", marks=pytest.mark.big)]
)
def test_a_run_whose_disk_fails_once_ends_well_or_says_so_and_goes_on(
    place: Callable[..., Place], action: str, advice: str
) -> None:
    failed = set()
    points = [point for point in place("whole").points() if point.partition(":")[0] in OPERATIONS]
    latest = {point.partition(":")[0]: point for point in points}
    for point in points:
        name, _, time = point.partition(":")
        if int(time) > 2 and latest[name] != point:
            continue
        here = place(point.replace(":", "-"))
        life = here.live(fault=f"{point}:{action}")
        if life.code == 0:
            here.check(life)  # it was written in another place, or later
        else:
            failed.add(name)
            assert life.code == 1, life.err
            assert life.error.startswith("exoflow.errors.StorageError: cannot "), life.err
            assert str(here.folder) in life.error and advice in life.error
        here.finish()
    assert "slot.create.before_fsync" in failed


STRACE = shutil.which("strace")


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "error"), [("fdatasync", "EIO"), ("fdatasync", "ENOSPC"), ("link", "EIO"), ("link", "EDQUOT")]
)
@pytest.mark.big
def test_a_system_call_that_fails_outside_of_our_hands_loses_nothing(
    place: Callable[..., Place], call: str, error: str
) -> None:
    for when in ("1", "3", "2+"):
        here = place(f"{call}-{when}")
        inject = f"inject={call}:error={error}:when={when}"
        life = here.spawn(str(STRACE), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        if life.code == 0:
            here.check(life)
        else:
            assert "StorageError: cannot " in life.err, life.err
        here.finish()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_once_there_is_room_it_goes_on(place: Callable[..., Place], small: Path) -> None:
    here = place()
    here.store.symlink_to(small)
    hog = small / "hog"
    hog.write_bytes(bytes(100 * 1024))  # then the pages that the trip renders do not fit
    life = here.live()
    assert life.code == 1
    assert "StorageError" in life.error and "space" in life.error and "resume trip" in life.error, life.err
    assert not [line for line in here.lines("effects") if line[0] == "charge"]
    again = here.live()
    assert again.code == 1 and "StorageError" in again.error, again.err
    hog.unlink()
    here.finish()


def unprivileged(argv: list[str]) -> list[str]:
    """The command without the right to write everywhere that root has."""
    if os.geteuid() != 0:
        return argv
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv is not there to give that up")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", *argv]


def test_a_store_that_may_not_be_written_says_which_and_goes_on_when_it_may(place: Callable[..., Place]) -> None:
    here = place()
    here.store.mkdir(mode=0o555)
    life = here.spawn(*unprivileged([]))
    assert life.code == 1
    assert f"StorageError: cannot create {here.store}" in life.err and "Permission denied" in life.err, life.err
    here.store.chmod(0o755)
    here.finish()


def test_a_finished_run_is_read_from_a_store_that_may_not_be_written(place: Callable[..., Place]) -> None:
    here = place()
    first = here.live()
    here.check(first)
    for folder, _, files in os.walk(here.store):
        for name in files:
            Path(folder, name).chmod(0o444)
        Path(folder).chmod(0o555)
    asked = place("asked", 'import exoflow\nprint(exoflow.get("trip", store="store").result())\n')
    asked.store.symlink_to(here.store)
    life = asked.spawn(*unprivileged([]))
    for folder, _, _ in os.walk(here.store):
        Path(folder).chmod(0o755)
    assert life.code == 0, life.err
    assert "receipt for" in life.out


VANISH = """
    import os, shutil, sys
    from exoflow import flow, task

    @task(checkpoint="sync")
    def one(n):
        print("one", n, flush=True)
        return n

    @task(checkpoint="sync")
    def vanish():
        if not os.path.exists("gone"):
            shutil.copytree("store", "gone", ignore=shutil.ignore_patterns(".tmp"))
            os.rename("store", "old")
            shutil.rmtree("old")
        return 3

    @flow
    def f():
        return [one(1), vanish(), one(2)]

    print(f.options(run_id="trip", store="store").run())
"""


def test_a_store_that_vanishes_in_mid_run_is_told_and_the_run_goes_on_when_it_is_back(
    place: Callable[..., Place],
) -> None:
    here = place("here", VANISH)
    life = here.live()
    assert life.code == 1
    assert "StorageError: cannot " in life.error and str(here.store) in life.error, life.err
    assert life.out.splitlines() == ["one 1"]
    shutil.rmtree(here.store, ignore_errors=True)
    (here.folder / "gone").rename(here.store)
    (here.folder / "gone").mkdir()
    life = here.live()
    assert life.code == 0, life.err
    assert life.out.splitlines() == ["one 2", "[1, 3, 2]"]


def test_a_store_may_lie_on_a_path_with_spaces_and_any_letters(place: Callable[..., Place]) -> None:
    name = os.fsdecode(b"a b/\xc3\xbc \xe6\x97\xa5\xe6\x9c\xac/100% 'it''s' #?*/caf\xff")
    here = place(name)
    assert here.live(fault="slot.append.before:4:kill").killed
    here.finish()


def test_sigkill_is_what_the_fault_points_send(place: Callable[..., Place]) -> None:
    assert place().live(fault="journal.claim.after:1").code == -signal.SIGKILL
