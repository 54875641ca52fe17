"""Processes that run the demo's program, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
POLL_S = 0.05
RUN_ID = "demo"
GONE_S = 2.0
"""Longer than a killed process needs to go; zombies that nobody reaps stay, and hold no lock."""


class ProgramFailed(Exception):
    """The program ended with an error of its own; the text says which."""


@dataclass(frozen=True, slots=True)
class Place:
    """One folder: the store and the output of one run, whichever process goes on with it."""

    folder: Path
    program: Path
    resamples: int

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def release(self) -> Path:
        return self.folder / "output" / "latest"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def command(self) -> list[str]:
        """What a person would type; the same for the first process and for each that goes on."""
        options = ["--run-id", RUN_ID, "--store", str(self.store), "--resamples", str(self.resamples)]
        return [sys.executable, str(self.program), str(self.folder / "output"), *options]


def find_program() -> Path:
    """The ETL: beside the package in a checkout, inside it in a wheel."""
    candidates = [folder / "examples" / "etl" / "etl.py" for folder in (PACKAGE, PACKAGE.parent)]
    for path in candidates:
        if path.exists():
            return path
    raise ProgramFailed(f"The example program is missing: neither {candidates[0]} nor {candidates[1]} exists.")


def run(place: Place, watch: Callable[[], bool] = lambda: False) -> dict[str, object] | None:
    """Run the program until it ends, or until ``watch()`` says to kill it.

    Returns:
        What the program printed; None: it was killed.

    Raises:
        ProgramFailed: it ended with an error.
    """
    with started(place) as process:
        while process.poll() is None:
            if watch():
                kill(process)
                return None
            time.sleep(POLL_S)
        printed, _ = process.communicate()
    if process.returncode:
        raise ProgramFailed(f"{place.program} ended with {process.returncode}:\n{place.log.read_text()[-4000:]}")
    summary = json.loads(printed)
    assert isinstance(summary, dict)
    return summary


@contextmanager
def started(place: Place) -> Iterator[subprocess.Popen[str]]:
    """The program in a process group of its own, so that a kill takes its workers too; none outlives the block."""
    place.folder.mkdir(parents=True, exist_ok=True)
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    with place.log.open("a") as log:
        process = subprocess.Popen(
            place.command, cwd=place.folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the whole group; returns when the last of it is gone, so that nobody holds the store's locks."""
    _signal_group(process.pid, signal.SIGKILL)
    if process.stdout is not None and not process.stdout.closed:
        process.communicate()
    process.wait()
    patience = time.monotonic() + GONE_S
    while _signal_group(process.pid, 0) and time.monotonic() < patience:
        time.sleep(POLL_S / 10)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was anybody to signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM where only zombies are left
        return False
    return True


def differences(one: Path, other: Path) -> list[str]:
    """The names of all files that are not the same, byte for byte, in both folders."""
    names = {str(path.relative_to(folder)) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    if not names:
        raise ProgramFailed(f"{one} and {other} hold no file to compare.")
    return sorted(name for name in names if _bytes(one / name) != _bytes(other / name))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
