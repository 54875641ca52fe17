"""What is made of answers that are no plain text: degenerate ones, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

import exoflow
from exoflow import NoConsensus
from exoflow.llm import LLM, adaptive_vote, best_of_n, choice, collect, json_field, vote
from exoflow.llm.voting import canonical, verbatim
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


@dataclass(frozen=True)
class Frozen:
    answer: str


class Struct(msgspec.Struct):
    answer: str


class Model(pydantic.BaseModel):
    answer: str


# -- forms -------------------------------------------------------------------------------------------------------------

FORMS = pytest.mark.parametrize("form", [Out, Frozen, Struct, Model], ids=lambda form: form.__name__)
SAID = ['{"answer": "A"}', '{"answer": "b"}', '{"answer": "a "}', '{"answer": "A"}']


@FORMS
def test_objects_that_response_format_makes_are_voted_on_by_their_fields(llm: LLM, answers: Answers, form: Any) -> None:
    answers.of = lambda number: SAID[number]
    r = vote(llm, "?", k=4, response_format=form)
    assert (r.answer, sorted(r.counts.values())) == (form(answer=r.answer.answer), [1, 3])
    answers.of = lambda number: SAID[number % 4]
    r = vote(llm, "?", k=4, response_format=form, equivalence=verbatim)
    assert (r.answer, sorted(r.counts.values())) == (form(answer="A"), [1, 1, 2])


def key(answer: Any) -> str:
    return str(answer.answer)


@FORMS
@pytest.mark.parametrize("equivalence", [canonical, verbatim, key], ids=lambda each: each.__name__)
@pytest.mark.parametrize("label", [{"answer": "A"}, '{"answer": "A"}'], ids=["fields", "json"])
def test_a_label_is_read_as_what_response_format_makes(
    llm: LLM, answers: Answers, form: Any, equivalence: Any, label: Any
) -> None:
    answers.of = lambda number: SAID[number]
    log = collect(llm, [{"id": 1, "prompt": "?", "answer": label}], 4, response_format=form, equivalence=equivalence)
    assert sum(bool(sample.correct) for sample in log) == (3 if equivalence is canonical else 2)


@pytest.mark.parametrize("equivalence", [canonical, key], ids=lambda each: each.__name__)
def test_a_label_that_no_answer_could_be_compared_with_is_refused_before_anything_is_asked(
    llm: LLM, endpoint: FakeEndpoint, equivalence: Any
) -> None:
    rows = [{"id": 1, "prompt": "?"}, {"id": 2, "prompt": "!", "answer": "A"}]
    with pytest.raises(ValueError, match="row 2 of the data set, id '2': its answer 'A' cannot be compared with"):
        collect(llm, rows, 4, response_format=Out, equivalence=equivalence)
    assert not endpoint.asked


def test_an_equivalence_may_know_what_to_do_with_labels_of_another_form(llm: LLM, answers: Answers) -> None:
    answers.of = lambda number: SAID[number]
    rows = [{"id": 1, "prompt": "?", "answer": "A"}]
    log = collect(llm, rows, 4, response_format=Out, equivalence=lambda answer: getattr(answer, "answer", answer))
    assert sum(bool(sample.correct) for sample in log) == 2


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_words_of_other_votes_are_not_sent_to_the_endpoint(llm: LLM, endpoint: FakeEndpoint) -> None:
    with pytest.raises(TypeError, match="k=3: that is how often vote, filter_vote and weighted_vote ask"):
        best_of_n(llm, "?", score=len, k=3)
    with pytest.raises(TypeError, match="k=3: that is how often"):
        adaptive_vote(llm, "?", k=3)
    with pytest.raises(TypeError, match="ties='first': that is how votes end a tie"):
        collect(llm, [{"id": 1, "prompt": "?"}], ties="first")
    assert not endpoint.asked


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


def test_nan_is_an_answer_like_another(llm: LLM, answers: Answers) -> None:
    answers.of = lambda number: '{"answer": NaN}' if number < 2 else '{"answer": 1}'
    assert sorted(vote(llm, "?", k=3, parse=json_field("answer")).counts.values()) == [1, 2]
    r = vote(llm, "?", k=3, response_format={"type": "json_object"})
    assert r.answer == {"answer": 1}


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
