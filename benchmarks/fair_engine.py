"""What a fair queue costs an engine: the share of its thread's time that is spent in the queue.

    python benchmarks/fair_engine.py MODEL [--batch 64] [--tokens 32] [--tenants 16]

Counted in time of the processor of the engine's thread, so that a busy machine changes little. The clock's own cost
is in the queue's share: it is an upper bound.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.fair import VTC

METHODS = ("add", "peek", "pop", "requeue", "charge", "finish", "cancel", "__len__")


class Timed:
    """A queue, and how long it was worked in."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.ns = 0
        self.began_ns = self.ended_ns = 0

    def _measured(self, method: Callable[..., Any], *arguments: Any) -> Any:
        began = time.thread_time_ns()
        result = method(*arguments)
        self.ended_ns = time.thread_time_ns()
        self.began_ns = self.began_ns or began
        self.ns += self.ended_ns - began
        return result

    def __iter__(self) -> Any:
        return iter(self.queue)


def _timed(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: self._measured(getattr(self.queue, name), *arguments)


for name in METHODS:
    setattr(Timed, name, _timed(name))


def share(model: str, queue: Any, *, batch: int, tokens: int, tenants: int, **settings: Any) -> tuple[float, float]:
    """The queue's share of the engine's steps, and a step's milliseconds; twice as many ask as run at once."""
    timed = Timed(queue)
    with Engine(model, queue=timed, max_batch=batch, **settings) as engine:
        params = SamplingParams(max_tokens=tokens, ignore_eos=True)
        asked = [
            engine.submit(
                [5 + place % 90, *range(10, 20)], params, labels={"tenant": f"t{place % tenants}", "user": "u"}
            )
            for place in range(2 * batch)
        ]
        for generation in asked:
            generation.outputs()
        steps = engine.stats().steps
    spent = timed.ended_ns - timed.began_ns
    return timed.ns / spent, spent / steps / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--tenants", type=int, default=16)
    asked = parser.parse_args()
    for name, queue in (("first come", Fcfs()), ("VTC", VTC()), ("VTC, reserve", VTC(charge="reserve"))):
        part, step_ms = share(
            asked.model, queue, batch=asked.batch, tokens=asked.tokens, tenants=asked.tenants, threads=1
        )
        print(f"{name:<14} {part:8.3%} of a step of {step_ms:.2f} ms, {1000 * part * step_ms:.0f} us")


if __name__ == "__main__":
    main()
