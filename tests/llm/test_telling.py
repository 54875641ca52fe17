"""Beside a GPU, what a step gave is told while the next one computes: nobody may hear anything else for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.request import Event

PROMPTS = [[1, 2, 3], [40] * 30, list(range(100, 120)), [7]]
NAMES = [None, "r8", "r33", "r1"]


def events(engine: Engine, params: SamplingParams) -> list[list[Event]]:
    asked = [engine.submit(prompt, params, name) for prompt, name in zip(PROMPTS, NAMES, strict=True)]
    return [sorted(generation, key=lambda event: event.index) for generation in asked]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=20, temperature=0, ignore_eos=True),
        SamplingParams(max_tokens=30, temperature=1.5, seed=3, n=2, logprobs=1),
        SamplingParams(max_tokens=30, temperature=1.5, seed=4, stop=("a", "\n")),
        SamplingParams(max_tokens=1, temperature=0),
    ],
)
def test_events_told_late_are_those_told_at_once(open_engine: Callable[..., Engine], params: SamplingParams) -> None:
    at_once, late = open_engine(seed=5), open_engine(seed=5)
    late._core._runner.computes_meanwhile = True
    for one, other in zip(events(at_once, params), events(late, params), strict=True):
        assert [(e.index, e.text, e.token_id, e.finish_reason) for e in one] == [
            (e.index, e.text, e.token_id, e.finish_reason) for e in other
        ]
    assert late.stats().running == {}


def test_an_abort_comes_after_the_tokens_that_were_chosen_before_it(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    engine._core._runner.computes_meanwhile = True
    generation = engine.submit([1, 2, 3], SamplingParams(max_tokens=200, temperature=0, ignore_eos=True))
    heard = iter(generation)
    first = [next(heard) for _ in range(3)]
    engine.abort(generation)
    rest = list(heard)
    assert rest[-1].finish_reason == "abort"
    tokens = [event.token_id for event in [*first, *rest] if event.token_id is not None]
    assert tokens == list(generation.outputs()[0].token_ids)
