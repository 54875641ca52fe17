"""How tokens are chosen."""

from __future__ import annotations

import math
from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from exoflow.llm.engine.request import SamplingParams  # noqa: E402  # behind the check for torch
from exoflow.llm.engine.sampler import Draw, chance_of, choose  # noqa: E402

VOCAB = 50


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def shares(row: torch.Tensor, draws: int, **params: float) -> Counter[int]:
    asked = [Draw(SamplingParams(**params), (index + 0.5) / draws) for index in range(draws)]  # type: ignore[arg-type]
    return Counter(choice.token_id for choice in choose(row.expand(draws, -1), asked))


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-40, 1e-37, 1e-6])
def test_a_temperature_of_next_to_nothing_takes_the_most_likely(temperature: float) -> None:
    rows = logits(5)
    chosen = choose(rows, [Draw(SamplingParams(temperature=temperature), 0.99)] * 5)
    assert [choice.token_id for choice in chosen] == rows.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_model_says(temperature: float) -> None:
    row = logits(1)[0]
    expected = (row / temperature).softmax(-1)
    got = shares(row, 2000, temperature=temperature)
    assert all(abs(got[token] / 2000 - expected[token]) <= 1 / 1000 for token in range(VOCAB))


def test_top_k_and_top_p_leave_the_most_likely() -> None:
    row = logits(1)[0]
    order = row.argsort(descending=True).tolist()
    assert set(shares(row, 1000, top_k=3)) == set(order[:3])
    sums = row.softmax(-1)[order].cumsum(0)
    kept = int((sums < 0.8).sum()) + 1  # as many as it takes to reach top_p
    assert set(shares(row, 4000, top_p=0.8)) == set(order[:kept])
    assert set(shares(row, 1000, top_p=1e-9)) == {order[0]}


@pytest.mark.parametrize("chance", [0.0, 1 - 2**-53])
def test_the_ends_of_chance_choose_something_that_is_left(chance: float) -> None:
    row = logits(1)[0]
    order = row.argsort(descending=True).tolist()
    choice = choose(row[None], [Draw(SamplingParams(top_k=4), chance)])[0]
    assert choice.token_id == (order[0] if chance == 0 else order[3])


def test_a_row_is_chosen_as_if_it_were_alone() -> None:
    rows = logits(64)
    kinds = [SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_k=5), SamplingParams(top_p=0.5)]
    draws = [Draw(kinds[index % 4], chance_of(1, 0, index)) for index in range(64)]
    together = choose(rows, draws)
    assert together == [choose(rows[index : index + 1], draws[index : index + 1])[0] for index in range(64)]


def test_only_allowed_tokens_are_chosen() -> None:
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[3, 7]] = True
    row = logits(1)
    for temperature in (0.0, 1.0):
        chosen = choose(row, [Draw(SamplingParams(temperature=temperature), 0.7, allowed)])
        assert chosen[0].token_id in (3, 7)


def test_logprobs_are_the_models_own() -> None:
    row = logits(1)
    choice = choose(row, [Draw(SamplingParams(temperature=0.1, top_k=2, logprobs=3), 0.4)])[0]
    expected = row[0].log_softmax(-1)
    assert choice.logprobs is not None
    assert math.isclose(choice.logprobs.logprob, expected[choice.token_id], rel_tol=1e-5)
    assert [token for token, _ in choice.logprobs.top] == expected.argsort(descending=True)[:3].tolist()


def test_chance_is_even_and_its_own_at_each_place() -> None:
    chances = [chance_of(seed, index, position) for seed in range(10) for index in range(10) for position in range(10)]
    assert len(set(chances)) == 1000
    assert abs(sum(chances) / 1000 - 0.5) < 0.03
