"""Answers of the server to OpenAI's own client: they are the engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest
from llm_served import BASE, Served

from exoflow.llm import SamplingParams

TEXT = "The quick brown fox"
GREEDY: dict[str, Any] = {"max_tokens": 12, "temperature": 0}


def told(served: Served, adapter: str | None = None, prompt: Any = TEXT, **params: Any) -> list[str]:
    found = served.engine.generate([prompt], SamplingParams(**(GREEDY | params)), adapter)
    return [output.text for output in found]


async def test_a_completion_is_what_the_engine_generates(served: Served) -> None:
    async with served.openai() as client:
        answer = await client.completions.create(model=BASE, prompt=TEXT, **GREEDY)
    assert [choice.text for choice in answer.choices] == told(served)
    assert answer.object == "text_completion"
    assert answer.model == BASE
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(TEXT), 12)
    assert answer.choices[0].finish_reason == "length"


async def test_a_chat_is_answered_by_the_models_own_template(served: Served) -> None:
    async with served.openai() as client:
        answer = await client.chat.completions.create(
            model="r8",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Héllo"}],
            **GREEDY,
        )
    prompt = served.engine.model.tokenizer.encode("system: Be brief.\nuser: Héllo\nassistant:")
    assert [answer.choices[0].message.content] == told(served, "r8", prompt)
    assert answer.choices[0].message.role == "assistant"


async def test_a_chat_without_a_limit_may_fill_the_context(open_server: Callable[..., Served]) -> None:
    server = open_server(pages=12)  # less than the model's context
    async with server.openai() as client:
        answer = await client.chat.completions.create(
            model=BASE, messages=[{"role": "user", "content": "Go"}], temperature=0, extra_body={"ignore_eos": True}
        )
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12 * 8


@pytest.mark.parametrize("whole", [False, True])
async def test_an_answer_goes_back_as_it_came_with_the_next_question(served: Served, whole: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    async with served.openai() as client:
        first = await client.chat.completions.create(model="r8", messages=messages, **GREEDY)
        said = first.choices[0].message
        messages += [said.model_dump() if whole else said, {"role": "user", "content": "and?"}]
        second = await client.chat.completions.create(model="r8", messages=messages, **GREEDY)
    prompt = served.engine.model.tokenizer.encode(f"user: hi\nassistant: {said.content}\nuser: and?\nassistant:")
    assert [second.choices[0].message.content] == told(served, "r8", prompt)


async def test_what_asks_for_nothing_is_passed_over(served: Served) -> None:
    nothing: dict[str, Any] = {"prediction": None, "audio": None, "function_call": None, "tools": [], "n": None}
    async with served.openai() as client:
        ask = client.chat.completions.create
        answer = await ask(model=BASE, messages=[{"role": "user", "content": "hi"}], **(GREEDY | nothing))
        stream = await client.completions.create(
            model=BASE, prompt=TEXT, stream=True, stream_options={"include_obfuscation": False}, **GREEDY
        )
        assert [piece async for piece in stream]
    assert answer.choices


async def test_parts_of_a_message_that_are_text_are_one_text(served: Served) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    async with served.openai() as client:
        ask = client.chat.completions.create
        split = await ask(model=BASE, messages=[{"role": "user", "content": parts}], **GREEDY)  # type: ignore[call-overload]
        whole = await ask(model=BASE, messages=[{"role": "user", "content": "one two"}], **GREEDY)
    assert split.choices[0].message.content == whole.choices[0].message.content


@pytest.mark.parametrize(
    "params",
    [{"n": 3, "seed": 7, "temperature": 0.9}, {"stop": ["a", "e"]}, {"top_p": 0.5, "seed": 1, "temperature": 1}],
)
async def test_sampling_is_the_engines(served: Served, params: dict[str, Any]) -> None:
    async with served.openai() as client:
        answer = await client.completions.create(model="r4-all", prompt=[TEXT, "Two"], **(GREEDY | params))
    expected = [text for prompt in (TEXT, "Two") for text in told(served, "r4-all", prompt, **params)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(len(expected)))


async def test_token_ids_are_prompts_too(served: Served) -> None:
    async with served.openai() as client:
        one = await client.completions.create(model=BASE, prompt=[84, 104], **GREEDY)
        two = await client.completions.create(model=BASE, prompt=[[84, 104], [7]], **GREEDY)
    assert [two.choices[0].text] == [one.choices[0].text] == told(served, None, [84, 104])


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_is_the_whole_answer_in_pieces(served: Served, n: int) -> None:
    params = GREEDY | {"n": n, "seed": 3, "temperature": 0.7}
    texts, usage, reasons = ["", "", ""][:n], None, []
    async with served.openai() as client:
        stream = await client.completions.create(
            model="mlp", prompt=TEXT, stream=True, stream_options={"include_usage": True}, **params
        )
        async for piece in stream:
            assert usage is None, "it comes last"
            usage = piece.usage
            for choice in piece.choices:
                texts[choice.index] += choice.text
                reasons += [choice.finish_reason] if choice.finish_reason else []
    assert texts == told(served, "mlp", **params)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(TEXT), n * 12)
    assert reasons == ["length"] * n


async def test_a_stream_of_chat_begins_with_the_role_and_joins_to_the_answer(served: Served) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with served.openai() as client:
        whole = await client.chat.completions.create(model="r8", messages=messages, **GREEDY)
        stream = await client.chat.completions.create(model="r8", messages=messages, stream=True, **GREEDY)
        pieces = [piece async for piece in stream]
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "length"
    assert len({piece.id for piece in pieces}) == 1
    assert all(piece.object == "chat.completion.chunk" for piece in pieces)


async def test_logprobs_are_the_engines_in_both_forms(served: Served) -> None:
    (expected,) = served.engine.generate([TEXT], SamplingParams(max_tokens=12, temperature=0, logprobs=2))
    assert expected.logprobs is not None
    async with served.openai() as client:
        done = await client.completions.create(model=BASE, prompt=TEXT, logprobs=2, **GREEDY)
        chat = await client.chat.completions.create(
            model=BASE, messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=2, **GREEDY
        )
        stream = await client.completions.create(model=BASE, prompt=TEXT, logprobs=2, stream=True, **GREEDY)
        offsets = [at for piece in [each async for each in stream] for at in piece.choices[0].logprobs.text_offset]
    found = done.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs == pytest.approx([each.logprob for each in expected.logprobs])
    assert [len(top) for top in found.top_logprobs or ()] == [2] * 12
    assert found.text_offset == offsets
    content = chat.choices[0].logprobs
    assert content is not None
    assert len(content.content or ()) == 12
    for entry in content.content or ():
        assert entry.bytes is None or bytes(entry.bytes).decode() == entry.token
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


async def test_adapters_and_the_base_answer_side_by_side_each_in_its_own_way(served: Served) -> None:
    models = ["r8", BASE, "r4-all", "mlp"] * 8
    async with served.openai() as client:
        answers = await asyncio.gather(
            *(client.completions.create(model=model, prompt=TEXT, **GREEDY) for model in models)
        )
    expected = {model: told(served, None if model == BASE else model) for model in set(models)}
    assert len({text for (text,) in expected.values()}) == 4
    for model, answer in zip(models, answers, strict=True):
        assert [choice.text for choice in answer.choices] == expected[model], model


async def test_models_are_the_base_and_its_adapters(served: Served) -> None:
    async with served.openai() as client:
        found = {model.id: model async for model in client.models.list()}
        one = await client.models.retrieve("r33")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("base")  # the model's directory lies there, and is no adapter
    assert set(found) == {BASE, "r1", "r4-all", "r8", "r16-all", "r33", "mlp", "ranks", "alphas"}
    assert found[BASE].parent is None  # type: ignore[attr-defined]
    assert found["r8"].parent == one.parent == BASE  # type: ignore[attr-defined]


async def test_a_model_that_there_is_not_is_404_and_never_the_base(served: Served) -> None:
    async with served.openai() as client:
        for name in ("nobody", "base", "../zoo/r8", "", "r8/../r8", ".", "\0", "x" * 5000):
            with pytest.raises(openai.NotFoundError) as refused:
                await client.completions.create(model=name, prompt=TEXT)
            assert refused.value.code == "model_not_found"


async def test_metrics_tell_of_each_adapter(served: Served) -> None:
    async with served.openai() as client, served.http() as http:
        await client.completions.create(model="ranks", prompt=TEXT, **GREEDY)
        text = (await http.get("/metrics")).text
        assert (await http.get("/health")).json() == {"status": "ok"}
    assert 'exoflow_llm_adapter_info{adapter="ranks",place="pool"' in text
    assert 'exoflow_llm_adapter_loads_total{adapter="ranks"' in text
    assert "exoflow_llm_first_token_seconds_count" in text
    assert "exoflow_llm_pages 400.0" in text
    assert "\nexoflow_llm_step_seconds " in text


async def test_metrics_of_an_engine_that_is_idle_are_zero(served: Served) -> None:
    async with served.openai() as client, served.http() as http:
        await client.completions.create(model="ranks", prompt=TEXT, **GREEDY)
        await served.is_idle()
        text = (await http.get("/metrics")).text
    for state in ("running", "waiting", "loading"):
        for adapter in ("", "ranks"):
            assert f'exoflow_llm_requests_{state}{{adapter="{adapter}"}} 0.0' in text
