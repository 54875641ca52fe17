"""What fairness.py runs: the paper's workloads and those that it left out, each with what is measured on it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from exoflow.llm.fair import DRR, FCFS, LCF, RPM, VTC, Arrival, BatchCost, Linear, Result, Within, simulate, steady

MEMORY = 10_000
BOUND = 2 * MEMORY
"""U for weights 1 and 2."""
COST = Linear(1, 2)


POLICIES: Mapping[str, Callable[[int], Any]] = {
    "VTC": lambda seed: VTC(COST),
    "VTC, ±50 % prediction": lambda seed: VTC(COST, predict=Within("0.5", seed)),
    "VTC, oracle": lambda seed: VTC(COST, predict="oracle"),
    "FCFS": lambda seed: FCFS(),
    "LCF (no lift)": lambda seed: LCF(COST),
    "DRR": lambda seed: DRR(COST),
    "RPM, 30 a minute": lambda seed: RPM(30),
}


def run(arrivals: Sequence[Arrival], policy: str, seed: int = 0) -> Result:
    return serve(arrivals, POLICIES[policy](seed))


def serve(arrivals: Sequence[Arrival], policy: Any) -> Result:
    return simulate(arrivals, policy, BatchCost.a10g(), memory_tokens=MEMORY)


# The workloads.


def overload(seed: int = 0) -> list[Arrival]:
    return steady([1.5, 3.0], seed=seed)


def eight(seed: int = 0) -> list[Arrival]:
    return steady([0.4] * 3 + [0.6] * 5, seed=seed)


def returner(seed: int = 0) -> list[Arrival]:
    """Two at 2 requests a second; the first is away from the end of minute 1 to the end of minute 5."""
    both = steady({"returner": 2.0, "stayer": 2.0}, duration_s=600, seed=seed)
    return [each for each in both if each.client == "stayer" or not 60 <= each.time_s < 300]


def weighted(seed: int = 0) -> list[Arrival]:
    return steady({f"weight {weight}": 1.6 for weight in range(1, 5)}, seed=seed)


def adversary() -> list[Arrival]:
    """Two floods of the requests whose cost is seen last; the second comes when the first has the machine."""
    return [Arrival(at_s, who, 1, 255) for at_s, who in ((0, "first"), (0.001, "second")) for _ in range(400)]


def flooded(seed: int = 0) -> list[Arrival]:
    return steady({"flood": 3.0, "another flood": 3.0, "well-behaved": 1 / 15}, seed=seed)


def restart(seed: int = 0) -> list[Arrival]:
    """One is served alone; all is idle for a minute; then a newcomer, and the old one right after it."""
    return [
        *steady({"old": 1.5}, duration_s=200, seed=3 * seed),
        *steady({"new": 3.0}, start_s=260, duration_s=150, seed=3 * seed + 1),
        *steady({"old": 3.0}, start_s=261, duration_s=150, seed=3 * seed + 2),
    ]


# What is measured.


def table(workload: Callable[[int], Sequence[Arrival]], policies: Iterable[str], seeds: int) -> dict[str, Any]:
    """The paper's measures by policy, one value a seed."""
    rows: dict[str, Any] = {}
    for policy in policies:
        results = [run(workload(seed), policy, seed) for seed in range(seeds)]
        rows[policy] = {
            "max_difference": [result.max_difference for result in results],
            "mean_difference": [result.mean_difference for result in results],
            "accumulated_difference": [result.max_accumulated_difference for result in results],
            "tokens_per_s": [result.tokens_per_s for result in results],
        }
    return rows


RETURN = (320.0, 440.0)
"""Two minutes, from when what ran at the return has ended."""


def returners_share(policy: str, seeds: int) -> list[float]:
    """The returner's part of what both got."""
    shares = []
    for seed in range(seeds):
        result = run(returner(seed), policy, seed)
        got = {client: result.service(client, *RETURN) for client in result.clients}
        shares.append(got["returner"] / sum(got.values()))
    return shares


def by_weight(seeds: int) -> list[list[float]]:
    """What each weight got from the warm-up until the arrivals stop, in parts of what weight 1 got."""
    found = []
    for seed in range(seeds):
        result = serve(weighted(seed), VTC(COST, weights={f"weight {weight}": weight for weight in range(1, 5)}))
        got = [result.service(client, 30, 360) for client in result.clients]
        found.append([each / got[0] for each in got])
    return found


def lead(result: Result, one: str, other: str, start_s: float) -> list[tuple[float, float]]:
    """By how much one is ahead of the other since a time, while both have requests waiting."""
    dry_s = min(max(each.first_token_s for each in result.served if each.client == who) for who in (one, other))
    times = {time_s for each in result.served for time_s in (each.first_token_s, each.finish_s)}
    return [
        (time_s, result.service(one, start_s, time_s) - result.service(other, start_s, time_s))
        for time_s in sorted(times)
        if start_s <= time_s <= dry_s
    ]


def gap(result: Result, one: str, other: str, start_s: float) -> float:
    """The greatest difference of what two backlogged clients got, in whichever span it is greatest."""
    leads = [ahead for _, ahead in lead(result, one, other, start_s)]
    return max(leads) - min(leads)


def longest_batch(result: Result) -> int:
    """Tokens of all that run at once, when each has its whole length."""
    changes = [
        change
        for each in result.served
        for change in (
            (each.first_token_s, each.input_tokens + each.output_tokens),
            (each.finish_s, -each.input_tokens - each.output_tokens),
        )
    ]
    return max(itertools.accumulate(tokens for _, tokens in sorted(changes)))


def restarted(policy: str, seeds: int) -> dict[str, list[float]]:
    """Gaps, and the most dispatches of the newcomer in a row, after a minute in which nobody asked."""
    gaps, rows = [], []
    for seed in range(seeds):
        result = run(restart(seed), policy, seed)
        gaps.append(gap(result, "new", "old", 265))
        back = sorted((s for s in result.served if s.arrival_s > 260), key=lambda s: s.first_token_s)
        rows.append(max(len(list(row)) for who, row in itertools.groupby(back, lambda s: s.client) if who == "new"))
    return {"gap": gaps, "in_a_row": rows}


def slowest_first_token(policy: str, seeds: int) -> list[float]:
    return [max(run(flooded(seed), policy, seed).first_token_s("well-behaved")) for seed in range(seeds)]


def simulated_s() -> float:
    """Seconds that the simulator takes for the paper's six minutes and their draining."""
    taken = []
    for seed in range(3):
        begun = time.perf_counter()
        run(overload(seed), "VTC")
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
