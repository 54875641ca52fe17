"""Snapshots of 8 MB in a real store: damaged ones, and a worker that dies between two calls."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import exoflow

PROGRAM = """
import os, sys
import numpy as np
import exoflow
from exoflow import flow, task

@exoflow.actor(snapshot_every=2)
class Model:
    def __init__(self):
        self.weights = np.zeros(1_000_000)
        self.steps = 0

    def _step(self):
        if os.environ.get("DIES") and self.steps == 3:
            os._exit(9)
        self.steps += 1
        self.weights += 1
        print("step", self.steps, flush=True)
        return float(self.weights[0])

    @task(deterministic=True, checkpoint="sync")
    def computes(self) -> float:
        return self._step()

    @task(checkpoint="sync")
    def chooses(self) -> float:
        return self._step()

@task(effect="idempotent")
def publish(loss: float) -> None: ...

@flow
def train(kind: str) -> list[float]:
    model = Model()
    losses = []
    for _ in range(5):
        losses.append(model.computes() if kind == "computes" else model.chooses())
        if kind == "publishes":
            publish(losses[-1])
    return losses

print(train.options(run_id="run", store="store").run(sys.argv[1]))
"""


def live(folder: Path, kind: str, *, dies: bool) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, **({"DIES": "1"} if dies else {})}
    command = [sys.executable, str(program), kind]
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def damage_newest(folder: Path) -> None:
    snapshots = sorted((folder / "store").glob("values/*/*/*.state"), key=lambda path: path.stat().st_mtime_ns)
    snapshots[-1].chmod(0o600)
    with snapshots[-1].open("r+b") as file:
        file.seek(4_000_000)
        file.write(b"\x01")


def test_a_killed_run_goes_on_from_its_large_state(tmp_path: Path) -> None:
    assert live(tmp_path, "computes", dies=True).returncode == 9
    again = live(tmp_path, "computes", dies=False)
    assert again.stdout.splitlines() == ["step 3", "step 4", "step 5", "[1.0, 2.0, 3.0, 4.0, 5.0]"]


def test_a_damaged_snapshot_is_absent_where_all_behind_an_older_one_can_be_computed(tmp_path: Path) -> None:
    assert live(tmp_path, "computes", dies=True).returncode == 9
    damage_newest(tmp_path)
    again = live(tmp_path, "computes", dies=False)
    steps = [f"step {n}" for n in range(1, 6)]
    assert again.stdout.splitlines() == [*steps, "[1.0, 2.0, 3.0, 4.0, 5.0]"], again.stderr
    assert "goes on from an older one" in again.stderr


def test_a_damaged_snapshot_stops_the_run_where_an_effect_stands_on_what_would_be_made_again(tmp_path: Path) -> None:
    assert live(tmp_path, "publishes", dies=True).returncode == 9
    damage_newest(tmp_path)
    again = live(tmp_path, "publishes", dies=False)
    assert again.returncode == 1
    assert "exoflow.errors.Corrupt: the state that Model.chooses#2 has left cannot be read" in again.stderr
    assert "step" not in again.stdout


@exoflow.actor(snapshot_every=3)
class Counter:
    def __init__(self) -> None:
        self.n = 0

    @exoflow.task(deterministic=True)
    def inc(self) -> tuple[int, int]:
        self.n += 1
        return self.n, os.getpid()


def test_a_worker_that_dies_between_two_calls_is_noticed_by_the_next(tmp_path: Path) -> None:
    @exoflow.flow
    def counts() -> list[int]:
        counter = Counter()
        first = [counter.inc() for _ in range(5)]
        if first[-1][1] not in killed:
            killed.append(first[-1][1])
            os.kill(first[-1][1], signal.SIGKILL)
        return [n for n, _ in (*first, counter.inc())]

    killed: list[int] = []
    assert counts.options(store=tmp_path / "s", executor="processes").run() == [1, 2, 3, 4, 5, 6]
    assert len(killed) == 1
