"""A token is the one that sorting the whole vocabulary would find, however it is looked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

torch = pytest.importorskip("torch")

from exoflow.llm.engine import sampler  # noqa: E402  # behind the check for torch
from exoflow.llm.engine.request import SamplingParams  # noqa: E402
from exoflow.llm.engine.sampler import CERTAIN, Draw, choose  # noqa: E402

VOCAB = 40
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 8, 9, VOCAB, 2 * VOCAB]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-9]),
)
CHANCES = st.floats(0, 1, exclude_max=True)
LOGITS = st.lists(st.integers(-12, 12), min_size=VOCAB, max_size=VOCAB)
"""Whole numbers: many are equal, as in bfloat16."""


def by_sorting(row: torch.Tensor, draw: Draw) -> int:
    """One row's token, in so many words."""
    params = draw.params
    scaled = row / torch.tensor(params.temperature)
    shares = [int(share * CERTAIN) for share in scaled.softmax(-1).tolist()]
    order = sorted(range(len(row)), key=lambda token: (-float(scaled[token]), token))
    kept, before = [], 0
    for token in order[: params.top_k or None]:
        if kept and params.top_p < 1 and before >= params.top_p * CERTAIN:
            break
        kept.append(token)
        before += shares[token]
    aim, reached = min(int(draw.chance * before), before - 1), 0
    for token in kept:
        reached += shares[token]
        if reached > aim:
            break
    return token


@given(st.lists(st.tuples(LOGITS, PARAMS, CHANCES), min_size=1, max_size=6), st.sampled_from([(), (1,), (4,), (4, 9)]))
def test_the_few_most_likely_give_the_token_that_sorting_gives(
    rows: list[tuple[list[int], SamplingParams, float]], widths: Sequence[int]
) -> None:
    logits = torch.tensor([row for row, _, _ in rows], dtype=torch.float32) / 2
    draws = [Draw(params, chance) for _, params, chance in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "WIDTHS", widths)
        found = [choice.token_id for choice in choose(logits, draws)]
    assert found == [by_sorting(row, draw) for row, draw in zip(logits, draws, strict=True)]


@given(st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB).filter(any), LOGITS, CHANCES, PARAMS)
def test_a_token_that_is_not_allowed_is_never_drawn(
    allowed: list[bool], row: list[int], chance: float, params: SamplingParams
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "WIDTHS", (4,))
        choice = choose(torch.tensor([row]) * 1.0, [Draw(params, chance, torch.tensor(allowed))])[0]
    assert allowed[choice.token_id]
