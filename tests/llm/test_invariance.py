"""A stream of tokens is a function of model, adapter, prompt and seed: of nothing that the engine does besides.

Two ways of computing the same logits differ in their last bits; streams are compared up to the first place where the
two best logits lie within 1e-3. That is late for these prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from llm_zoo import ADAPTERS, Zoo

from exoflow.llm import Engine, Output, SamplingParams
from exoflow.llm.engine.pool import PagePool

Opens = Callable[..., Engine]
Alone = dict[tuple[str | None, int, bool], Output]
"""By adapter, which of its prompts, and whether by chance."""


NAMES = [None, *ADAPTERS]
COUNT = 10
"""Enough to fill a page and begin the next: pages have 8 tokens here."""
GREEDY = SamplingParams(max_tokens=COUNT, temperature=0, ignore_eos=True, logprobs=2)
SEEDED = SamplingParams(max_tokens=COUNT, temperature=0.8, top_k=40, top_p=0.95, seed=7, ignore_eos=True)
BEGIN = [(5 * index) % 256 for index in range(33)]
"""Prompts share a beginning: the prefix cache has something to find."""


def prompts(name: str | None) -> list[list[int]]:
    chance = random.Random(str(name))
    return [[*BEGIN, *chance.choices(range(256), k=length)] for length in (1, 30)]


def sure(output: Output) -> int:
    """How many tokens were chosen before the two best lay within 1e-3."""
    assert output.logprobs is not None
    gaps = [chosen.top[0][1] - chosen.top[1][1] for chosen in output.logprobs]
    return next((index for index, gap in enumerate(gaps) if gap < 1e-3), len(gaps))


@pytest.fixture(scope="module")
def alone(zoo: Zoo) -> Alone:
    """Each request by itself, in an engine without a prefix cache and with room for all."""
    with Engine(zoo.path, pages=400, block=8, prefix_cache=False) as engine:
        for name, folder in zoo.folders.items():
            engine.load_adapter(name, folder)
        found = {}
        for name in NAMES:
            for index, prompt in enumerate(prompts(name)):
                for seeded, params in enumerate((GREEDY, SEEDED)):
                    (found[name, index, bool(seeded)],) = engine.generate([prompt], params, name)
    lengths = [sure(output) for key, output in found.items() if not key[2]]
    assert min(lengths) > 0
    assert sum(lengths) >= 0.9 * COUNT * len(lengths)
    return found


def assert_same_streams(engine: Engine, alone: Alone) -> None:
    """All requests at once, twice: the second time with whatever the first has left in caches."""
    keys = list(alone)
    random.Random(1).shuffle(keys)
    for _ in range(2):
        asked = [
            engine.submit(prompts(name)[index], SEEDED if seeded else GREEDY, name) for name, index, seeded in keys
        ]
        for key, generation in zip(keys, asked, strict=True):
            (output,) = generation.outputs(100)
            same = COUNT if key[2] else sure(alone[key])
            assert output.token_ids[:same] == alone[key].token_ids[:same], key
            assert (output.adapter.name if output.adapter else None) == key[0]


def test_batch_mates_change_nothing(open_engine: Opens, alone: Alone) -> None:
    assert_same_streams(open_engine(prefix_cache=False), alone)


def test_the_prefix_cache_changes_nothing(open_engine: Opens, alone: Alone) -> None:
    engine = open_engine(pages=900)
    assert_same_streams(engine, alone)
    assert engine.stats().cached_tokens > 1500


def test_chunks_of_prompts_change_nothing(open_engine: Opens, alone: Alone) -> None:
    engine = open_engine(token_budget=11, max_batch=7)
    assert_same_streams(engine, alone)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption_changes_nothing(open_engine: Opens, alone: Alone, prefix_cache: bool) -> None:
    engine = open_engine(pages=70, token_budget=64, prefix_cache=prefix_cache)
    assert_same_streams(engine, alone)
    assert engine.stats().preemptions > 5


def test_eviction_of_adapters_changes_nothing(open_engine: Opens, alone: Alone) -> None:
    engine = open_engine(pages=130, adapter_slots=2, max_batch=6)
    assert_same_streams(engine, alone)
    assert engine.stats().loads > 2 * len(ADAPTERS)


def test_the_order_of_pages_changes_nothing(open_engine: Opens, alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)

    def shuffled(pool: PagePool, count: int) -> list[int]:
        free = pool._free[: pool._height]
        free[:] = chance.sample(free.tolist(), len(free))
        return alloc(pool, count)

    alloc = PagePool.alloc
    monkeypatch.setattr(PagePool, "alloc", shuffled)
    assert_same_streams(open_engine(pages=300), alone)


def test_answers_to_one_prompt_are_those_of_single_requests(open_engine: Opens) -> None:
    engine = open_engine(token_budget=16, max_batch=8)
    for name in (None, "r16-all"):
        for prompt in prompts(name):
            together = engine.generate([prompt], replace(SEEDED, n=5), name)
            assert [output.index for output in together] == list(range(5))
            assert len({output.token_ids for output in together}) == 5
            (single,) = engine.generate([prompt], SEEDED, name)
            assert together[0].token_ids == single.token_ids
            again = engine.generate([prompt], replace(SEEDED, n=5), name)
            assert [output.token_ids for output in again] == [output.token_ids for output in together]


def test_the_others_find_the_prompt_of_the_first_in_the_prefix_cache(open_engine: Opens) -> None:
    engine = open_engine(token_budget=16, max_batch=8)
    prompt = prompts(None)[1]
    first, *others = engine.generate([prompt], replace(SEEDED, n=4), "r8")
    assert first.usage.cached_tokens == 0
    assert [output.usage.cached_tokens for output in others] == [len(prompt) // 8 * 8] * 3


def test_seeds_that_differ_give_answers_that_differ(open_engine: Opens) -> None:
    engine = open_engine()
    prompt = prompts(None)[0]
    streams = {engine.generate([prompt], replace(SEEDED, seed=seed))[0].token_ids for seed in (1, 2, 3, -4, 2**70)}
    assert len(streams) == 5
    without = [engine.generate([prompt], replace(SEEDED, seed=None))[0].token_ids for _ in range(3)]
    assert len(set(without)) == 3
