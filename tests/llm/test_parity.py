"""The engine's mixed batches against PEFT, one adapter at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from llm_zoo import ADAPTERS, Zoo, tiny_model

from exoflow.llm import Engine, SamplingParams

KINDS = [("Llama", 128, 256), ("Llama", 72, 200), ("Mistral", 128, 256), ("Qwen2", 128, 256), ("Qwen3", 128, 256)]


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(256) for _ in range(chance.randint(1, 60))] for _ in range(count)]


@pytest.mark.parametrize(("kind", "hidden", "intermediate"), KINDS)
def test_logits_of_a_mixed_batch_are_pefts(kind: str, hidden: int, intermediate: int, tmp_path: Path) -> None:
    zoo = Zoo(tiny_model(kind, hidden=hidden, intermediate=intermediate), tmp_path, ADAPTERS)
    names = [None, *ADAPTERS, None]
    asked = prompts(len(names))
    with Engine(zoo.path, pages=600, block=8, token_budget=100) as engine:
        for name, folder in zoo.folders.items():
            engine.load_adapter(name, folder)
        for tokens, name, found in zip(asked, names, engine.logits(asked, names), strict=True):
            expected = zoo.logits(tokens, name)
            assert found.shape == expected.shape
            assert (found - expected).abs().max() <= 1e-4, name


def test_greedy_streams_of_a_mixed_batch_are_pefts(zoo: Zoo, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    names = [None, *ADAPTERS, None]
    asked = prompts(len(names), seed=1)
    params = SamplingParams(max_tokens=32, temperature=0, ignore_eos=True)
    for tokens, name, output in zip(asked, names, engine.generate(asked, params, names), strict=True):
        expected, margins = zoo.greedy(tokens, name, 32)
        same = next((i for i, margin in enumerate(margins) if margin < 1e-3), 32)
        assert list(output.token_ids)[:same] == expected[:same]
        assert same > 4
        assert (output.adapter.name if output.adapter else None) == name
