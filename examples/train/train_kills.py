"""Kill the training where it hurts, and count: what was run again, and how long it took to be where it was.

    python train_kills.py FOLDER --at training --train-on ray

Each place is one of five: ``preparation`` and ``training`` kill -9 the worker that prepares or trains, ``driver`` the
program, ``cluster`` every process that it has started, and ``store`` takes the store's folder away for two seconds.
The command is given again whenever it has ended in an error, as a person would.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_PROGRAM = Path(__file__).with_name("train.py")
_OUTAGE_S = 2.0
_TIMEOUT_S = 600.0
_POLL_S = 0.02

PLACES = ("preparation", "training", "driver", "cluster", "store")
_AFTER = {
    "preparation": ("prepare", 4),
    "training": ("fit", 7),
    "driver": ("fit", 7),
    "cluster": ("fit", 7),
    "store": ("fit", 7),
}
"""The body, and how many of them have begun, when it is killed."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one training."""

    at: str | None
    seconds: float
    lives: int
    """How often the command was given."""
    bodies: dict[str, int]
    """How often each body was entered."""
    result: dict[str, object]


class Training:
    """One run in a folder of its own, told to log its bodies."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.store = folder / "store"
        self._errors = folder / "errors.txt"
        self._command = [sys.executable, str(_PROGRAM), str(folder / "models"), "--run-id", "train"]
        self._command += ["--store", str(self.store), "--log", str(self.log), *words]

    def begin(self) -> subprocess.Popen[str]:
        with self._errors.open("a") as errors:
            return subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )

    def entered(self) -> Iterator[tuple[str, str, int]]:
        """Body, what it was for, and the process, of each line of the log."""
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            body, *what, pid = line.split()
            yield body, " ".join(what), int(pid)

    def wait_for(self, body: str, count: int, life: subprocess.Popen[str]) -> int:
        """Wait until so many of the bodies have begun; the process of the last one."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            pids = [pid for name, _, pid in self.entered() if name == body]
            if len(pids) >= count:
                return pids[count - 1]
            if life.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"there were never {count} bodies of {body}: see {self._errors}")
            time.sleep(_POLL_S)


def train(folder: Path, words: list[str], at: str | None = None) -> Told:
    """Train to the end, with one accident at most."""
    training = Training(folder, words)
    began = time.monotonic()
    life = training.begin()
    lives = 1
    if at is not None:
        pid = training.wait_for(*_AFTER[at], life)
        strike(at, pid, life, training)
    while (output := life.communicate(timeout=_TIMEOUT_S)[0]) is not None and life.returncode != 0:
        if lives == 5:
            sys.exit(f"it does not get through: see {folder / 'errors.txt'}")
        life = training.begin()
        lives += 1
    bodies = Counter(name for name, _, _ in training.entered())
    return Told(at, round(time.monotonic() - began, 2), lives, dict(bodies), result_in(output))


def result_in(output: str) -> dict[str, object]:
    """What the program printed, among the lines that Ray prints for its workers."""
    lines = output.splitlines()
    result: dict[str, object] = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
    return result


def strike(at: str, pid: int, life: subprocess.Popen[str], training: Training) -> None:
    """Let the accident happen."""
    match at:
        case "preparation" | "training":
            os.kill(pid, signal.SIGKILL)
        case "driver":
            life.kill()
        case "cluster":
            for process in psutil.Process(life.pid).children(recursive=True):
                if process.is_running():
                    process.kill()
        case _:
            away = training.store.with_name("away")
            training.store.rename(away)
            time.sleep(_OUTAGE_S)
            shutil.rmtree(training.store, ignore_errors=True)
            away.rename(training.store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", choices=PLACES, help="without it, it is left in peace")
    known, words = parser.parse_known_args()
    print(json.dumps(asdict(train(known.folder, words, known.at)), indent=2))


if __name__ == "__main__":
    main()
