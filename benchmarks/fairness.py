"""Measure how fairly requests are scheduled, in simulation, beside what the paper's authors published.

    python benchmarks/fairness.py             everything, in some minutes; writes FAIRNESS.md, fairness.json and plots
    python benchmarks/fairness.py --quick     one seed, prints only

The paper: Sheng et al., "Fairness in Serving Large Language Models", OSDI '24. Nothing here needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fairness_plots import draw_all
from fairness_report import report
from fairness_workloads import (
    BOUND,
    COST,
    MEMORY,
    POLICIES,
    adversary,
    by_weight,
    eight,
    gap,
    longest_batch,
    overload,
    restarted,
    returners_share,
    run,
    simulated_s,
    slowest_first_token,
    table,
)
from machine import checkout, describe

from exoflow.llm.fair import FCFS, VTC
from exoflow.llm.fair.simulator import SimulatedRequest

HERE = Path(__file__).parent
TENANTS = (10, 100, 1_000, 10_000)


def main() -> int:
    """Measure and report; 1 where a goal is missed."""
    words = parse()
    seeds = 1 if words.quick else words.seeds
    results: dict[str, Any] = {
        "machine": describe(HERE) | {"commit": checkout(HERE)},
        "versions": {"matplotlib": version("matplotlib")},
        "seeds": seeds,
        "memory": MEMORY,
        "bound": BOUND,
        "dispatch": dispatch(TENANTS[:2] if words.quick else TENANTS),
        "simulated_s": simulated_s(),
        "overload": table(overload, POLICIES, seeds),
        "eight": table(eight, POLICIES, seeds),
        "returner": {policy: returners_share(policy, seeds) for policy in ("FCFS", "LCF (no lift)", "VTC")},
        "weights": by_weight(seeds),
        "first_token": {policy: slowest_first_token(policy, seeds) for policy in ("VTC", "FCFS")},
        "restart": {policy: restarted(policy, seeds) for policy in ("LCF (no lift)", "VTC")},
    }
    hard = run(adversary(), "VTC")
    results["adversary"] = {"gap": gap(hard, "first", "second", 0.0), "longest_batch": longest_batch(hard)}
    page, reached = report(results)
    print(page)
    if not words.quick:
        (HERE / "fairness.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "FAIRNESS.md").write_text(page)
        draw_all(HERE / "plots")
    return int(not reached)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10, help="phases of arrival that are tried")
    return parser.parse_args()


def dispatch(tenants: Sequence[int]) -> list[dict[str, Any]]:
    """Microseconds of a dispatch, and of all that a request costs the policy, by number of tenants that wait."""
    policies: dict[str, tuple[Callable[[], Any], int]] = {
        "VTC, flat": (lambda: VTC(COST), 1),
        "VTC, 3 levels": (lambda: VTC(COST), 3),
        "FCFS": (FCFS, 1),
    }
    return [
        {"policy": name, "tenants": count} | timed(make(), count, levels)
        for name, (make, levels) in policies.items()
        for count in tenants
    ]


def timed(policy: Any, tenants: int, levels: int, rounds: int = 5_000) -> dict[str, float]:
    """Every tenant has two waiting: who is dispatched gets an answer, ends, and its client asks again.

    In time of the processor, without other processes' turns.
    """
    chance = random.Random(0)
    pops, wholes = [], []
    for number in range(2 * tenants):
        policy.add(request(number, path(number % tenants, levels)), 0.0)
    for number in range(2 * tenants, 2 * tenants + rounds):
        tokens = chance.randint(1, 255)
        begun = time.thread_time()
        policy.peek(0.0)
        taken = policy.pop(0.0)
        popped = time.thread_time()
        policy.charge(taken, tokens)
        policy.finish(taken)
        policy.add(request(number, taken.client), 0.0)
        ended = time.thread_time()
        pops.append(1e6 * (popped - begun))
        wholes.append(1e6 * (ended - begun))
    return {
        "dispatch_us": statistics.median(pops),
        "dispatch_p99_us": statistics.quantiles(pops, n=100)[98],
        "whole_us": statistics.median(wholes),
    }


def request(number: int, client: tuple[str, ...]) -> SimulatedRequest:
    return SimulatedRequest(number, 0.0, client, 256, 256, 256)


def path(tenant: int, levels: int) -> tuple[str, ...]:
    """A client of its own for each tenant; with three levels, ten leaves below each node."""
    if levels == 1:
        return (str(tenant),)
    return str(tenant // 100), str(tenant // 10), str(tenant)


if __name__ == "__main__":
    raise SystemExit(main())
