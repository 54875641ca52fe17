"""What every measured program shares: options in, one JSON line out. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARRAY_BYTES = 100_000_000
CRASH_STEPS = 20
CRASH_STEP_S = 0.2

Figures = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Options:
    """What a program is asked to do."""

    directory: Path
    """Empty at the first stage; the only place to write."""
    size: int
    """How many steps, tasks, flows or calls; bytes for an array."""
    times: int
    """How often to measure within this process."""
    url: str
    """The database server, for who needs one."""

    @property
    def step_log(self) -> Path:
        """Where the steps of the crash workload write a line each; outside any store."""
        return self.directory / "steps"


Workload = Callable[[Options], Figures]


def program(
    workloads: Mapping[str, Workload], around: Callable[[Callable[[], Figures]], dict[str, Any]] | None = None
) -> None:
    """Run the workload named on the command line and print its figures as the last line of the output."""
    parser = argparse.ArgumentParser(description="One workload on one system; prints its figures as one JSON line.")
    parser.add_argument("workload", choices=sorted(workloads))
    parser.add_argument("--dir", type=Path, required=True, help="an empty folder to write in")
    parser.add_argument("--size", type=int, default=100, help="steps, tasks, flows, calls or bytes")
    parser.add_argument("--times", type=int, default=3, help="measurements in this process")
    parser.add_argument("--url", default="", help="database server, for who needs one")
    parser.add_argument("--profile", action="store_true", help="sample the stacks and report where the time goes")
    words = parser.parse_args()
    options = Options(words.dir, words.size, words.times, words.url)
    if words.profile and around is not None:
        answer = around(lambda: workloads[words.workload](options))
    else:
        answer = {"figures": workloads[words.workload](options)}
    say(answer)


def say(answer: Mapping[str, Any]) -> None:
    """Print an answer as one line of its own."""
    print(json.dumps(answer), flush=True)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def repeat(times: int, work: Callable[[], object]) -> list[float]:
    """The seconds of ``times`` calls."""
    return [seconds(work) for _ in range(times)]


def p50_ms(times: int, work: Callable[[], object]) -> float:
    """The median of ``times`` calls, in milliseconds."""
    return statistics.median(repeat(times, work)) * 1e3


def written_bytes(pids: Iterable[int] | None = None) -> float:
    """Bytes that these processes (this one by default) have sent towards the disk; NaN where nobody counts them."""
    total = 0
    for pid in [os.getpid()] if pids is None else pids:
        try:
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        except OSError:
            if pids is None:
                return float("nan")
            continue  # it ended between the listing and the reading
        total += next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
    return float(total)


def resident_bytes() -> int:
    """The memory that this process occupies now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def random_array(size: int) -> Any:
    """An array of ``size`` bytes that nothing can compress."""
    import numpy as np

    return np.random.default_rng(0).random(size // 8)


def note(log: Path, word: str, step: int) -> None:
    """Append a line that says what a step did, in one write, so that kill -9 tears none."""
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(descriptor, f"{word} {step} {time.time():.6f}\n".encode())
    os.close(descriptor)


def slow_step(log: Path, step: int) -> int:
    """A step of the crash workload: says that it began, works, says that it ended."""
    note(log, "start", step)
    time.sleep(CRASH_STEP_S)
    note(log, "end", step)
    return step
