"""What is made of answers that are no plain text: degenerate ones, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import exoflow
from exoflow import NoConsensus
from exoflow.llm import LLM, choice, collect, json_field, vote
from exoflow.testing import Asked, FakeEndpoint, Reply


class Answers:
    """The answer to the n-th request."""

    def __init__(self) -> None:
        self.of: Callable[[int], str | Reply] = lambda number: "A"

    def __call__(self, asked: Asked) -> str | Reply:
        return self.of(asked.number)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeEndpoint, Answers]]:
    answers = Answers()
    with FakeEndpoint(answers) as endpoint:
        yield endpoint, answers


@pytest.fixture
def endpoint(served: tuple[FakeEndpoint, Answers]) -> FakeEndpoint:
    exoflow.configure(store="memory://")
    served[0].forget()
    return served[0]


@pytest.fixture
def answers(served: tuple[FakeEndpoint, Answers]) -> Answers:
    return served[1]


@pytest.fixture
def llm(endpoint: FakeEndpoint) -> LLM:
    return LLM(endpoint.url, model="fake", max_tokens=9, retries=0)


@dataclass
class Out:
    answer: str


# -- degenerate --------------------------------------------------------------------------------------------------------


def shouted(text: str) -> str:
    assert text.isupper(), "it does not shout"
    return text


ENDLESS = '{"answer": ' + "[" * 20_000
DEEP = '{"answer": ' + "[" * 300 + "]" * 300 + "}"


@pytest.mark.parametrize("degenerate", [ENDLESS, DEEP], ids=["endless", "deep"])
@pytest.mark.parametrize(
    "how",
    [
        {"parse": json_field("answer")},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "object"}},
    ],
    ids=["parse", "json_object", "schema"],
)
def test_an_answer_of_brackets_without_end_abstains(
    llm: LLM, answers: Answers, degenerate: str, how: dict[str, Any]
) -> None:
    answers.of = lambda number: degenerate if number == 1 else '{"answer": "A"}'
    r = vote(llm, "?", k=4, **how)
    assert (r.n_valid, r.n_calls) == (3, 4)
    (silent,) = (sample for sample in r.samples if sample.answer is None)
    assert silent.why
    log = collect(llm, [{"id": 1, "prompt": "?"}], n=2, **how)
    assert len(log) == 2


def test_a_parser_that_asserts_or_reads_python_abstains(llm: LLM, answers: Answers) -> None:
    answers.of = lambda number: "Aab"[number % 3]
    assert vote(llm, "?", k=3, parse=shouted).counts == {"A": 1}


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusal(number: int) -> Reply:
    message = {"content": None, "refusal": "I cannot help with that"}
    return Reply(raw=json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}))


@pytest.mark.parametrize("how", [{}, {"parse": choice("AB")}, {"response_format": Out}], ids=["text", "parse", "form"])
def test_where_all_refuse_the_vote_says_what_the_model_said(llm: LLM, answers: Answers, how: dict[str, Any]) -> None:
    answers.of = refusal
    with pytest.raises(NoConsensus, match="the model refused, 'I cannot help with that'"):
        vote(llm, "?", k=2, **how)


def test_an_answer_that_was_cut_off_before_it_began_says_so(llm: LLM, answers: Answers) -> None:
    answers.of = lambda number: Reply("", finish_reason="length")
    with pytest.raises(NoConsensus, match="it is empty: max_tokens cut it off"):
        vote(llm, "?", k=2)
