"""``collect`` beside a bare loop on aiohttp: the same endpoint, the same questions, one after another in one run.

    python benchmarks/collect.py [--calls 4000] [--delay-ms 50] [--in-flight 64] [--rounds 3]

The endpoint is a process of its own. The bare loop is that of ``calls.py``: nothing is recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from calls import bare

from exoflow.llm import LLM, Prices, collect
from exoflow.testing import FakeEndpoint

SAMPLES = 20


def recorded(url: str, questions: int, in_flight: int, store: Path) -> None:
    llm = LLM(url, model="fake", max_tokens=16, prices=Prices(0.15, 0.6), max_in_flight=in_flight)
    rows = [{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(questions)]
    assert len(collect.options(store=str(store)).run(llm, rows, n=SAMPLES)) == questions * SAMPLES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--delay-ms", type=float, default=50)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["bare", "collect"])
    asked = parser.parse_args()
    questions = asked.calls // SAMPLES
    calls = questions * SAMPLES
    best = {"bare": 0.0, "collect": 0.0}
    with FakeEndpoint(delay_s=asked.delay_ms / 1000, own_process=True) as endpoint:
        for number in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                works = {
                    "bare": lambda: asyncio.run(bare(endpoint.url, calls, asked.in_flight)),
                    "collect": lambda folder=folder: recorded(endpoint.url, questions, asked.in_flight, Path(folder)),
                }
                for name, work in works.items():
                    if asked.only not in (None, name):
                        continue
                    begun = time.perf_counter()
                    work()
                    rate = calls / (time.perf_counter() - begun)
                    best[name] = max(best[name], rate)
                    print(f"round {number + 1}: {name:8} {rate:7.0f} calls/s", flush=True)
            endpoint.forget()
    if asked.only is None:
        print(f"ratio {best['collect'] / best['bare']:.2f}, best of {asked.rounds} each")


if __name__ == "__main__":
    sys.exit(main())
