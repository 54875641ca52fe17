"""The votes, as flows. All of them decide on samples in index order, whichever was answered first.

Chen et al., "Are More LLM Calls All You Need?", NeurIPS '24, section 3: Vote and Filter-Vote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from exoflow.context import rng
from exoflow.gathering import gather
from exoflow.llm.library_flow import library_flow
from exoflow.llm.voting.asking import Model, Question, answered, parsed, sampled
from exoflow.llm.voting.consulting import consult, verdict
from exoflow.llm.voting.equivalence import canonical
from exoflow.llm.voting.results import (
    NOTHING,
    AdaptiveVote,
    BestOf,
    FilterVote,
    Sample,
    Spent,
    Vote,
    WeightedVote,
    by_first_said,
    named,
    refuse_empty,
    spent,
)
from exoflow.llm.voting.stops import BetaStop, Heard, Stop
from exoflow.llm.voting.tally import Tally, Ties, check_ties, tally, winner

if TYPE_CHECKING:
    from exoflow.llm.calls import Answer
    from exoflow.refs import Ref

Parse = Callable[[str], Any] | None
Equivalence = Callable[[Any], Hashable]


@library_flow
async def vote(
    llm: Model,
    messages: Any = None,
    prompt: str | None = None,
    *,
    k: int = 11,
    parse: Parse = None,
    equivalence: Equivalence = canonical,
    ties: Ties = "seeded",
    **params: Any,
) -> Vote:
    """Ask k times; the most frequent answer wins.

    Args:
        llm: whom.
        messages: a chat; or ``prompt``, a plain completion.
        k: how often.
        parse: from the text to what is voted for; None, or an error such as ValueError: this sample abstains. Without
            it, what the endpoint has parsed by a schema, else the text.
        equivalence: from an answer to a key; answers with one key are the same.
        ties: ``seeded``: drawn, the same in every replay; ``first``: the one that was said first; ``abstain``: the
            answer is None; ``extend``: ask on, one at a time and k times more at most, then draw.
        params: of the call. A ``seed`` is the first sample's, and one more for each after it.

    Raises:
        NoConsensus: all samples abstain.
        Exception: a call's, once all calls of this vote have ended.
    """
    _whole("k", k)
    check_ties(ties)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    counted = tally(_votes(samples, equivalence))
    while ties == "extend" and counted.tie and len(samples) < 2 * k:
        replies = await answered([question.ask(len(samples))])
        more, of_parsing = await parsed(parse, replies, len(samples))
        samples, cost = samples + more, cost + spent(replies) + of_parsing
        counted = tally(_votes(samples, equivalence))
    return Vote(**_told(samples, samples, counted, ties, equivalence, cost))


@library_flow
async def filter_vote(
    llm: Model,
    messages: Any = None,
    prompt: str | None = None,
    *,
    k: int = 11,
    judge: Callable[[Any, Any], Any],
    parse: Parse = None,
    equivalence: Equivalence = canonical,
    ties: Ties = "seeded",
    **params: Any,
) -> FilterVote:
    """Ask k times; the most frequent of the answers that pass wins. If none passes, all vote.

    Args:
        judge: ``judge(question, answer) -> bool``, with the messages or the prompt, and with the parsed answer; sync or
            async. Models that it asks are calls of this flow. What abstains is not judged.
        llm, messages, prompt, k, parse, equivalence, params: as of ``vote``.
        ties: as of ``vote``, without ``extend``.

    Raises:
        NoConsensus, Exception: as ``vote``.
    """
    _whole("k", k)
    _check_ties_here(ties, "filter_vote")
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    candidates = [sample for sample in samples if sample.answer is not None]
    asked = [(sample.index, (question.asked, sample.answer)) for sample in candidates]
    opinions, of_judging = await consult("judge", judge, asked)
    for sample, opinion in zip(candidates, opinions, strict=True):
        samples[sample.index] = replace(sample, passed=verdict(opinion.value))
    passed = [sample for sample in samples if sample.passed]
    voters = passed or samples
    counted = tally(_votes(voters, equivalence))
    told = _told(samples, voters, counted, ties, equivalence, cost + of_judging)
    return FilterVote(**told, n_passed=len(passed), fell_back=not passed)


@library_flow
async def adaptive_vote(
    llm: Model,
    messages: Any = None,
    prompt: str | None = None,
    *,
    stop: Stop = BetaStop(0.95),  # noqa: B008 -- frozen
    max_k: int = 40,
    parallel: int = 4,
    parse: Parse = None,
    equivalence: Equivalence = canonical,
    ties: Ties = "seeded",
    **params: Any,
) -> AdaptiveVote:
    """Ask until a rule says that it is enough; the most frequent answer wins.

    The rule sees the samples in index order. Up to ``parallel`` calls are under way beyond what it has seen, so that at
    most ``parallel - 1`` are made and do not count. They are waited for: what they cost is known.

    Args:
        stop: ``BetaStop(.95)``, ``Window(5)``, ``Margin(3)``, ``Budget(usd=...)``; ``a | b``: the first of them.
        max_k: the most samples.
        llm, messages, prompt, parse, equivalence, params: as of ``vote``.
        ties: as of ``vote``, without ``extend``.

    Raises:
        NoConsensus, Exception: as ``vote``. The error of a call that does not count is none of the vote's.
    """
    _whole("max_k", max_k)
    _whole("parallel", parallel)
    _check_ties_here(ties, "adaptive_vote")
    question = Question(llm, messages, prompt, params)
    heard, samples, cost, stopped = Heard(), list[Sample](), NOTHING, False
    calls: list[Ref[Answer]] = []
    while not stopped:
        while len(calls) < min(max_k, len(samples) + parallel) and stop.affords(heard, len(calls) - len(samples)):
            calls.append(question.ask(len(calls)))
        if len(samples) == len(calls):
            break
        try:
            (sample,), of_parsing = await parsed(parse, [await calls[len(samples)]], len(samples))
        except Exception:  # a call's, or of a parser that makes calls
            await gather(calls, return_exceptions=True)
            raise
        samples.append(sample)
        cost += of_parsing
        heard.hear(*_votes([sample], equivalence), sample.nano_usd)
        stopped = stop.enough(heard)
    ended = await gather(calls, return_exceptions=True)
    cost += spent(each for each in ended if not isinstance(each, Exception))
    cost += Spent(sum(isinstance(each, Exception) for each in ended))
    told = _told(samples, samples, heard.tally, ties, equivalence, cost)
    return AdaptiveVote(**told, n_counted=len(samples), n_sampled=len(calls), stopped=stopped)


@library_flow
async def weighted_vote(
    llm: Model,
    messages: Any = None,
    prompt: str | None = None,
    *,
    k: int = 11,
    weight: Callable[[Sample], Any] | None = None,
    parse: Parse = None,
    equivalence: Equivalence = canonical,
    ties: Ties = "seeded",
    **params: Any,
) -> WeightedVote:
    """Ask k times; the answer with the most weight wins.

    Taubenfeld et al., "Confidence Improves Self-Consistency in LLMs", Findings of ACL '25, without their temperature.

    Args:
        weight: ``weight(sample) -> float``, 0 or more; sync or async. By default the mean probability of its tokens;
            the endpoint has to tell it.
        llm, messages, prompt, k, parse, equivalence, params: as of ``vote``.
        ties: as of ``vote``, without ``extend``.

    Raises:
        NoConsensus, Exception: as ``vote``.
    """
    _whole("k", k)
    _check_ties_here(ties, "weighted_vote")
    if weight is None:
        params.setdefault("logprobs", True if messages is not None else 1)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    samples, of_weighing = await _valued("weight", weight or mean_probability, samples)
    counted = tally(_votes(samples, equivalence), [sample.weight or 0.0 for sample in samples])
    told = _told(samples, samples, counted, ties, equivalence, cost + of_weighing)
    said = by_first_said(samples, equivalence)
    weights = named({option: float(value) for option, value in counted.weights.items()}, said)
    return WeightedVote(**told, weights=weights)


@library_flow
async def best_of_n(
    llm: Model,
    messages: Any = None,
    prompt: str | None = None,
    *,
    n: int = 8,
    score: Callable[[Any], Any],
    parse: Parse = None,
    equivalence: Equivalence = canonical,
    ties: Ties = "seeded",
    **params: Any,
) -> BestOf:
    """Ask n times; the answer with the highest score wins.

    Args:
        score: ``score(answer) -> float`` of a parsed answer; sync or async.
        llm, messages, prompt, parse, equivalence, params: as of ``vote``.
        ties: as of ``vote``, without ``extend``. Answers that are the same do not tie.

    Raises:
        NoConsensus, Exception: as ``vote``.
    """
    _whole("n", n)
    _check_ties_here(ties, "best_of_n")
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, n, parse)
    samples, of_scoring = await _valued("score", score, samples)
    counted = tally(_votes(samples, equivalence))
    best: dict[Hashable, Fraction] = {}
    for option, sample in zip(_votes(samples, equivalence), samples, strict=True):
        if option is not None and sample.score is not None:
            best[option] = max(best.get(option, Fraction(sample.score)), Fraction(sample.score))
    ranked = Tally(counted.counts, best)
    told = _told(samples, samples, ranked, ties, equivalence, cost + of_scoring)
    return BestOf(**told, score=float(max(best.values())))


async def _valued(role: str, function: Callable[[Any], Any], samples: Sequence[Sample]) -> tuple[list[Sample], Spent]:
    """The samples with their weights or scores."""
    valid = [sample for sample in samples if sample.answer is not None]
    asked = [(sample.index, (sample if role == "weight" else sample.answer,)) for sample in valid]
    opinions, cost = await consult(role, function, asked)
    values = {sample.index: _number(role, opinion.value) for sample, opinion in zip(valid, opinions, strict=True)}
    return [replace(sample, **{role: values.get(sample.index)}) for sample in samples], cost


def _number(role: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{role} gave {value!r}: it must give a finite number")
    if role == "weight" and value < 0:
        raise ValueError(f"weight gave {value!r}: a weight is 0 or more")
    return float(value)


def mean_probability(sample: Sample) -> float:
    """The mean probability of the sample's tokens.

    Raises:
        ValueError: the endpoint has not told it.
    """
    told = sample.reply.logprobs
    if not told:
        raise ValueError("the endpoint tells no token's probability, from which the weight is taken: give weight=...")
    return math.fsum(math.exp(token.logprob) for token in told) / len(told)


def _votes(samples: Sequence[Sample], equivalence: Equivalence) -> list[Hashable | None]:
    return [None if sample.answer is None else equivalence(sample.answer) for sample in samples]


def _told(
    samples: Sequence[Sample],
    voters: Sequence[Sample],
    counted: Tally,
    ties: Ties,
    equivalence: Equivalence,
    cost: Spent,
) -> dict[str, Any]:
    """What all votes tell.

    Raises:
        NoConsensus: nobody has voted.
    """
    refuse_empty(counted, samples)
    said = by_first_said(voters, equivalence)
    won = winner(counted, ties, lambda n: rng().randrange(n))
    margin = counted.margin
    return {
        "answer": None if won is None else said[won],
        "counts": named(counted.counts, said),
        "margin": margin.numerator if margin.denominator == 1 else float(margin),
        "tie": counted.tie,
        "n_valid": counted.n_valid,
        "samples": tuple(samples),
        "n_calls": cost.n_calls,
        "usage": cost.usage,
        "nano_usd": cost.nano_usd,
    }


def _check_ties_here(ties: str, name: str) -> None:
    check_ties(ties)
    if ties == "extend":
        raise ValueError(f"ties='extend' is vote's: {name} takes 'seeded', 'first' or 'abstain'")


def _whole(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{name}={number!r} must be a whole number, 1 or more")
