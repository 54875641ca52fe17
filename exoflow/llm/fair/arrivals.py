"""Workloads for the simulator."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from exoflow.llm.fair.simulator import Arrival


def steady(
    per_s: Mapping[str, float] | Sequence[float],
    *,
    input_tokens: int = 257,
    output_tokens: int = 256,
    start_s: float = 0.0,
    duration_s: float = 360.0,
    seed: int = 0,
) -> list[Arrival]:
    """Each client asks at its own steady pace, from a phase of its own that is uniform in its first interval.

    The paper's synthetic load: the j-th of ``duration_s * rate`` requests comes at ``start_s + phase + j / rate``.

    Args:
        per_s: requests a second of each client; clients of a sequence are called "1", "2", ….
        input_tokens: 256 and the one that begins a text.
    """
    named = per_s if isinstance(per_s, Mapping) else {str(number): rate for number, rate in enumerate(per_s, 1)}
    chance = random.Random(seed)
    return sorted(
        (
            Arrival(start_s + at, client, input_tokens, output_tokens)
            for client, rate in named.items()
            for at in _times(rate, duration_s, chance.uniform(0, 1 / rate))
        ),
        key=lambda arrival: arrival.time_s,
    )


def _times(rate: float, duration_s: float, phase_s: float) -> Iterator[float]:
    return (phase_s + number / rate for number in range(1, int(duration_s * rate) + 1))
