"""The votes, as flows. All of them decide on samples in index order, whichever was answered first.

Chen et al., "Are More LLM Calls All You Need?", NeurIPS '24, section 3: Vote and Filter-Vote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from exoflow.gathering import gather
from exoflow.llm.library_flow import library_flow
from exoflow.llm.voting.asking import (
    Model,
    Question,
    answered,
    judged,
    mean_probability,
    parsed,
    sampled,
    scored,
    weighed,
)
from exoflow.llm.voting.consulting import check_functions
from exoflow.llm.voting.deciding import Equivalence, check_count, check_ties_of, named, plain, told, votes_of
from exoflow.llm.voting.equivalence import canonical
from exoflow.llm.voting.results import (
    NOTHING,
    AdaptiveVote,
    BestOf,
    FilterVote,
    Sample,
    Vote,
    WeightedVote,
    spent,
)
from exoflow.llm.voting.stops import BetaStop, Heard, Stop, check_stop
from exoflow.llm.voting.tally import Tally, Ties, check_ties, tally
from exoflow.model import Spent

if TYPE_CHECKING:
    from exoflow.llm.calls import Answer
    from exoflow.refs import Ref

Parse = Callable[[str], Any] | None


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
    check_count("k", k)
    check_ties(ties)
    check_functions(parse=parse, equivalence=equivalence)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    counted = tally(votes_of(samples, equivalence))
    while ties == "extend" and counted.tie and len(samples) < 2 * k:
        replies = await answered([question.ask(len(samples))])
        more, of_parsing = await parsed(parse, replies, len(samples))
        samples, cost = samples + more, sum(of_parsing, cost + spent(replies))
        counted = tally(votes_of(samples, equivalence))
    return Vote(**told(samples, samples, counted, ties, equivalence, cost))


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
    check_count("k", k)
    check_ties_of("filter_vote", ties)
    check_functions(judge=judge, parse=parse, equivalence=equivalence)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    samples, of_judging = await judged(question, judge, samples)
    passed = [sample for sample in samples if sample.passed]
    voters = passed or samples
    counted = tally(votes_of(voters, equivalence))
    result = told(samples, voters, counted, ties, equivalence, sum(of_judging, cost))
    return FilterVote(**result, n_passed=len(passed), fell_back=not passed)


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
    check_count("max_k", max_k)
    check_count("parallel", parallel)
    check_ties_of("adaptive_vote", ties)
    check_stop(stop)
    check_functions(parse=parse, equivalence=equivalence)
    question = Question(llm, messages, prompt, params)
    heard, samples, cost, stopped = Heard(), list[Sample](), NOTHING, False
    calls: list[Ref[Answer]] = []
    try:
        while not stopped:
            while len(calls) < min(max_k, len(samples) + parallel) and stop.affords(heard, len(calls) - len(samples)):
                calls.append(question.ask(len(calls)))
            if len(samples) == len(calls):
                break
            (sample,), (of_parsing,) = await parsed(parse, [await calls[len(samples)]], len(samples))
            samples.append(sample)
            cost += of_parsing
            (option,) = votes_of([sample], equivalence)
            heard.hear(option, sample.nano_usd)
            stopped = stop.enough(heard)
    except Exception:
        await gather(calls, return_exceptions=True)
        raise
    ended = await gather(calls, return_exceptions=True)
    cost += spent(each for each in ended if not isinstance(each, Exception))
    cost += Spent(sum(isinstance(each, Exception) for each in ended))
    result = told(samples, samples, heard.tally, ties, equivalence, cost)
    return AdaptiveVote(**result, n_counted=len(samples), n_sampled=len(calls), stopped=stopped)


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
    check_count("k", k)
    check_ties_of("weighted_vote", ties)
    check_functions(weight=weight, parse=parse, equivalence=equivalence)
    if weight is None:
        params.setdefault("logprobs", True if messages is not None else 1)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, k, parse)
    samples, of_weighing = await weighed(weight or mean_probability, samples)
    counted = tally(votes_of(samples, equivalence), [sample.weight or 0.0 for sample in samples])
    result = told(samples, samples, counted, ties, equivalence, sum(of_weighing, cost))
    weights = named({option: plain(weight) for option, weight in counted.weights.items()}, samples, equivalence)
    return WeightedVote(**result, weights=weights)


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
    check_count("n", n)
    check_ties_of("best_of_n", ties)
    check_functions(score=score, parse=parse, equivalence=equivalence)
    question = Question(llm, messages, prompt, params)
    samples, cost = await sampled(question, n, parse)
    samples, of_scoring = await scored(score, samples)
    counted = tally(votes_of(samples, equivalence))
    best: dict[Hashable, Fraction] = {}
    for option, sample in zip(votes_of(samples, equivalence), samples, strict=True):
        if option is not None and sample.score is not None:
            best[option] = max(best.get(option, Fraction(sample.score)), Fraction(sample.score))
    ranked = Tally(counted.counts, best)
    result = told(samples, samples, ranked, ties, equivalence, sum(of_scoring, cost))
    if len(best) == 1:
        result["margin"] = math.inf
    return BestOf(**result, score=float(max(best.values())))
