"""exoflow at scale: a run of many calls, many runs that wait, a list of many runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

from measure import Figures, Options, repeat, resident_bytes, say, seconds
from sampling import growth

import exoflow
from exoflow import event, flow, settings, task, timer
from exoflow.adoption import Adoption

PAGE = 100
asleep: set[int] = set()


@task
def noop(i: int) -> int:
    return i


@task
async def async_noop(i: int) -> int:
    return i


@task(checkpoint="sync")
def durable_noop(i: int) -> int:
    return i


@flow
async def async_one_step(i: int) -> int:
    return await async_noop(i)


@flow
def counted_calls(n: int, tell: bool) -> int:
    """``n`` calls; where asked to, it tells what they cost and then kills its own process."""
    tenth = n // 10
    noop(-1)
    before = resident_bytes()
    marks = [time.perf_counter()]
    for i in range(n):
        noop(i)
        if (i + 1) % tenth == 0:
            marks.append(time.perf_counter())
    durable_noop(n)  # the journal is durable in order, so every call before it is
    if tell and not os.environ.get("EXOFLOW_BENCH_RESUMED"):
        figures = {
            "bytes_per_call": [(resident_bytes() - before) / n],
            "last_over_first": [(marks[-1] - marks[-2]) / (marks[1] - marks[0])],
        }
        say({"figures": figures})
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@flow
def growing(n: int) -> int:
    """``n`` calls; tells which lines their memory came from."""
    noop(-1)

    def work() -> None:
        for i in range(n):
            noop(i)

    say({"figures": {}, "profile": growth(n, work)})
    return n


@flow
async def waiter(i: int) -> None:
    sleeping = timer(3600.0 + i)
    asleep.add(i)
    await sleeping


def calls(options: Options) -> Figures:
    counted_calls.run(100, False)
    counted_calls.options(run_id="calls").run(options.size, True)
    raise AssertionError("it kills its own process")


def calls_memory(options: Options) -> Figures:
    growing.run(options.size)
    sys.stdout.flush()
    os._exit(0)  # it has said what it had to


def calls_resume(options: Options) -> Figures:
    os.environ["EXOFLOW_BENCH_RESUMED"] = "1"
    return {"resume_s": [seconds(lambda: counted_calls.resume("calls"))]}


def waiting(options: Options) -> Figures:
    async def start_and_wait() -> None:
        runs = [waiter.start(i) for i in range(options.size)]
        while len(asleep) < len(runs):  # noqa: ASYNC110 - nothing else goes on that could tell
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)  # the journal writes what it has
        say({"figures": {"rss_mb": [resident_bytes() / 1e6]}})
        sys.stdout.flush()
        os._exit(0)  # they would wait for an hour

    asyncio.run(start_and_wait())
    return {}


@flow
async def listener(i: int) -> object:
    said = event("said")
    asleep.add(i)
    return await said


async def _all_asleep(count: int) -> None:
    while len(asleep) < count:  # noqa: ASYNC110 - nothing else goes on that could tell
        await asyncio.sleep(0.05)


def events(options: Options) -> Figures:
    async def start_and_die() -> None:
        begun = time.perf_counter()
        for i in range(options.size):
            listener.start(i)
        await _all_asleep(options.size)
        start_s = time.perf_counter() - begun
        await asyncio.sleep(1.0)  # the journal writes what it has
        figures = {"rss_mb": [resident_bytes() / 1e6], "start_s": [start_s], "threads": [threading.active_count()]}
        say({"figures": figures})
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(start_and_die())
    raise AssertionError("it kills its own process")


def events_resume(options: Options) -> Figures:
    store = settings.store_of(None)
    adoption = Adoption(store, {listener._spec.name: listener._spec})

    async def resume_and_wake() -> Figures:
        begun = time.perf_counter()
        executions = await asyncio.to_thread(lambda: list(adoption.look(options.size)))
        for execution in executions:
            execution.start()
        await _all_asleep(options.size)
        resume_s = time.perf_counter() - begun
        begun = time.perf_counter()
        await asyncio.to_thread(lambda: [exoflow.send(each.run_id, "said") for each in executions])
        send_s = time.perf_counter() - begun
        for execution in executions:
            await execution.result_async()
        return {"resume_s": [resume_s], "send_ms": [send_s / options.size * 1e3]}

    return asyncio.run(resume_and_wake())


def list_build(options: Options) -> Figures:
    async def build() -> None:
        for start in range(0, options.size, 1000):
            runs = [async_one_step.start(i) for i in range(start, min(start + 1000, options.size))]
            for run in runs:
                await run

    asyncio.run(build())
    return {}


def list_runs(options: Options) -> Figures:
    index_s = seconds(lambda: exoflow.runs(limit=PAGE))
    page_s = repeat(options.times, lambda: exoflow.runs(limit=PAGE))
    return {"list_ms": [s * 1e3 for s in page_s], "all_s": repeat(options.times, exoflow.runs), "index_s": [index_s]}


SCALE = {
    "calls": calls,
    "calls_resume": calls_resume,
    "calls_memory": calls_memory,
    "waiting": waiting,
    "events": events,
    "events_resume": events_resume,
    "list_build": list_build,
    "list": list_runs,
}
