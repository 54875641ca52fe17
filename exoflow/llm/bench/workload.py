"""Requests as S-LoRA's synthetic workload has them (MLSys '24, section 7.1): a Gamma process of arrivals, adapters by a
power law, lengths uniform. Numbers only; the same seed gives the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SLO_S = 6.0
"""Within which S-LoRA wants a first token."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request that will be made."""

    at_s: float
    adapter: int
    """Which of the workload's adapters."""
    prompt_tokens: int
    output_tokens: int


def synthetic(
    rate: float,
    duration_s: float,
    adapters: int,
    *,
    alpha: float = 1.0,
    cv: float = 1.0,
    lengths: tuple[int, int] = (8, 512),
    seed: int = 42,
) -> list[Call]:
    """``rate * duration_s`` calls in the order of their arrival.

    Args:
        alpha: adapter i is asked for with a chance that goes by i^(alpha - 1): 1 is uniform, smaller is more skewed.
        cv: of the gaps between arrivals; 1 is a Poisson process, larger is burstier.
        lengths: prompts and answers have at least the first and less than the second of it in tokens.
    """
    numbers = {"rate": rate, "duration_s": duration_s, "adapters": adapters, "alpha": alpha, "cv": cv}
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: it must be positive")
    if not 0 < lengths[0] < lengths[1]:
        raise ValueError(f"lengths={lengths}: they must rise, from 1 at least")
    chance = np.random.default_rng(seed)
    count = int(rate * duration_s)
    which = (chance.power(alpha, count) * adapters).astype(int)
    gaps = chance.gamma(1 / cv**2, cv**2 / rate, count)
    prompts, outputs = chance.integers(*lengths, (2, count))
    return [
        Call(float(at_s), int(adapter), int(prompt), int(output))
        for at_s, adapter, prompt, output in zip(np.cumsum(gaps), which, prompts, outputs, strict=True)
    ]


def attainment(first_tokens_s: Sequence[float | None], slo_s: float = SLO_S) -> float:
    """The share whose first token came in time; None: it never came."""
    return float(np.mean([first is not None and first <= slo_s for first in first_tokens_s]))


def satisfaction(first_tokens_s: Sequence[float | None], slo_s: float = SLO_S) -> float:
    """S-LoRA's user satisfaction: 1 - (t / slo)², not below 0, on average."""
    return float(np.mean([0 if first is None else max(0.0, 1 - (first / slo_s) ** 2) for first in first_tokens_s]))
