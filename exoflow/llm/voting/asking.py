"""Samples of a question, and what the functions of whoever votes say of them; all in the flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

from exoflow.errors import LLMError
from exoflow.gathering import gather
from exoflow.llm.calls.forms import told_why
from exoflow.llm.voting.consulting import Opinion, consult, verdict
from exoflow.llm.voting.equivalence import DEEPEST, is_deep
from exoflow.llm.voting.results import NOTHING, Sample, spent
from exoflow.model import Spent

if TYPE_CHECKING:
    from exoflow.llm.calls import Answer
    from exoflow.llm.calls.how import How
    from exoflow.refs import Ref


class Model(Protocol):
    """What a vote needs of an ``LLM``: the same calls under keys of their own."""

    @property
    def how(self) -> How: ...

    def options(self, *, key: str) -> Model: ...

    def submit(self, *args: Any, **params: Any) -> Ref[Answer]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a model, again and again."""

    llm: Model
    messages: Any
    prompt: str | None
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.prompt is None):
            raise TypeError("give messages, or prompt=... for a plain completion")
        if not hasattr(self.llm, "how"):
            raise TypeError(f"llm={self.llm!r} must be an LLM(...)")
        check_words(self.params)

    @property
    def asked(self) -> Any:
        """As judges see it."""
        return self.prompt if self.messages is None else self.messages

    def ask(self, index: int) -> Ref[Answer]:
        """Ask for one more sample. A ``seed`` is the first one's: each sample has another."""
        params = dict(self.params)
        if isinstance(seed := params.get("seed", self.llm.how.params.get("seed")), int):
            params["seed"] = seed + index
        call = self.llm.options(key=f"sample-{index}")
        return (
            call.submit(prompt=self.prompt, **params) if self.messages is None else call.submit(self.messages, **params)
        )


_WORDS = {
    "k": "how often vote, filter_vote and weighted_vote ask",
    "n": "how often best_of_n and collect ask",
    "max_k": "how often adaptive_vote asks at most",
    "parallel": "adaptive_vote's",
    "judge": "filter_vote's and collect's",
    "weight": "weighted_vote's",
    "score": "best_of_n's",
    "ties": "how votes end a tie",
    "refused": "collect's",
}


def check_words(params: Mapping[str, object]) -> None:
    """Refuse what would go to the endpoint, and is another vote's word: what it would say goes unsaid.

    Raises:
        TypeError: it names it.
    """
    for name, value in params.items():
        if name.lower() in _WORDS:
            raise TypeError(f"{name}={value!r}: that is {_WORDS[name.lower()]}, and no parameter of a call")
        if name == "stop" and hasattr(value, "enough"):
            raise TypeError(f"stop={value!r}: such rules are adaptive_vote's; of a call, stop is text")


async def answered(calls: Sequence[Ref[Answer]]) -> list[Answer]:
    """The answers to all calls. If one has failed, its error, once all of them have ended."""
    ended = await gather(calls, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each
    return ended  # type: ignore[return-value]  # none of them is an error


async def parsed(
    parse: Callable[[str], Any] | None, replies: Sequence[Answer], first: int = 0
) -> tuple[list[Sample], list[Spent]]:
    """What is voted for in each answer, and what it has cost to find that out. ``first``: the index of the first."""
    if parse is None:
        return [_as_it_is(first + i, reply) for i, reply in enumerate(replies)], [NOTHING] * len(replies)
    opinions = await consult(
        "parse", parse, [(first + i, (each.text,)) for i, each in enumerate(replies)], abstains=True
    )
    samples = [
        _sample(first + i, reply, opinion.value, opinion.why or "parse gave None")
        for i, (reply, opinion) in enumerate(zip(replies, opinions, strict=True))
    ]
    return samples, [opinion.cost for opinion in opinions]


def _as_it_is(index: int, reply: Answer) -> Sample:
    """Without a parser: what the endpoint has parsed by a schema, else the text."""
    try:
        answer = reply.parsed
    except LLMError as error:  # it is not of the form that was asked for
        return Sample(index, reply, None, str(error))
    return _sample(index, reply, reply.text.strip() or None if answer is None else answer, "it is empty")


def _sample(index: int, reply: Answer, answer: object, why: str) -> Sample:
    """``why``: should there be no answer; what the endpoint says of it is added."""
    if answer is None:
        return Sample(index, reply, None, why + told_why(reply.finish_reason, reply.refusal))
    if is_deep(answer):
        return Sample(index, reply, None, f"it is nested deeper than {DEEPEST} times")
    return Sample(index, reply, answer)


async def sampled(question: Question, k: int, parse: Callable[[str], Any] | None) -> tuple[list[Sample], Spent]:
    """K samples, and what they have cost."""
    replies = await answered([question.ask(index) for index in range(k)])
    samples, of_parsing = await parsed(parse, replies)
    return samples, sum(of_parsing, spent(replies))


async def judged(
    question: Question, judge: Callable[[Any, Any], Any], samples: Sequence[Sample]
) -> tuple[list[Sample], list[Spent]]:
    """The samples, and which of them pass; what abstains is not judged."""
    said = await _said("judge", judge, samples, lambda each: (question.asked, each.answer))
    verdicts = [None if each is None else verdict(each.value) for each in said]
    return [replace(each, passed=passed) for each, passed in zip(samples, verdicts, strict=True)], _costs(said)


async def weighed(weight: Callable[[Sample], Any], samples: Sequence[Sample]) -> tuple[list[Sample], list[Spent]]:
    """The samples with their weights."""
    said = await _said("weight", weight, samples, lambda each: (each,))
    weights = [None if each is None else _number("weight", each.value, 0) for each in said]
    return [replace(each, weight=number) for each, number in zip(samples, weights, strict=True)], _costs(said)


async def scored(score: Callable[[Any], Any], samples: Sequence[Sample]) -> tuple[list[Sample], list[Spent]]:
    """The samples with their scores."""
    said = await _said("score", score, samples, lambda each: (each.answer,))
    scores = [None if each is None else _number("score", each.value) for each in said]
    return [replace(each, score=number) for each, number in zip(samples, scores, strict=True)], _costs(said)


async def _said(
    role: str, function: Callable[..., Any], samples: Sequence[Sample], args: Callable[[Sample], tuple[Any, ...]]
) -> list[Opinion | None]:
    """Of each sample; None: it abstains, and nobody was asked about it."""
    valid = [sample for sample in samples if sample.answer is not None]
    opinions = iter(await consult(role, function, [(each.index, args(each)) for each in valid]))
    return [None if sample.answer is None else next(opinions) for sample in samples]


def _costs(said: Sequence[Opinion | None]) -> list[Spent]:
    return [NOTHING if opinion is None else opinion.cost for opinion in said]


def mean_probability(sample: Sample) -> float:
    """The mean probability of the sample's tokens.

    Raises:
        ValueError: the endpoint has not told it.
    """
    told = sample.reply.logprobs
    if not told:
        raise ValueError("the endpoint tells no token's probability, from which the weight is taken: give weight=...")
    return math.fsum(math.exp(token.logprob) for token in told) / len(told)


def _number(role: str, value: object, least: float = -math.inf) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise TypeError(f"{role} gave {value!r}: it must give a finite number")
    if number < least:
        raise ValueError(f"{role} gave {value!r}: it must be {least} or more")
    return number
