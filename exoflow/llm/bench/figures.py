"""What S-LoRA tells of a run (MLSys '24, section 7.1), and what users of servers ask for beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exoflow.llm.bench.driving import Served
from exoflow.llm.bench.workload import SLO_S, attainment, satisfaction


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Seconds count from the arrival that the workload says, not from when a call could be made."""

    requests: int
    failed: int
    seconds: float
    """From the first arrival to the last end."""
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    first_token_p50_s: float | None
    """None: no call had one."""
    first_token_p99_s: float | None
    per_token_p50_s: float | None
    """Between tokens of one answer, on average over it."""
    latency_p50_s: float | None
    latency_p99_s: float | None
    slo_s: float
    slo_attainment: float
    """Share of all calls with a first token within ``slo_s``; failed ones count as without."""
    user_satisfaction: float


def figures_of(served: Sequence[Served], slo_s: float = SLO_S) -> Figures:
    """Of all calls of a run."""
    good = [each for each in served if each.error is None and each.first_s is not None]
    begin = min((each.call.at_s for each in served), default=0.0)
    seconds = max((each.call.at_s + each.end_s for each in served), default=0.0) - begin
    tokens = sum(each.tokens for each in served)
    prompts = sum(each.call.prompt_tokens for each in good)
    first = [each.first_s if each.error is None else None for each in served]
    per_token = [(each.end_s - each.first_s) / (each.tokens - 1) for each in good if each.first_s and each.tokens > 1]
    latency = [each.end_s for each in good]
    return Figures(
        requests=len(served),
        failed=len(served) - len(good),
        seconds=seconds,
        requests_per_s=len(good) / seconds if seconds else 0.0,
        output_tokens_per_s=tokens / seconds if seconds else 0.0,
        total_tokens_per_s=(tokens + prompts) / seconds if seconds else 0.0,
        first_token_p50_s=_percentile([each.first_s for each in good if each.first_s is not None], 50),
        first_token_p99_s=_percentile([each.first_s for each in good if each.first_s is not None], 99),
        per_token_p50_s=_percentile(per_token, 50),
        latency_p50_s=_percentile(latency, 50),
        latency_p99_s=_percentile(latency, 99),
        slo_s=slo_s,
        slo_attainment=attainment(first, slo_s) if served else 0.0,
        user_satisfaction=satisfaction(first, slo_s) if served else 0.0,
    )


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None
