"""Two ranks, two processes, gloo: what one process computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llm_zoo import ADAPTERS, Zoo, save_model, tiny_model

from exoflow.errors import LLMError
from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.parallel import Leader

NAMES = [None, *ADAPTERS]
PROMPTS = [[(index * step) % 256 for index in range(5 * step)] for step in range(1, len(NAMES) + 1)]


@pytest.mark.parametrize("kind", ["Llama", pytest.param("Qwen2", marks=pytest.mark.big)])
def test_logits_of_two_ranks_are_those_of_one(kind: str, tmp_path: Path) -> None:
    zoo = Zoo(tiny_model(kind), tmp_path, ADAPTERS if kind == "Llama" else {"r4-all": ADAPTERS["r4-all"]})
    names = [name for name in NAMES if name in zoo.peft]
    found = []
    for ranks in (1, 2):
        with Engine(zoo.path, pages=600, block=8, tensor_parallel=ranks, token_budget=100) as engine:
            for name, folder in zoo.folders.items():
                engine.load_adapter(name, folder)
            found.append(engine.logits(PROMPTS[: len(names)], names))
    for one, two in zip(*found, strict=True):
        assert (one - two).abs().max() <= 1e-5 * one.abs().max()


@pytest.mark.big
def test_an_engine_of_two_ranks_serves_as_another(open_engine: Callable[..., Engine], zoo: Zoo) -> None:
    """Short memory, few slots, a reload: all that changes pages and slots is told to the other rank."""
    engine = open_engine(tensor_parallel=2, pages=90, adapter_slots=2, token_budget=64)
    params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
    for _ in range(2):
        for prompt, name, output in zip(PROMPTS, NAMES, engine.generate(PROMPTS, params, NAMES), strict=True):
            expected, margins = zoo.greedy(prompt, name, 16)
            same = next((i for i, margin in enumerate(margins) if margin < 1e-3), 16)
            assert list(output.token_ids)[:same] == expected[:same]
    engine.load_adapter("r8", zoo.folders["r33"])
    (output,) = engine.generate([PROMPTS[0]], params, "r8")
    assert list(output.token_ids) == zoo.greedy(PROMPTS[0], "r33", 16)[0]
    kill_another_rank(engine)
    with pytest.raises(LLMError, match="the engine has stopped"):
        engine.generate([PROMPTS[0]], SamplingParams(max_tokens=400, ignore_eos=True))


def kill_another_rank(engine: Engine) -> None:
    leader = engine._core._runner
    assert isinstance(leader, Leader)
    leader._followers[0]._process.kill()
    leader._followers[0]._process.wait()


@pytest.mark.parametrize(("ranks", "what"), [(3, "4 heads"), (4, "2 kv_heads")])
def test_a_model_that_cannot_be_split_is_refused_by_what_cannot(ranks: int, what: str, zoo: Zoo) -> None:
    with pytest.raises(LLMError, match=what):
        Engine(zoo.path, pages=100, tensor_parallel=ranks)


def test_an_mlp_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    folder = save_model(tiny_model(intermediate=255), tmp_path / "odd")
    with pytest.raises(LLMError, match="255 intermediate"):
        Engine(folder, pages=100, tensor_parallel=2)
