"""Measure calls of an endpoint beside bare aiohttp, on one fake endpoint that takes 50 ms a call, in one run, in turns.

    python benchmarks/calls.py              5 turns of 4,000 calls each way
    python benchmarks/calls.py --quick      one turn of 1,000

64 calls are in flight. The endpoint is a process of its own. The ratio is the median of the ratios of each turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count

import aiohttp

from exoflow import flow
from exoflow.llm import LLM
from exoflow.testing import FakeEndpoint

IN_FLIGHT = 64
DELAY_S = 0.05
GOAL = 0.9
BARE = "bare aiohttp"


async def bare(url: str, calls: int, in_flight: int = IN_FLIGHT) -> None:
    """What the transport can do: a loop for each call in flight, and nothing is kept."""
    numbers = iter(range(calls))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(numbers: Iterator[int]) -> None:
            for number in numbers:
                body = {"model": "fake", "messages": [{"role": "user", "content": f"question {number}"}]}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    answer = json.loads(await response.read())
                    assert answer["choices"][0]["message"]["content"]

        await asyncio.gather(*(ask(numbers) for _ in range(in_flight)))


def outside(llm: LLM, calls: int) -> None:
    """``LLM`` outside of a flow: nothing is recorded."""

    async def all_of_them() -> None:
        await asyncio.gather(*(llm(f"question {number}") for number in range(calls)))

    asyncio.run(all_of_them())


@flow
def mapped(llm: LLM, calls: int) -> int:
    return len(llm.map([f"question {number}" for number in range(calls)]).result())


@flow
async def awaited(llm: LLM, calls: int) -> int:
    return len(await asyncio.gather(*(llm(f"question {number}") for number in range(calls))))


def ways(url: str, calls: int, store: str) -> dict[str, Callable[[], object]]:
    llm, number = LLM(url, model="fake", max_in_flight=IN_FLIGHT), count()

    def run(which: object) -> Callable[[], object]:
        def once() -> object:
            run = which.options(store=store, run_id=f"run-{next(number)}")  # type: ignore[attr-defined]
            found = run.run(llm, calls)
            return asyncio.run(found) if asyncio.iscoroutine(found) else found

        return once

    return {
        BARE: lambda: asyncio.run(bare(url, calls)),
        "LLM outside of a flow": lambda: outside(llm, calls),
        "LLM.map in a flow, on disk": run(mapped),
        "await LLM in an async flow, on disk": run(awaited),
    }


def main() -> int:
    """Measure and report; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.store is None:
        with tempfile.TemporaryDirectory(prefix="exoflow-bench-") as store:  # it is gone after the journals are closed
            return subprocess.run([sys.executable, *sys.argv, "--store", store], check=False).returncode
    turns, calls = (1, 1_000) if words.quick else (5, 4_000)
    rates: dict[str, list[float]] = {}
    with FakeEndpoint(delay_s=DELAY_S, own_process=True) as endpoint:
        asyncio.run(bare(endpoint.url, 2 * IN_FLIGHT))
        for turn in range(turns):
            given = list(ways(endpoint.url, calls, f"{words.store}/{turn}").items())
            for name, way in given if turn % 2 == 0 else reversed(given):
                endpoint.forget()
                begun = time.perf_counter()
                way()
                rates.setdefault(name, []).append(calls / (time.perf_counter() - begun))
    return report(rates)


def report(rates: dict[str, list[float]]) -> int:
    print(f"{'way':40}{'calls/s':>10}{'least':>10}{'most':>10}{'of bare':>10}")
    missed = False
    for name, found in rates.items():
        ratio = statistics.median(one / other for one, other in zip(found, rates[BARE], strict=True))
        missed |= ratio < GOAL
        print(f"{name:40}{statistics.median(found):10,.0f}{min(found):10,.0f}{max(found):10,.0f}{ratio:10.2f}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
