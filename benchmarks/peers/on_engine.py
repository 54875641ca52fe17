"""The bare engine and exoflow on it, in one process, on one cluster, in turns."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import engine_bodies as bodies
import engine_flows as flows
import psutil
from engines import CLUSTERS, LARGE, SMALL, Engine
from limits import write_durably
from measure import Figures, Options, program, seconds
from sampling import sampled

import exoflow

BARE, OURS, AGAIN, DISK = "bare", "ours", "deterministic", "disk"
AT_ONCE = 8
"""Arrays that pass by reference at the same time."""
PARTS = 50
"""Maps, and reduces, of the shuffle."""
ARRAY_BYTES = 100_000_000
WATCH_S = 0.05
HEAVY = ("array_1gb", "by_reference", "shuffle")
"""What needs a large store."""

Work = Callable[[], dict[str, Any]]


def take_turns(works: Mapping[str, Work], turns: int, warm: Mapping[str, Work] | None = None) -> Figures:
    """Each work once a turn: A B C, C B A, ...; its numbers as ``work/number``, in the order of the turns."""
    for work in (warm or works).values():
        work()
    figures: Figures = {}
    for turn in range(turns):
        names = list(works)
        for name in names if turn % 2 == 0 else reversed(names):
            for figure, value in works[name]().items():
                if isinstance(value, list):
                    figures[f"{name}/{figure}"] = value  # a trace: the last turn's
                else:
                    figures.setdefault(f"{name}/{figure}", []).append(value)
    return figures


def processor_s(processes: list[psutil.Process]) -> dict[int, float]:
    """What each of these processes has had of the processor."""
    spent = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent[process.pid] = times.user + times.system
    return spent


def rated(count: int, run: Callable[[], int]) -> dict[str, float]:
    """Tasks a second, and the microseconds of processor a task: of this process, and of the engine's others."""
    driver = psutil.Process()
    before = processor_s([driver, *driver.children(recursive=True)])
    taken_s = seconds(run)
    after = processor_s([driver, *driver.children(recursive=True)])
    spent = {pid: spent_s - before.get(pid, 0.0) for pid, spent_s in after.items()}
    own_s = spent.pop(driver.pid)
    return {
        "tasks_per_s": count / taken_s,
        "driver_us": 1e6 * own_s / count,
        "others_us": 1e6 * sum(spent.values()) / count,
    }


def fan(engine: Engine, napping: bool, options: Options) -> dict[str, Work]:
    body = bodies.nap if napping else bodies.noop
    count = options.size
    return {
        BARE: lambda: rated(count, lambda: engine.fan(body, count)),
        OURS: lambda: rated(count, lambda: flows.fan.run(False, napping, count)),
        AGAIN: lambda: rated(count, lambda: flows.fan.run(True, napping, count)),
    }


def chain(engine: Engine, options: Options) -> dict[str, Work]:
    def per_step(run: Callable[[], object]) -> dict[str, float]:
        return {"step_ms": 1e3 * seconds(run) / options.size}

    return {
        BARE: lambda: per_step(lambda: engine.chain(options.size)),
        OURS: lambda: per_step(lambda: flows.chain.run(False, options.size)),
    }


def reduce(engine: Engine, options: Options) -> dict[str, Work]:
    def rate(run: Callable[[], object]) -> dict[str, float]:
        return {"tasks_per_s": options.size / seconds(run)}

    return {
        BARE: lambda: rate(lambda: engine.reduce(options.size)),
        OURS: lambda: rate(lambda: flows.reduce.run(False, options.size)),
    }


def checked(wanted: float, run: Callable[[], float]) -> dict[str, float]:
    """The seconds until the right answer."""
    start = time.perf_counter()
    found = run()
    taken_s = time.perf_counter() - start
    if found != wanted:
        raise RuntimeError(f"the sum is {found}, and should be {wanted}")
    return {"s": taken_s}


def stored(options: Options, work: Work) -> dict[str, Any]:
    """The numbers, and the megabytes that the store's folder grew by; what has been saved is then thrown away."""
    store = options.directory / "store"
    before = folder_bytes(store)
    numbers = {**work(), "stored_mb": (folder_bytes(store) - before) / 1e6}
    shutil.rmtree(store / "values", ignore_errors=True)
    return numbers


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def between(engine: Engine, options: Options) -> dict[str, Work]:
    size = options.size
    wanted = bodies.total(bodies.make(size))
    return {
        BARE: lambda: checked(wanted, lambda: engine.between(size)),
        OURS: lambda: stored(options, lambda: checked(wanted, lambda: flows.between.run(False, size))),
        AGAIN: lambda: stored(options, lambda: checked(wanted, lambda: flows.between.run(True, size))),
        DISK: lambda: on_disk(options),
    }


def on_disk(options: Options) -> dict[str, float]:
    """Write, crc32 and fdatasync of the same bytes, by this process."""
    data = memoryview(bodies.make(options.size)).cast("B")
    path = options.directory / "alone"
    taken_s = seconds(lambda: write_durably(path, data))
    path.unlink()
    return {"s": taken_s, "stored_mb": options.size / 1e6}


def shuffle(engine: Engine, options: Options) -> dict[str, Work]:
    size = options.size
    wanted = float(sum(range(PARTS * PARTS)) * (size // 8))
    return {
        BARE: lambda: checked(wanted, lambda: engine.shuffle(PARTS, size)),
        OURS: lambda: stored(options, lambda: checked(wanted, lambda: flows.shuffle.run(False, PARTS, size))),
        AGAIN: lambda: stored(options, lambda: checked(wanted, lambda: flows.shuffle.run(True, PARTS, size))),
        DISK: lambda: maps_on_disk(options),
    }


def maps_on_disk(options: Options) -> dict[str, float]:
    """What the maps make, written, summed and made durable by this process, a map at a time."""
    of_one = Options(options.directory, PARTS * options.size, options.times, "")
    found = [on_disk(of_one) for _ in range(PARTS)]
    return {"s": sum(one["s"] for one in found), "stored_mb": sum(one["stored_mb"] for one in found)}


class Watch(threading.Thread):
    """Looks at this process's memory, and at what the engine holds, until it is stopped."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self._engine = engine
        self._over = threading.Event()
        self._driver = psutil.Process()
        self.resident = [self._driver.memory_info().rss]
        self.held: list[float] = []

    def run(self) -> None:
        while not self._over.wait(WATCH_S):
            self.resident.append(self._driver.memory_info().rss)
            self.held.append(self._engine.held_bytes())

    def stop(self) -> None:
        self._over.set()
        self.join()
        if not self.held:
            raise RuntimeError("the memory was not watched")


def watched(engine: Engine, work: Work) -> dict[str, Any]:
    """The numbers, and those of the memory meanwhile."""
    watch = Watch(engine)
    watch.start()
    try:
        numbers = work()
    finally:
        watch.stop()
    first, least, most = watch.resident[0], min(watch.resident), max(watch.resident)
    every = max(1, len(watch.resident) // 200)
    return {
        **numbers,
        "growth_mb": (most - first) / 1e6,
        "least_mb": least / 1e6,
        "most_mb": most / 1e6,
        "held_mb": max(watch.held) / 1e6,
        "growth_trace_mb": [(resident - first) / 1e6 for resident in watch.resident[::every]],
    }


def passing(engine: Engine, options: Options, count: int) -> dict[str, Work]:
    """So many arrays made and reduced, a few at a time."""
    wanted = count * bodies.total(bodies.make(options.size))
    sizes = (count, options.size, AT_ONCE)
    works: dict[str, Callable[[], float]] = {
        BARE: lambda: engine.waves(*sizes),
        OURS: lambda: flows.waves.run(False, *sizes),
        AGAIN: lambda: flows.waves.run(True, *sizes),
    }
    return {
        name: lambda run=run: stored(options, lambda: watched(engine, lambda: checked(wanted, run)))
        for name, run in works.items()
    }


def by_reference(engine: Engine, options: Options) -> Figures:
    """``size`` bytes in all, 100 MB at a time, or a hundredth of it where that is less."""
    of_one = Options(options.directory, min(ARRAY_BYTES, options.size // 100), options.times, "")
    count = options.size // of_one.size
    return take_turns(passing(engine, of_one, count), options.times, passing(engine, of_one, AT_ONCE))


WORKS: dict[str, Callable[[Engine, Options], dict[str, Work]]] = {
    "fanout": lambda engine, options: fan(engine, False, options),
    "fanout_10ms": lambda engine, options: fan(engine, True, options),
    "array": between,
    "array_1gb": between,
    "shuffle": shuffle,
    "chain": chain,
    "reduce": reduce,
    "array_steps": between,
}


def of_all(work: Callable[[Engine, Options], dict[str, Work]], engine: Engine, options: Options) -> Figures:
    return take_turns(work(engine, options), options.times)


def of_ours(work: Callable[[Engine, Options], dict[str, Work]], engine: Engine, options: Options) -> Figures:
    """Ours alone, for a profile."""
    return take_turns({OURS: work(engine, options)[OURS]}, options.times)


def main() -> None:
    directory = Path(sys.argv[sys.argv.index("--dir") + 1])
    name, _, work = sys.argv[1].partition(".")
    with CLUSTERS[name](directory, LARGE if work in HEAVY else SMALL) as engine:
        exoflow.configure(store=(directory / "store").as_uri(), executor=name)
        known = {f"{name}.{work}": functools.partial(of_all, make, engine) for work, make in WORKS.items()}
        known |= {f"{name}.{work}.ours": functools.partial(of_ours, make, engine) for work, make in WORKS.items()}
        program({**known, f"{name}.by_reference": functools.partial(by_reference, engine)}, around=sampled)


if __name__ == "__main__":
    main()
