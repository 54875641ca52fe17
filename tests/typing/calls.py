"""Calls of models, typed as a user would; ``mypy`` of the whole looks at it (alone it would read torch first)."""

from typing import assert_type

from exoflow import Ref, flow, gather, task
from exoflow.errors import CallFailed
from exoflow.llm import LLM, Answer, Prices
from exoflow.refs import Refs

llm = LLM("http://localhost:8000/v1", model="m", prices=Prices(0.15, "0.6"), max_tokens=9, temperature=0.5)


@task(deterministic=True)
def question() -> str:
    return "?"


@flow
def asks() -> str:
    assert_type(llm("?"), Answer)
    assert_type(llm([{"role": "user", "content": "?"}], logprobs=True), Answer)
    assert_type(llm(prompt="?"), Answer)
    assert_type(llm.submit("?"), Ref[Answer])
    assert_type(llm.submit(prompt=question.submit()), Ref[Answer])
    assert_type(llm.map(["?", "!"]), Refs[Answer])
    assert_type(gather(llm.submit("?"), llm.submit("!")).result(), list[Answer])
    assert_type(llm.options(key="a", labels={"tenant": "acme"}), LLM)
    assert_type(llm.batch(["?"]).result(), list[Answer | CallFailed])
    return llm("?").text


@flow
async def asks_async() -> str:
    answer = await llm("?")
    assert_type(answer, Answer)
    assert_type(await llm.submit("?"), Answer)
    return answer.text


llm(3)  # type: ignore[arg-type]
llm(messages="?", prompt=3)  # type: ignore[arg-type]
LLM(3)  # type: ignore[arg-type]
LLM("http://localhost/v1", model=3)  # type: ignore[arg-type]
llm.options(keys="a")  # type: ignore[call-arg]
