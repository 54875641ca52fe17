"""LangGraph's functional API with SqliteSaver (WAL, synchronous=FULL: its defaults) and durability="sync"."""

from __future__ import annotations

import itertools
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
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

THREADS = 8
ARRAY: Any = None
numbers = itertools.count()


@task
def noop(i: int) -> int:
    return i


@task
def make_array() -> Any:
    return ARRAY


@task
def read_array(a: Any) -> float:
    return float(a[0] + a[-1])


@task
def slow(log: str, i: int) -> int:
    return slow_step(Path(log), i)


def saver(options: Options) -> SqliteSaver:
    """A checkpointer on a database in the given folder."""
    checkpointer = SqliteSaver(sqlite3.connect(options.directory / "langgraph.db", check_same_thread=False))
    checkpointer.setup()
    return checkpointer


def invoke(graph: Any, value: object, thread: str | None = None) -> Any:
    """Run an entrypoint to its end, each task durable before the next."""
    thread_id = thread or f"thread{next(numbers)}"
    return graph.invoke(value, {"configurable": {"thread_id": thread_id}}, durability="sync")


def chain(options: Options) -> Figures:
    @entrypoint(checkpointer=saver(options))
    def many_steps(n: int) -> int:
        last = 0
        for i in range(n):
            last = noop(i).result()
        return last

    invoke(many_steps, 10)
    return {
        "step_ms": [s / options.size * 1e3 for s in repeat(options.times, lambda: invoke(many_steps, options.size))]
    }


def fanout(options: Options) -> Figures:
    @entrypoint(checkpointer=saver(options))
    def fan(n: int) -> int:
        return sum(future.result() for future in [noop(i) for i in range(n)])

    invoke(fan, 50)
    return {"tasks_per_s": [options.size / s for s in repeat(options.times, lambda: invoke(fan, options.size))]}


def flows(options: Options) -> Figures:
    graph = one_step(options)
    with ThreadPoolExecutor(THREADS) as pool:

        def run() -> None:
            list(pool.map(lambda i: invoke(graph, i), range(options.size)))

        list(pool.map(lambda i: invoke(graph, i), range(50)))
        return {"flows_per_s": [options.size / s for s in repeat(options.times, run)]}


def one(options: Options) -> Figures:
    graph = one_step(options)
    invoke(graph, 0)
    return {"flow_ms": [p50_ms(options.size, lambda: invoke(graph, 1))]}


def one_step(options: Options) -> Any:
    """An entrypoint of one task."""

    @entrypoint(checkpointer=saver(options))
    def graph(i: int) -> int:
        return noop(i).result()

    return graph


def array(options: Options) -> Figures:
    global ARRAY

    @entrypoint(checkpointer=saver(options))
    def array_between(_: object) -> float:
        return read_array(make_array().result()).result()

    ARRAY = random_array(1_000_000)
    invoke(array_between, 0)
    ARRAY = random_array(options.size)
    times, written = [], []
    for _ in range(options.times):
        before = written_bytes()
        times.append(seconds(lambda: invoke(array_between, 0)))
        written.append((written_bytes() - before) / 1e6)
    return {"s": times, "written_mb": written}


def slow_steps(options: Options) -> Any:
    """An entrypoint of slow tasks."""

    @entrypoint(checkpointer=saver(options))
    def graph(_: object) -> int:
        return sum(slow(str(options.step_log), i).result() for i in range(CRASH_STEPS))

    return graph


def crash_start(options: Options) -> Figures:
    invoke(slow_steps(options), 0, "crash")
    return {}


def crash_resume(options: Options) -> Figures:
    invoke(slow_steps(options), None, "crash")
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
