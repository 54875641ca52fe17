from __future__ import annotations

import numpy as np
import pytest

from exoflow.llm.bench.roofline import Roofline, distinct
from exoflow.llm.bench.workload import attainment, satisfaction, synthetic
from exoflow.llm.engine.geometry import Geometry

LLAMA_8B = Roofline(Geometry(32, 4096, 32, 8, 128, 14336), 128256, 3.0e12)
LLAMA_7B = Roofline(Geometry(32, 4096, 32, 32, 128, 11008), 32000, 3.0e12)
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def test_the_same_seed_gives_the_same_calls_and_another_gives_others() -> None:
    assert synthetic(5, 20, 100) == synthetic(5, 20, 100)
    assert synthetic(5, 20, 100) != synthetic(5, 20, 100, seed=1)


def test_arrivals_lengths_and_adapters_are_distributed_as_asked() -> None:
    calls = synthetic(20, 500, 50, cv=2.0)
    gaps = np.diff([call.at_s for call in calls])
    assert len(calls) == 10_000
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(2, rel=0.15)
    assert {call.adapter for call in calls} == set(range(50))
    for lengths in ([call.prompt_tokens for call in calls], [call.output_tokens for call in calls]):
        assert min(lengths) == 8
        assert max(lengths) == 511
        assert np.mean(lengths) == pytest.approx(259.5, rel=0.02)


def test_a_small_alpha_prefers_few_adapters() -> None:
    counts = [len({call.adapter for call in synthetic(10, 100, 1000, alpha=alpha)}) for alpha in (1.0, 0.1)]
    assert counts[1] < counts[0] / 2


def test_calls_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        synthetic(0, 10, 1)
    with pytest.raises(ValueError, match="must rise"):
        synthetic(1, 10, 1, lengths=(8, 8))


def test_satisfaction_falls_with_the_square_and_who_was_not_served_counts_as_nothing() -> None:
    assert satisfaction([0.0, 3.0, 6.0, 60.0, None]) == pytest.approx((1 + 0.75) / 5)
    assert attainment([0.0, 6.0, 6.1, None]) == 0.5


def test_bounds_are_those_of_the_design() -> None:
    assert LLAMA_8B.weight_bytes == pytest.approx(15.0e9, rel=0.01)
    assert LLAMA_7B.weight_bytes == pytest.approx(13.2e9, rel=0.01)
    assert (LLAMA_8B.kv_bytes, LLAMA_7B.kv_bytes) == (128 << 10, 512 << 10)
    assert LLAMA_8B.adapter_bytes(16, QKVO) == pytest.approx(27e6, rel=0.02)
    assert LLAMA_8B.adapter_bytes(16) == pytest.approx(84e6, rel=0.01)
    more = LLAMA_8B.step_s(0, {16: 64}) - LLAMA_8B.step_s(0)
    assert more == pytest.approx(1.79e-3, rel=0.01)


def test_distinct_adapters_of_a_batch_are_those_of_the_design() -> None:
    assert distinct(64, 100) == pytest.approx(47, abs=0.6)
    assert distinct(256, 2000) == pytest.approx(240, abs=0.6)
    assert distinct(5, 1) == 1
