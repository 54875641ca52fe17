"""kill -9 in the middle of a step, and how long a new process takes to go on."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from systems import Bench, Broken, System, kill, start

KILL_AT = 10
LAST = 19
LIMIT_S = 120.0


def steps(log: Path) -> list[tuple[str, int, float]]:
    """What the steps said: (start or end, step, when)."""
    if not log.exists():
        return []
    words = (line.split() for line in log.read_text().splitlines())
    return [(word, int(step), float(when)) for word, step, when in words]


def crash(bench: Bench, system: System, directory: Path) -> dict[str, list[float]]:
    """Kill a run of 20 steps within step 10, resume it, and read from the steps' own words what happened.

    Raises:
        Broken: it did not get to the step, or did not end after the resume.
    """
    log = directory / "steps"
    wait_for(bench, system, "crash_start", directory, ("start", KILL_AT), settle_s=0.1)
    before = steps(log)
    finished = {step for word, step, _ in before if word == "end"}
    started = time.time()
    wait_for(bench, system, "crash_resume", directory, ("end", LAST), settle_s=0.0)
    after = [entry for entry in steps(log)[len(before) :] if entry[0] == "start"]
    return {
        "first_step_s": [after[0][2] - started],
        "again": [float(sum(step in finished for _, step, _ in after))],
    }


def wait_for(
    bench: Bench, system: System, stage: str, directory: Path, awaited: tuple[str, int], settle_s: float
) -> None:
    """Start a program, wait until a step has said the awaited words, then SIGKILL its process group."""
    errors = directory / f"{stage}.errors"
    with errors.open("w") as stream:
        process = start(bench.command(system, stage, directory), stdout=subprocess.DEVNULL, stderr=stream)
        deadline = time.monotonic() + LIMIT_S
        try:
            while not any(entry[:2] == awaited for entry in steps(directory / "steps")):
                if process.poll() is not None:
                    raise Broken(f"{stage} ended too early: {errors.read_text().strip().splitlines()[-1:]}")
                if time.monotonic() > deadline:
                    raise Broken(f"{stage} did not get to {awaited[0]} of step {awaited[1]} in {LIMIT_S:.0f} s")
                time.sleep(0.005)
            time.sleep(settle_s)
        finally:
            kill(process)
