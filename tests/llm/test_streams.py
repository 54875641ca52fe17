"""Events of answers: in threads, on loops, to the end, and given up at every moment."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from llm_zoo import ADAPTERS, Zoo

from exoflow.errors import LLMError
from exoflow.llm import Engine, Event, Output, SamplingParams
from exoflow.llm.engine.generation import Generation

Opens = Callable[..., Engine]
NAMES = [None, *ADAPTERS]
PROMPT = "How do you do, adapter?"
GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)


def assert_empty(engine: Engine) -> None:
    stats = engine.stats()
    assert not (stats.running or stats.waiting or stats.loading)
    assert stats.free_pages + stats.reclaimable_pages == stats.pages
    assert not any(entry.holders for entry in engine._store._entries.values())
    assert not engine._core.scheduler.prefixes._paths
    assert engine._core.scheduler.followers.is_empty


def assert_belongs_to(events: list[Event], output: Output) -> None:
    mine = [event for event in events if event.index == output.index]
    assert "".join(event.text for event in mine) == output.text
    assert tuple(event.token_id for event in mine if event.token_id is not None) == output.token_ids
    assert [event.finish_reason for event in mine if event.finish_reason] == [output.finish_reason]
    assert mine[-1].finish_reason == output.finish_reason


@pytest.mark.parametrize("n", [1, 5])
def test_events_are_the_outputs_piece_by_piece(n: int, open_engine: Opens) -> None:
    engine = open_engine()
    params = SamplingParams(max_tokens=30, seed=3, n=n, logprobs=2)
    generation = engine.submit(PROMPT, params, "r8")
    events = list(generation)
    outputs = generation.outputs()
    assert len(outputs) == n
    for output in outputs:
        assert_belongs_to(events, output)
        assert output.logprobs is not None
        assert [each.token_id for each in output.logprobs] == list(output.token_ids)
        assert all(len(each.top) == 2 and each.logprob <= 1e-6 for each in output.logprobs)
    assert list(generation) == []


def test_more_answers_than_can_run_at_once(open_engine: Opens) -> None:
    engine = open_engine(pages=60, max_batch=7)
    outputs = engine.generate([PROMPT], SamplingParams(max_tokens=3, seed=1, n=300, temperature=5.0), "r4-all")
    assert [output.index for output in outputs] == list(range(300))
    assert len({output.token_ids for output in outputs}) > 200
    assert_empty(engine)


def test_a_stop_string_ends_the_text_wherever_tokens_are_cut(open_engine: Opens) -> None:
    engine = open_engine()
    (whole,) = engine.generate([PROMPT], GREEDY, "r8")
    assert len(whole.text) > 8
    for length in (1, 2, 5):
        stop = whole.text[6 : 6 + length]
        params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True, stop=[stop, "never"])  # type: ignore[arg-type]
        generation = engine.submit(PROMPT, params, "r8")
        events = list(generation)
        (output,) = generation.outputs()
        assert output.text == whole.text[: whole.text.index(stop)]
        assert output.finish_reason == "stop"
        assert_belongs_to(events, output)
    assert_empty(engine)


@pytest.mark.parametrize("text", ["é", "日本語のテキスト", "🎈" * 20, "\x00\x01", "a\N{COMBINING ACUTE ACCENT}", " "])
def test_any_text_is_answered(text: str, open_engine: Opens) -> None:
    (output,) = open_engine().generate(text, SamplingParams(max_tokens=5, seed=0))
    assert output.usage.prompt_tokens == len(text.encode())
    assert 1 <= output.usage.completion_tokens <= 5


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=1),
        SamplingParams(max_tokens=1, n=3, logprobs=20),
        SamplingParams(max_tokens=4, temperature=1e-30, ignore_eos=True),
        SamplingParams(max_tokens=4, temperature=100, top_p=1e-9, ignore_eos=True),
        SamplingParams(max_tokens=4, top_k=10**9, ignore_eos=True),
        SamplingParams(max_tokens=4, top_k=2**70, ignore_eos=True),
        SamplingParams(max_tokens=4, logprobs=0, seed=-(2**80), ignore_eos=True),
    ],
)
def test_extremes_are_answered(params: SamplingParams, open_engine: Opens) -> None:
    engine = open_engine(token_budget=8, max_batch=8)
    outputs = engine.generate([PROMPT * 9], params, "mlp")  # longer than the budget
    assert [len(output.token_ids) <= params.max_tokens for output in outputs] == [True] * params.n
    if params.temperature == 1e-30 or params.top_p == 1e-9:
        (best,) = engine.generate([PROMPT * 9], SamplingParams(max_tokens=4, temperature=0, ignore_eos=True), "mlp")
        assert outputs[0].token_ids == best.token_ids


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_abort_at_every_moment(prefix_cache: bool, open_engine: Opens) -> None:
    engine = open_engine(pages=100, token_budget=8, max_batch=4, adapter_slots=2, prefix_cache=prefix_cache)
    params = SamplingParams(max_tokens=12, seed=5, n=2, ignore_eos=True)
    others = [engine.submit([index], SamplingParams(max_tokens=150, ignore_eos=True), "r1") for index in range(3)]
    for moment in range(26):
        generation = engine.submit([moment, *range(30)], params, NAMES[moment % len(NAMES)])
        events = [event for _, event in zip(range(moment), generation, strict=False)]
        engine.abort(generation)
        engine.abort(generation)
        events += list(generation)
        for output in generation.outputs(60):
            assert_belongs_to(events, output)
    assert all(len(generation.outputs(60)[0].token_ids) == 150 for generation in others)
    assert_empty(engine)


def test_threads_that_ask_and_give_up_change_nothing_for_others(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(pages=90, token_budget=24, max_batch=6, adapter_slots=3)
    expected = {name: zoo.greedy(list(PROMPT.encode()), name, 8)[0] for name in NAMES}
    tokens = list(PROMPT.encode())

    def live(seed: int) -> int:
        chance, answered = random.Random(seed), 0
        for _ in range(15):
            name = chance.choice(NAMES)
            params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True, n=chance.choice([1, 1, 3]))
            generation = engine.submit(tokens, params, name)
            match chance.randrange(4):
                case 0:
                    engine.abort(generation)
                case 1:
                    next(iter(generation))
                    engine.abort(generation)
                case 2:
                    engine.logits([tokens], chance.choice(NAMES))
            for output in generation.outputs(100):
                answered += output.finish_reason == "length"
                assert list(output.token_ids) == expected[name][: len(output.token_ids)]
        return answered

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(live, range(8))) > 40
    assert_empty(engine)


async def test_a_consumer_that_goes_away_aborts_its_request(open_engine: Opens) -> None:
    engine = open_engine()
    long = SamplingParams(max_tokens=400, temperature=0, ignore_eos=True)

    async def consume(first: asyncio.Event) -> None:
        async for _ in engine.stream(PROMPT, long, "r8"):
            first.set()

    for _ in range(3):
        first = asyncio.Event()
        consumer = asyncio.create_task(consume(first))
        await first.wait()
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
    stream = engine.stream(PROMPT, long, "r8")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator
    assert engine.stats().output_tokens < 4 * 400
    assert_empty(engine)


async def test_streams_side_by_side_are_each_its_own(open_engine: Opens) -> None:
    engine = open_engine()

    async def read(name: str | None) -> str:
        return "".join([event.text async for event in engine.stream(PROMPT, GREEDY, name)])

    texts = await asyncio.gather(*(read(name) for name in NAMES))
    outputs = engine.generate([PROMPT] * len(NAMES), GREEDY, NAMES)
    assert list(texts) == [output.text for output in outputs]


def test_a_loop_that_was_closed_under_a_stream_stops_nobody(open_engine: Opens) -> None:
    engine = open_engine()
    loop = asyncio.new_event_loop()
    generation = engine.submit(PROMPT, SamplingParams(max_tokens=300, ignore_eos=True))
    events = generation.__aiter__()
    loop.run_until_complete(anext(events))
    loop.close()
    assert len(generation.outputs(60)[0].token_ids) == 300
    assert len(engine.generate([PROMPT], GREEDY)[0].token_ids) == 20


async def test_a_stream_of_an_engine_that_closes_ends_with_its_error(open_engine: Opens) -> None:
    engine = open_engine()
    stream = engine.stream(PROMPT, SamplingParams(max_tokens=450, ignore_eos=True))
    await anext(stream)
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(LLMError, match="closed"):
        [event async for event in stream]
    closing.join()


def test_what_fails_at_the_end_of_a_generation_fails_alone(
    open_engine: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine()
    called = threading.Event()
    generation = engine.submit(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))
    generation.when_ended(lambda: print(1 // 0))
    generation.when_ended(called.set)
    assert len(generation.outputs(60)[0].token_ids) == 200
    assert called.wait(60)
    assert len(engine.generate([PROMPT], GREEDY)[0].token_ids) == 20
    assert engine.error is None
    assert "ZeroDivisionError" in caplog.text


def test_an_engine_may_be_closed_at_the_end_of_a_generation(open_engine: Opens) -> None:
    engine = open_engine()
    generation = engine.submit(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))
    generation.when_ended(engine.close)
    assert len(generation.outputs(60)[0].token_ids) == 200
    engine.close()
    assert engine.error is None
    with pytest.raises(LLMError, match="closed"):
        engine.generate([PROMPT], GREEDY)


def test_a_wait_that_is_too_short_changes_nothing(open_engine: Opens) -> None:
    generation: Generation = open_engine().submit(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))
    with pytest.raises(TimeoutError):
        generation.outputs(0)
    assert len(generation.outputs(60)[0].token_ids) == 200


@pytest.mark.parametrize("prompt", [[-1], [300], [5, 10**12]])
def test_tokens_that_there_are_not_are_refused(prompt: list[int], open_engine: Opens) -> None:
    engine = open_engine()
    with pytest.raises(LLMError):
        engine.generate([prompt], GREEDY)
    assert engine.error is None
    assert len(engine.generate([PROMPT], GREEDY)[0].token_ids) == 20
