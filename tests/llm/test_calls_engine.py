"""``LLM`` on the built-in engine: the same words, and nothing goes over a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_zoo import Zoo

from exoflow import flow
from exoflow.catalogue import describe, spent_on
from exoflow.errors import AdapterError
from exoflow.llm import LLM, Engine, EngineSpec, FairScheduler, Prices, SamplingParams
from exoflow.llm.engine.request import WrongRequest
from exoflow.model import Bill, Spent
from exoflow.storage import open_store
from exoflow.testing import Asked, FakeEndpoint


def answers(_: Asked) -> str:
    return "an endpoint's"


@pytest.fixture(scope="module")
def engine(zoo: Zoo) -> Iterator[Engine]:
    with Engine(zoo.path, pages=400, block=8) as engine:
        for name, folder in zoo.folders.items():
            engine.load_adapter(name, folder)
        yield engine


def test_an_answer_is_what_the_engine_says(engine: Engine) -> None:
    [output] = engine.generate("abc", SamplingParams(max_tokens=5, temperature=0), "r8")
    answer = LLM(engine, model="r8", prices=Prices(1, 1))(prompt="abc", max_tokens=5, temperature=0, logprobs=2)
    assert answer.text == output.text
    assert answer.usage.completion_tokens == 5
    assert answer.nano_usd == (answer.usage.prompt_tokens + 5) * 1000
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 5
    assert len(answer.logprobs[0].top) == 2
    [base] = engine.generate("abc", SamplingParams(max_tokens=5, temperature=0))
    assert LLM(engine)(prompt="abc", max_tokens=5, temperature=0).text == base.text != output.text


def test_chats_go_through_the_models_template(engine: Engine) -> None:
    messages = [{"role": "user", "content": "abc"}]
    tokens = engine.model.tokenizer.chat(messages)
    [output] = engine.generate([tokens], SamplingParams(max_tokens=4, temperature=0))
    llm = LLM(engine, temperature=0)
    assert llm(messages, max_tokens=4).text == output.text
    filled = llm(messages, seed=1)
    assert filled.finish_reason == "stop" or filled.usage.completion_tokens == engine.room(tokens)


@pytest.mark.parametrize(
    "wrong",
    [{"tools": [{"type": "function"}]}, {"frequency_penalty": 0.5}, {"temperature": -1}, {"colour": "red"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_an_engine_cannot_do_is_refused_and_never_left_out(engine: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongRequest, match=next(iter(wrong))):
        LLM(engine)("abc", max_tokens=4, **wrong)
    with pytest.raises(AdapterError):
        LLM(engine, model="unknown")("abc", max_tokens=4)


def test_samples_of_a_prompt_share_its_kv(engine: Engine, run: Callable[..., Any]) -> None:
    llm = LLM(engine, max_tokens=2)

    @flow
    def samples() -> list[int]:
        long = "a long prompt that fills a few blocks of the cache, " * 4
        llm(prompt=long)
        return [answer.usage.cached_tokens for answer in llm.map(prompt=[long] * 3).result()]

    assert min(run(samples)) > 0


def test_calls_in_a_flow_are_recorded(engine: Engine, run: Callable[..., Any]) -> None:
    llm = LLM(engine, model="r8", max_tokens=3)

    @flow
    def asks() -> list[str]:
        return [llm(prompt="abc").text, *(answer.text for answer in llm.map(prompt=["b", "c"]).result())]

    first = run(asks)
    assert len(first) == 3
    assert run(asks) == first


def test_calls_in_an_async_flow_are_recorded(engine: Engine, run: Callable[..., Any]) -> None:
    llm = LLM(engine, model="r8", max_tokens=3)

    @flow
    async def asks() -> list[str]:
        answers = await asyncio.gather(llm(prompt="abc"), llm(prompt="b"))
        return [answer.text for answer in answers]

    assert run(asks) == run(asks)


def test_a_described_engine_is_an_argument(zoo: Zoo, run: Callable[..., Any]) -> None:
    spec = EngineSpec(str(zoo.path), adapters={"r8": str(zoo.folders["r8"])}, pages=400, block=8)

    @flow
    def asks(llm: LLM) -> str:
        return llm(prompt="abc", temperature=0).text

    try:
        assert run(asks, LLM(spec, model="r8", max_tokens=3)) == run(asks, LLM(spec, model="r8", max_tokens=3))
    finally:
        spec.close()


def test_what_an_engine_has_used_is_shown_and_charged_to_nobody(
    engine: Engine, endpoint: FakeEndpoint, run: Callable[..., Any], tmp_path: Path
) -> None:
    dies = [True]

    @flow
    def asks(paid: LLM) -> None:
        engine.generate([[1, 2, 3], [4, 5]], SamplingParams(max_tokens=4, n=2, ignore_eos=True), "r8")
        LLM(engine)(prompt="abc", max_tokens=1)
        paid("one")
        if dies.pop():
            raise KeyboardInterrupt
        paid("two")

    def charged_to(scheduler: FairScheduler) -> LLM:
        return LLM(endpoint.url, model="fake", max_tokens=20, scheduler=scheduler)

    with pytest.raises(KeyboardInterrupt):
        run(asks, charged_to(FairScheduler()))
    dies.append(False)
    scheduler = FairScheduler()  # of another process
    run(asks, charged_to(scheduler))
    calls = describe("r", open_store(str(tmp_path / "store"))).calls
    assert spent_on(call for call in calls if call.task == "generate") == Spent(2, Bill(3 + 2, 4 * 4))
    used = [call.bill for call in calls if call.id.startswith("llm#") and call.id != "llm#0" and call.bill]
    assert len(used) == 2
    [tenant] = scheduler.stats().values()
    assert (tenant.calls, tenant.spent_tokens) == (2, sum(bill.input_tokens + bill.output_tokens for bill in used))


def test_streams_of_an_engine_come_whole(engine: Engine) -> None:
    stream = LLM(engine, max_tokens=4, temperature=0).stream(prompt="abc")
    assert "".join(stream) == stream.answer.text


def test_a_scheduler_beside_an_engines_own_queue_is_refused(engine: Engine) -> None:
    with pytest.raises(TypeError, match="queue of its own"):
        LLM(engine, scheduler=object())  # type: ignore[arg-type]
