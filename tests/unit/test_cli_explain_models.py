"""What ``explain`` says of a model's calls: they are recorded choices, though no task is named in the source."""

from __future__ import annotations

from rich.text import Text

from exoflow import flow, task
from exoflow.cli.explaining import Explained, _lines, explain_source
from exoflow.llm import LLM, EngineSpec

engine = EngineSpec("tiny")
llm = LLM("http://127.0.0.1:9/v1", model="small")
own = LLM(engine)


@task(effect="idempotent", deterministic=True)
def publish(text: object) -> None: ...


@flow
def generates(questions: list[str]) -> None:
    publish(engine.generate(questions)[0].text)


@flow
def calls(question: str) -> None:
    publish(llm(question).text)
    publish(own.submit(question))


@flow
async def awaits(question: str) -> None:
    answer = await llm.options(key="one")(question)
    if answer.text:
        publish.submit("yes")


@flow
def is_given(model: LLM) -> str:
    return model("what?").text


def explained(given: object) -> dict[str, Explained]:
    return {each.call: each for each in explain_source(given._spec)}  # type: ignore[attr-defined]  # any flow


def test_what_an_engine_is_asked_in_a_flow_is_shown_as_a_choice_that_is_saved_before_it_is_read() -> None:
    found = explained(generates)
    assert list(found) == ["generate", "publish"]
    assert (found["generate"].kind, found["generate"].saved) == ("choice", "saved before anyone may read it")


def test_calls_of_a_model_are_shown_as_paid_for() -> None:
    assert list(explained(calls)) == ["llm", "publish", "llm.submit"]
    assert explained(calls)["llm"].effect == "paid"
    assert list(explained(awaits)) == ["llm", "publish.submit"]


def test_where_nothing_is_to_be_seen_it_says_that_there_may_be_calls_all_the_same() -> None:
    assert explained(is_given) == {}
    [line] = _lines([])
    assert isinstance(line, Text)
    assert "what the flow is given, or gets from elsewhere, may be called" in line.plain
