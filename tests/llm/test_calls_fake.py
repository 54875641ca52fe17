"""The fake endpoint is a faithful one: OpenAI's own client reads what it says, and fails where it fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import openai
import pytest

from exoflow.llm import LLM
from exoflow.testing import Asked, FakeEndpoint, Reply


def answers(asked: Asked) -> str | Reply:
    if asked.prompt == "slow down":
        return Reply(status=429, headers={"Retry-After": "0"})
    if asked.prompt == "tools":
        return Reply(tool_calls=[{"name": "add", "arguments": '{"a": 1}'}], finish_reason="tool_calls")
    if asked.prompt == "likely":
        return Reply("so it is", logprobs=[-0.1, -0.2, -0.3])
    if asked.prompt == "half":
        return Reply("so it is", cut_after=1)
    return f"{asked.prompt} {asked.nth}"


@pytest.fixture
def client(endpoint: FakeEndpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=endpoint.url, api_key="sk-x", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, text: str) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def test_chats_and_completions(client: openai.OpenAI, endpoint: FakeEndpoint) -> None:
    chat = ask(client, "hello")
    assert chat.choices[0].message.content == "hello 0"
    assert chat.usage is not None
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (1, 2)
    plain = client.completions.create(model="m", prompt="hello")
    assert plain.choices[0].text == "hello 1"
    assert [asked.prompt for asked in endpoint.asked] == ["hello", "hello"]
    assert client.models.list().data[0].id == "fake"


def test_streams(client: openai.OpenAI, endpoint: FakeEndpoint) -> None:
    pieces = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "one two"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *said, last = list(pieces)
    assert "".join(piece.choices[0].delta.content or "" for piece in said) == "one two 0"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3
    plain = client.completions.create(model="m", prompt="one", stream=True)
    assert "".join(piece.choices[0].text for piece in plain) == "one 0"


def test_tools_and_logprobs(client: openai.OpenAI, endpoint: FakeEndpoint) -> None:
    [call] = ask(client, "tools").choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.arguments == '{"a": 1}'
    logprobs = ask(client, "likely").choices[0].logprobs
    assert logprobs is not None
    assert [entry.logprob for entry in logprobs.content or []] == [-0.1, -0.2, -0.3]


def test_failures(client: openai.OpenAI, endpoint: FakeEndpoint) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(client, "slow down")
    with pytest.raises(openai.APIConnectionError):
        ask(client, "half")


def test_it_counts_in_a_process_of_its_own_too() -> None:
    with FakeEndpoint(own_process=True) as endpoint:
        llm = LLM(endpoint.url, model="m")
        assert llm("hello").text != llm("hello").text
        assert [asked.nth for asked in endpoint.asked] == [0, 1]
        assert sum(endpoint.billed().values()) == 2
        assert (endpoint.in_flight, endpoint.most_in_flight) == (0, 1)
        endpoint.forget()
        assert endpoint.asked == []


def test_a_provider_that_knows_keys_bills_them_once() -> None:
    with FakeEndpoint(lambda asked: Reply("yes") if asked.nth == 0 else "no", remembers_keys=True) as endpoint:

        async def ask_twice() -> list[str]:
            from exoflow.llm.calls.endpoint import asked, body_of, key_header

            body = body_of({"model": "m", "prompt": "?"})
            headers = {"Content-Type": "application/json", **key_header("a key")}
            return [(await asked(f"{endpoint.url}/completions", body, headers, 9)).text for _ in range(2)]

        assert asyncio.run(ask_twice()) == ["yes", "yes"]
        assert endpoint.billed() == Counter({"a key": 1})
