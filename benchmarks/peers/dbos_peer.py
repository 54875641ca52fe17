"""DBOS on SQLite, in WAL mode with synchronous=NORMAL: faster than its default, without an fsync per commit."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, SetWorkflowID
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

THREADS = 8  # at 32 it is slower
ARRAY: Any = None
STEPS = Path()


@DBOS.step()
def noop(i: int) -> int:
    return i


@DBOS.step()
async def async_noop(i: int) -> int:
    return i


@DBOS.step()
def make_array() -> Any:
    return ARRAY


@DBOS.step()
def read_array(a: Any) -> float:
    return float(a[0] + a[-1])


@DBOS.step()
def slow(i: int) -> int:
    return slow_step(STEPS, i)


@DBOS.workflow()
def one_step(i: int) -> int:
    return noop(i)


@DBOS.workflow()
def many_steps(n: int) -> int:
    last = 0
    for i in range(n):
        last = noop(i)
    return last


@DBOS.workflow()
async def gathered(n: int) -> int:
    return sum(await asyncio.gather(*[async_noop(i) for i in range(n)]))


@DBOS.workflow()
def array_between() -> float:
    return read_array(make_array())


@DBOS.workflow()
def slow_steps() -> int:
    return sum(slow(i) for i in range(CRASH_STEPS))


def launch(options: Options) -> None:
    """Start DBOS on a database in the given folder."""
    global STEPS
    STEPS = options.step_log
    url = f"sqlite:///{options.directory / 'dbos.sqlite'}"
    engine = sqlalchemy.create_engine(url, pool_size=20)

    @sqlalchemy.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "system_database_engine": engine,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": "local",
        }
    )
    DBOS.launch()


def chain(options: Options) -> Figures:
    launch(options)
    many_steps(10)
    return {"step_ms": [s / options.size * 1e3 for s in repeat(options.times, lambda: many_steps(options.size))]}


def fanout(options: Options) -> Figures:
    launch(options)
    asyncio.run(gathered(50))
    return {
        "tasks_per_s": [options.size / s for s in repeat(options.times, lambda: asyncio.run(gathered(options.size)))]
    }


def flows(options: Options) -> Figures:
    launch(options)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one_step, range(50)))
        return {
            "flows_per_s": [
                options.size / s for s in repeat(options.times, lambda: list(pool.map(one_step, range(options.size))))
            ]
        }


def one(options: Options) -> Figures:
    launch(options)
    one_step(0)
    return {"flow_ms": [p50_ms(options.size, lambda: one_step(1))]}


def array(options: Options) -> Figures:
    global ARRAY
    launch(options)
    ARRAY = random_array(1_000_000)
    array_between()
    ARRAY = random_array(options.size)
    times, written = [], []
    for _ in range(options.times):
        before = written_bytes()
        times.append(seconds(array_between))
        written.append((written_bytes() - before) / 1e6)
    return {"s": times, "written_mb": written}


def crash_start(options: Options) -> Figures:
    launch(options)
    with SetWorkflowID("crash"):
        slow_steps()
    return {}


def crash_resume(options: Options) -> Figures:
    launch(options)  # it recovers what this executor id left
    DBOS.retrieve_workflow("crash").get_result()
    return {}


program(
    {
        "chain": chain,
        "fanout": fanout,
        "flows": flows,
        "one": one,
        "array": array,
        "crash_start": crash_start,
        "crash_resume": crash_resume,
    }
)
sys.stdout.flush()
os._exit(0)  # its background threads take seconds to stop, and nothing is measured any more
