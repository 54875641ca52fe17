"""exoflow on a store of local files; the executor is local threads."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from exoflow_scale import SCALE
from measure import (
    CRASH_STEPS,
    Figures,
    Options,
    p50_ms,
    program,
    random_array,
    repeat,
    seconds,
    slow_step,
    written_bytes,
)
from sampling import sampled

import exoflow
from exoflow import flow, task

THREADS = 32
ARRAY: Any = None


@task
def noop(i: int) -> int:
    return i


@task(checkpoint="sync")
def durable_noop(i: int) -> int:
    return i


@task
async def async_noop(i: int) -> int:
    return i


@task
def make_array() -> Any:
    return ARRAY


@task(deterministic=True)
def make_array_again() -> Any:
    return ARRAY


@task
def read_array(a: Any) -> float:
    return float(a[0] + a[-1])


@task
def slow(log: str, i: int) -> int:
    return slow_step(Path(log), i)


@flow
def one_step(i: int) -> int:
    return noop(i)


@flow
async def async_one_step(i: int) -> int:
    return await async_noop(i)


@flow
def many_steps(n: int) -> int:
    last = 0
    for i in range(n):
        last = noop(i)
    return last


@flow
def many_durable_steps(n: int) -> int:
    last = 0
    for i in range(n):
        last = durable_noop(i)
    return last


@flow
def fan(n: int) -> int:
    return sum(ref.result() for ref in noop.map(range(n)))


@flow
def array_between() -> float:
    return read_array(make_array())


@flow
def array_between_deterministic() -> float:
    return read_array(make_array_again())


@flow
def slow_steps(log: str) -> int:
    return sum(slow(log, i) for i in range(CRASH_STEPS))


def per_step(options: Options, run: Callable[[int], object]) -> Figures:
    """Milliseconds a step of a chain, after a short one."""
    run(10)
    return {"step_ms": [s / options.size * 1e3 for s in repeat(options.times, lambda: run(options.size))]}


def chain(options: Options) -> Figures:
    return per_step(options, many_steps.run)


def chain_sync(options: Options) -> Figures:
    return per_step(options, many_durable_steps.run)


def fanout(options: Options) -> Figures:
    fan.run(50)
    return {"tasks_per_s": [options.size / s for s in repeat(options.times, lambda: fan.run(options.size))]}


def flows(options: Options) -> Figures:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one_step.run, range(50)))
        return {
            "flows_per_s": [
                options.size / s
                for s in repeat(options.times, lambda: list(pool.map(one_step.run, range(options.size))))
            ]
        }


def flows_async(options: Options) -> Figures:
    async def run(n: int) -> None:
        runs = [async_one_step.start(i) for i in range(n)]
        for started in runs:
            await started

    async def measured() -> list[float]:
        await run(50)
        rates = []
        for _ in range(options.times):
            start = time.perf_counter()
            await run(options.size)
            rates.append(options.size / (time.perf_counter() - start))
        return rates

    return {"flows_per_s": asyncio.run(measured())}


def one(options: Options) -> Figures:
    one_step.run(0)
    return {"flow_ms": [p50_ms(options.size, lambda: one_step.run(1))]}


def array_with(options: Options, run: Callable[[], object]) -> Figures:
    """Seconds and megabytes written for the array, after a small one."""
    global ARRAY
    ARRAY = random_array(1_000_000)
    run()
    ARRAY = random_array(options.size)
    times, written = [], []
    for _ in range(options.times):
        before = written_bytes()
        times.append(seconds(run))
        written.append((written_bytes() - before) / 1e6)
    return {"s": times, "written_mb": written}


def array(options: Options) -> Figures:
    return array_with(options, array_between.run)


def array_deterministic(options: Options) -> Figures:
    return array_with(options, array_between_deterministic.run)


def crash_start(options: Options) -> Figures:
    slow_steps.options(run_id="crash").run(str(options.step_log))
    return {}


def crash_resume(options: Options) -> Figures:
    slow_steps.resume("crash")
    return {}


def main() -> None:
    directory = Path(sys.argv[sys.argv.index("--dir") + 1])
    exoflow.configure(store=(directory / "store").as_uri())
    program(
        {
            "chain": chain,
            "chain_sync": chain_sync,
            "fanout": fanout,
            "flows": flows,
            "flows_async": flows_async,
            "one": one,
            "array": array,
            "array_deterministic": array_deterministic,
            "crash_start": crash_start,
            "crash_resume": crash_resume,
            **SCALE,
        },
        around=sampled,
    )


if __name__ == "__main__":
    main()
