"""Votes as flows, on a fake endpoint: who wins, what is recorded, and what is called again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exoflow
from exoflow import Backoff, NoConsensus, flow, gather
from exoflow.errors import CallFailed
from exoflow.llm import (
    LLM,
    BetaStop,
    Budget,
    Margin,
    Prices,
    Window,
    adaptive_vote,
    best_of_n,
    choice,
    filter_vote,
    number,
    vote,
    weighted_vote,
)
from exoflow.llm.voting import Sample, verbatim
from exoflow.testing import Asked, FakeEndpoint, Reply


class Said:
    """What the endpoint answers, by what it is asked and by which sample it is: the same in any order."""

    def __init__(self) -> None:
        self.of: Callable[[str, int], str | Reply] = lambda prompt, index: "A"

    def __call__(self, asked: Asked) -> str | Reply:
        sample = asked.key.rpartition("sample-")[2].partition("]")[0]
        return self.of(asked.prompt, int(sample) if sample.isdigit() else -1)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeEndpoint, Said]]:
    said = Said()
    with FakeEndpoint(said) as endpoint:
        yield endpoint, said


@pytest.fixture
def said(served: tuple[FakeEndpoint, Said]) -> Said:
    return served[1]


@pytest.fixture
def endpoint(served: tuple[FakeEndpoint, Said], tmp_path: Path) -> FakeEndpoint:
    exoflow.configure(store=str(tmp_path / "store"))
    served[0].forget()
    served[1].of = lambda prompt, index: "A"
    return served[0]


PRICES = Prices(usd_per_million_in=1, usd_per_million_out=2)
QUESTION = [{"role": "user", "content": "Which one?"}]


@pytest.fixture
def llm(endpoint: FakeEndpoint) -> LLM:
    return LLM(endpoint.url, model="fake", prices=PRICES, retries=0, backoff=Backoff(initial_s=0, jitter=0))


def in_turn(answers: str) -> Callable[[str, int], str]:
    return lambda prompt, index: answers[index % len(answers)]


# -- vote --------------------------------------------------------------------------------------------------------------


def test_the_most_frequent_answer_wins_and_all_is_told(llm: LLM, said: Said) -> None:
    said.of = in_turn("BAACA?ABAAB")
    r = vote(llm, QUESTION, k=11, parse=choice("ABCD"))
    assert (r.answer, r.counts, r.margin, r.tie, r.n_valid) == ("A", {"B": 3, "A": 6, "C": 1}, 3, False, 10)
    assert [sample.index for sample in r.samples] == list(range(11))
    assert [sample.text for sample in r.samples] == list("BAACA?ABAAB")
    assert r.samples[5].answer is None
    assert "names none" in r.samples[5].why
    assert (r.n_calls, r.usage.prompt_tokens, r.usage.completion_tokens) == (11, 22, 11)
    assert r.cost == Decimal("0.000044") == sum((sample.cost for sample in r.samples), Decimal(0))


def test_eleven_votes_make_eleven_keys_and_the_same_run_makes_no_call_more(
    llm: LLM, said: Said, endpoint: FakeEndpoint
) -> None:
    said.of = in_turn("AAB")
    one = vote.options(run_id="once").run(llm, QUESTION, k=11)
    assert len(endpoint.asked) == 11
    assert set(endpoint.billed().values()) == {1}
    assert len(endpoint.billed()) == 11
    assert vote.options(run_id="once").run(llm, QUESTION, k=11) == one
    assert len(endpoint.asked) == 11


def test_a_plain_prompt_is_completed(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: f" {prompt[-1]}"
    r = vote(llm, prompt="The opposite of X", k=3, temperature=0.5)
    assert r.answer == "X"
    assert all("prompt" in asked.body and asked.body["temperature"] == 0.5 for asked in endpoint.asked)


def test_a_seed_is_another_one_for_each_sample(llm: LLM, endpoint: FakeEndpoint) -> None:
    vote(llm, QUESTION, k=3, seed=40)
    assert sorted(asked.body["seed"] for asked in endpoint.asked) == [40, 41, 42]


def test_numbers_that_are_equal_are_one_answer_told_as_it_was_first_said(llm: LLM, said: Said) -> None:
    said.of = lambda prompt, index: ["1.0", "2", "1", "it is 1.00"][index]
    r = vote(llm, QUESTION, k=4, parse=number)
    assert r.counts == {1: 3, 2: 1}
    assert str(r.answer) == "1.0"


def test_text_is_the_same_whatever_its_case_unless_it_is_to_be_verbatim(llm: LLM, said: Said) -> None:
    said.of = lambda prompt, index: ["Paris", "paris ", "Rome", "PARIS"][index]
    assert vote(llm, QUESTION, k=4).counts == {"Paris": 3, "Rome": 1}
    assert vote(llm, QUESTION, k=4, equivalence=verbatim).tie


def test_what_the_endpoint_has_parsed_by_a_schema_is_voted_for(llm: LLM, said: Said) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    said.of = lambda prompt, index: ['{"x": 1}', '{"x": 2}', '{ "x": 1 }', "{"][index]
    r = vote(llm, QUESTION, k=4, response_format=schema)
    assert r.answer == {"x": 1}
    assert (sorted(r.counts.values()), r.n_valid) == ([1, 2], 3)
    assert r.samples[3].why


def test_where_all_abstain_there_is_no_consensus(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: "I would rather not"
    with pytest.raises(NoConsensus, match=r"none of 3 .*'I would rather not'.*names none"):
        vote.options(run_id="none").run(llm, QUESTION, k=3, parse=choice("ABCD"))
    with pytest.raises(NoConsensus):
        vote.options(run_id="none").run(llm, QUESTION, k=3, parse=choice("ABCD"))
    assert len(endpoint.asked) == 3


def test_ties_are_drawn_the_same_in_every_replay_and_told(llm: LLM, said: Said) -> None:
    said.of = in_turn("AB")

    @flow(version="1")
    def items() -> list[Any]:
        return vote.map(repeat(llm), [f"item {n}" for n in range(40)], k=2, parse=choice("AB")).result()

    first = items.options(run_id="ties").run()
    assert all(r.tie and r.margin == 0 for r in first)
    assert 5 < Counter(r.answer for r in first)["A"] < 35
    exoflow.configure(store="memory://")
    assert [r.answer for r in items.options(run_id="ties 2").run()] != [r.answer for r in first]


@pytest.mark.parametrize(("ties", "answer"), [("first", "B"), ("abstain", None)])
def test_a_tie_goes_as_it_was_said(llm: LLM, said: Said, ties: Any, answer: str | None) -> None:
    said.of = in_turn("BA")
    r = vote(llm, QUESTION, k=4, ties=ties)
    assert (r.answer, r.tie, r.margin, r.counts) == (answer, True, 0, {"B": 2, "A": 2})


def test_a_tie_is_extended_until_one_is_ahead(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = in_turn("ABAB?CB")
    r = vote(llm, QUESTION, k=4, parse=choice("ABC"), ties="extend")
    assert (r.answer, r.tie, r.counts, len(r.samples), r.n_calls) == ("B", False, {"A": 2, "B": 3, "C": 1}, 7, 7)
    assert len(endpoint.asked) == 7


def test_a_tie_that_stays_one_is_extended_k_times_and_drawn(llm: LLM, said: Said) -> None:
    said.of = in_turn("AB??")
    r = vote(llm, QUESTION, k=2, parse=choice("AB"), ties="extend")
    assert (r.tie, len(r.samples), r.answer in ("A", "B")) == (True, 4, True)


def test_a_call_that_fails_fails_its_vote_after_its_other_calls_and_no_other_vote(
    llm: LLM, said: Said, endpoint: FakeEndpoint
) -> None:
    said.of = lambda prompt, index: Reply("no", status=400) if (prompt, index) == ("bad", 1) else "A"

    @flow(version="1")
    async def votes() -> list[Any]:
        refs = vote.map(repeat(llm), ["good", "bad", "good too"], k=4)
        return await gather(refs, return_exceptions=True)

    good, bad, other = votes.start().result()
    assert (good.answer, other.answer) == ("A", "A")
    assert isinstance(bad, CallFailed)
    assert len(endpoint.asked) == 12
    assert endpoint.in_flight == 0


def test_a_failed_vote_that_is_resumed_calls_what_failed_alone(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: Reply("no", status=500) if index == 2 else "A"
    with pytest.raises(CallFailed):
        vote.options(run_id="fails").run(llm, QUESTION, k=5)
    assert len(endpoint.asked) == 5
    said.of = in_turn("A")
    assert vote.resume("fails").counts == {"A": 5}
    assert len(endpoint.asked) == 6


# -- callers -----------------------------------------------------------------------------------------------------------


def test_sync_and_async_callers_use_the_words_of_their_own(llm: LLM) -> None:
    @flow(version="1")
    def sync() -> Any:
        return vote(llm, QUESTION, k=1).answer, vote.submit(llm, QUESTION, k=1).result().answer

    @flow(version="1")
    async def other() -> Any:
        return (await vote(llm, QUESTION, k=1)).answer, (await vote.submit(llm, QUESTION, k=1)).answer

    async def outside() -> Any:
        return (await vote(llm, QUESTION, k=1)).answer, (await vote.options(run_id="x").run(llm, QUESTION, k=1)).answer

    assert sync() == ("A", "A")
    assert other.start().result() == ("A", "A")
    assert asyncio.run(outside()) == ("A", "A")
    assert vote.start(llm, QUESTION, k=1).result().answer == "A"


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": 2.0},
        {"ties": "random"},
        {"prompt": "as well"},
        {"n": 3},
        {"K": 3},
        {"max_k": 3},
        {"judge": len},
        {"stop": BetaStop()},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    llm: LLM, endpoint: FakeEndpoint, wrong: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError), match=r"must be|give messages|no parameter of a call|adaptive_vote's"):
        vote(llm, QUESTION, **wrong)
    assert not endpoint.asked


# -- filter_vote -------------------------------------------------------------------------------------------------------


def not_b(question: Any, answer: str) -> bool:
    assert question == QUESTION
    return answer != "B"


def test_those_that_pass_a_rule_vote(llm: LLM, said: Said) -> None:
    said.of = in_turn("BBBAAC?")
    r = filter_vote(llm, QUESTION, k=7, judge=not_b, parse=choice("ABCD"))
    assert (r.answer, r.counts, r.n_valid, r.n_passed, r.fell_back) == ("A", {"A": 2, "C": 1}, 3, 3, False)
    assert [sample.passed for sample in r.samples] == [False, False, False, True, True, True, None]
    assert r.n_calls == 7


def test_if_none_passes_all_vote(llm: LLM, said: Said) -> None:
    said.of = in_turn("BBB")
    r = filter_vote(llm, QUESTION, k=3, judge=not_b)
    assert (r.answer, r.counts, r.n_passed, r.fell_back) == ("B", {"B": 3}, 0, True)


def judges_of(llm: LLM) -> dict[str, Any]:
    async def awaits(question: Any, answer: str) -> bool:
        return (await llm(prompt=f"judge {answer}")).text == "yes"

    def waits(question: Any, answer: str) -> bool:
        return llm(prompt=f"judge {answer}").text == "yes"

    def submits(question: Any, answer: str) -> bool:
        refs = llm.map(prompt=[f"judge {answer}"])
        return refs[0].result().text == "yes"

    return {"awaits": awaits, "waits": waits, "submits": submits}


@pytest.mark.parametrize("how", ["awaits", "waits", "submits"])
@pytest.mark.parametrize("caller", ["sync", "async"])
def test_a_judge_that_asks_a_model_is_recorded_and_counted(
    llm: LLM, said: Said, endpoint: FakeEndpoint, how: str, caller: str
) -> None:
    said.of = lambda prompt, index: "ABBA"[index] if index >= 0 else "yes" if prompt == "judge A" else "no"
    judge = judges_of(llm)[how]

    @flow(version="1")
    def sync() -> Any:
        return filter_vote(llm, QUESTION, k=4, judge=judge)

    @flow(version="1")
    async def other() -> Any:
        return await filter_vote(llm, QUESTION, k=4, judge=judge)

    asking = sync if caller == "sync" else other
    r = asking.options(run_id="judged").start().result()
    assert (r.answer, r.counts, r.n_passed) == ("A", {"A": 2}, 2)
    assert (r.n_calls, len(endpoint.asked)) == (8, 8)
    assert r.usage.prompt_tokens == 4 * 2 + 4 * 2
    assert r.nano_usd == 8 * (2 * 1000 + 2000)
    assert all(f"judge-{index}]" in " ".join(endpoint.billed()) for index in range(4))
    assert asking.options(run_id="judged").start().result() == r
    assert len(endpoint.asked) == 8


def test_a_judge_that_fails_fails_the_vote_once_the_others_have_ended(
    llm: LLM, said: Said, endpoint: FakeEndpoint
) -> None:
    said.of = lambda prompt, index: "ABBA"[index] if index >= 0 else Reply(status=400) if "A" in prompt else "no"
    with pytest.raises(CallFailed):
        filter_vote(llm, QUESTION, k=4, judge=judges_of(llm)["awaits"])
    assert len(endpoint.asked) == 8


def test_a_judge_has_to_say_yes_or_no(llm: LLM) -> None:
    for verdict in ("no", 2, 0.5, None, [True]):
        with pytest.raises(TypeError, match="True or False"):
            filter_vote(llm, QUESTION, k=2, judge=lambda question, answer, verdict=verdict: verdict)
    for verdict, passed in ((np.bool_(True), 2), (np.bool_(False), 0), (1, 2), (0, 0)):
        assert filter_vote(llm, QUESTION, k=2, judge=lambda q, a, verdict=verdict: verdict).n_passed == passed


def test_a_judge_that_is_none_is_refused_before_anything_is_asked(llm: LLM, endpoint: FakeEndpoint) -> None:
    with pytest.raises(TypeError, match="judge=None must be a function"):
        filter_vote(llm, QUESTION, judge=None)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(TypeError, match="score=None must be a function"):
        best_of_n(llm, QUESTION, score=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="equivalence=None must be a function"):
        vote(llm, QUESTION, equivalence=None)  # type: ignore[arg-type]
    assert not endpoint.asked


def test_a_parser_may_ask_a_model_too(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: ["one", "two", "1"][index] if index >= 0 else {"one": "1"}.get(prompt, "?")

    def parse(text: str) -> int:
        return int(text) if text.isdigit() else int(llm(prompt=text).text)

    r = vote(llm, QUESTION, k=3, parse=parse)
    assert (r.answer, r.counts, r.n_valid, r.n_calls) == (1, {1: 2}, 2, 5)
    assert r.samples[1].why.startswith("ValueError")
    assert len(endpoint.asked) == 5


# -- adaptive_vote -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "counted"), [("AAAAAAAAAA", 4), ("AAABAAAAAA", 7), ("AAABAABAAAAAAA", 10)], ids=["4-0", "6-1", "8-2"]
)
def test_the_beta_rule_stops_at_the_first_place_of_its_table(
    llm: LLM, said: Said, endpoint: FakeEndpoint, answers: str, counted: int
) -> None:
    said.of = in_turn(answers)
    r = adaptive_vote(llm, QUESTION, stop=BetaStop(0.95), max_k=40, parallel=4)
    assert (r.answer, r.stopped, r.n_counted, len(r.samples)) == ("A", True, counted, counted)
    assert r.n_sampled == counted + 3 == len(endpoint.asked) == r.n_calls
    assert r.nano_usd == r.n_sampled * 4000
    assert sum(r.counts.values()) == counted


def test_one_call_at_a_time_makes_none_that_does_not_count(llm: LLM, endpoint: FakeEndpoint) -> None:
    r = adaptive_vote(llm, QUESTION, stop=Margin(3), max_k=40, parallel=1)
    assert (r.n_counted, r.n_sampled, len(endpoint.asked)) == (3, 3, 3)


def test_a_rule_that_is_never_met_ends_at_the_most(llm: LLM, said: Said) -> None:
    said.of = in_turn("AB")
    r = adaptive_vote(llm, QUESTION, stop=Window(3), max_k=7, parallel=3)
    assert (r.answer, r.stopped, r.n_counted, r.n_sampled) == ("A", False, 7, 7)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_budget_is_not_overspent_by_what_is_under_way(llm: LLM, said: Said, parallel: int) -> None:
    said.of = in_turn("AB")
    r = adaptive_vote(llm, QUESTION, stop=Budget(usd="0.000021"), max_k=40, parallel=parallel)
    assert (r.n_counted, r.n_sampled, r.cost) == (5, 5, Decimal("0.00002"))  # 0.000004 each


def test_an_error_that_does_not_count_is_none_of_the_votes(llm: LLM, said: Said) -> None:
    said.of = lambda prompt, index: "A" if index < 4 else Reply("no", status=400)
    r = adaptive_vote(llm, QUESTION, stop=BetaStop(0.95), parallel=4)
    assert (r.answer, r.n_counted, r.n_sampled, r.n_calls) == ("A", 4, 7, 7)
    with pytest.raises(CallFailed):
        adaptive_vote(llm, QUESTION, stop=BetaStop(0.99), parallel=4)


def test_index_order_is_unbiased_and_completion_order_is_not(endpoint: FakeEndpoint, said: Said, llm: LLM) -> None:
    """Right answers are long and late, wrong ones short and early; p = .6. A broken variant counts as they come."""
    right = [(7 * n) % 10 < 6 for n in range(11)]
    said.of = lambda prompt, index: Reply("R" * 1000, delay_s=1.0) if right[index] else Reply("W" * 10, delay_s=0.0)
    r = adaptive_vote(llm, QUESTION, stop=Margin(2), max_k=11, parallel=11)
    assert r.answer[0] == "R"
    assert [sample.text[0] == "R" for sample in r.samples] == right[: r.n_counted]

    @flow(version="1")
    async def as_they_come() -> str:
        refs = [llm.options(key=f"sample-{n}").submit(QUESTION) for n in range(11)]
        ahead = 0
        async for ref in exoflow.as_completed(refs):
            ahead += 1 if (await ref).text[0] == "R" else -1
            if abs(ahead) == 2:
                break
        return "R" if ahead > 0 else "W"

    assert as_they_come.start().result() == "W"


# -- weighted_vote, best_of_n ------------------------------------------------------------------------------------------


def test_weights_are_the_mean_probability_of_the_tokens(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    log = {"A": -0.01, "B": -2.0}
    said.of = lambda prompt, index: Reply("BBA"[index], logprobs=[log["BBA"[index]]])
    r = weighted_vote(llm, QUESTION, k=3)
    assert (r.answer, r.counts) == ("A", {"B": 2, "A": 1})
    assert r.weights["A"] == pytest.approx(0.990, abs=1e-3)
    assert r.weights["B"] == pytest.approx(2 * 0.1353, abs=1e-3)
    assert r.margin == pytest.approx(0.990 - 0.2707, abs=1e-3)
    assert all(asked.body["logprobs"] is True for asked in endpoint.asked)


def test_an_endpoint_that_tells_no_probability_is_told_so(llm: LLM) -> None:
    with pytest.raises(ValueError, match="weight="):
        weighted_vote(llm, QUESTION, k=2)


def longer(sample: Sample) -> float:
    return len(sample.text)


def test_weights_are_anybodys(llm: LLM, said: Said) -> None:
    said.of = lambda prompt, index: ["a", "a", "bbb"][index]
    assert weighted_vote(llm, QUESTION, k=3, weight=longer).answer == "bbb"
    with pytest.raises(ValueError, match="0 or more"):
        weighted_vote(llm, QUESTION, k=3, weight=lambda sample: -1.0)
    with pytest.raises(TypeError, match="finite"):
        weighted_vote(llm, QUESTION, k=3, weight=lambda sample: float("nan"))


def test_the_best_of_n_is_that_with_the_highest_score(llm: LLM, said: Said) -> None:
    said.of = lambda prompt, index: ["-5", "-2", "-2", "?", "-9"][index]
    r = best_of_n(llm, QUESTION, n=5, score=float, parse=number)
    assert (r.answer, r.score, r.margin, r.tie, r.counts) == (-2, -2.0, 3, False, {-5: 1, -2: 2, -9: 1})
    assert [sample.score for sample in r.samples] == [-5, -2, -2, None, -9]


def test_a_score_may_ask_a_model(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: "ab"[index] if index >= 0 else str(ord(prompt[-1]))

    async def quality(answer: str) -> float:
        return float((await llm(f"rate {answer}")).text)

    r = best_of_n(llm, QUESTION, n=2, score=quality)
    assert (r.answer, r.score, r.n_calls) == ("b", 98.0, 4)
    assert len(endpoint.asked) == 4


def test_a_judge_that_is_a_vote_is_counted_with_it(llm: LLM, said: Said, endpoint: FakeEndpoint) -> None:
    said.of = lambda prompt, index: "AB"[index] if prompt == "Which one?" else "yes" if "A" in prompt else "no"

    async def by_three(question: Any, answer: str) -> bool:
        return (await vote(llm, f"is {answer} right?", k=3)).answer == "yes"

    def by_two(question: Any, answer: str) -> bool:
        return vote(llm, f"is {answer} right?", k=2).answer == "yes"

    r = filter_vote(llm, QUESTION, k=2, judge=by_three)
    assert (r.answer, r.n_passed, r.n_calls, len(endpoint.asked)) == ("A", 1, 8, 8)
    r = filter_vote(llm, QUESTION, k=2, judge=by_two)
    assert (r.answer, r.n_calls, r.nano_usd) == ("A", 6, 2 * (2 + 2) * 1000 + 4 * (3 + 2) * 1000)


def test_what_a_vote_asks_is_one_job_its_judges_with_it(llm: LLM, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from exoflow.llm.calls import calling

    jobs: list[tuple[str, str]] = []
    plain = calling._turn

    async def turn(how: Any, question: Any, who: Any, call: Any) -> Any:
        jobs.append((call.id, who.job))
        return await plain(how, question, who, call)

    monkeypatch.setattr(calling, "_turn", turn)
    judge = judges_of(llm)["awaits"]

    @flow(version="1")
    def two() -> None:
        filter_vote.map(repeat(llm), [QUESTION, QUESTION], k=2, judge=judge).result()

    two.options(run_id="jobs").run()
    assert Counter(job for _, job in jobs) == {"jobs/filter_vote#0/": 4, "jobs/filter_vote#1/": 4}
    assert len({call for call, _ in jobs}) == 8


def test_another_parser_under_the_same_id_is_another_run_and_other_prices_are_not(
    llm: LLM, endpoint: FakeEndpoint
) -> None:
    ask = vote.options(run_id="same")
    r = ask.run(llm, QUESTION, k=2, parse=choice("AB"))
    dearer = LLM(endpoint.url, model="fake", prices=Prices(usd_per_million_in=100, usd_per_million_out=200))
    assert ask.run(dearer, QUESTION, k=2, parse=choice("AB")) == r
    for other in ({"parse": choice("ABC")}, {"k": 3}, {"temperature": 0.1}):
        with pytest.raises(exoflow.RunMismatch):
            ask.run(llm, QUESTION, **({"k": 2, "parse": choice("AB")} | other))
    assert len(endpoint.asked) == 2


def test_an_async_parser_abstains_as_a_sync_one_does(llm: LLM, said: Said) -> None:
    said.of = in_turn("12x")

    async def parse(text: str) -> int:
        return int(text)

    r = vote(llm, QUESTION, k=3, parse=parse)
    assert (r.counts, r.n_valid, r.n_calls) == ({1: 1, 2: 1}, 2, 3)
    assert r.samples[2].why.startswith("ValueError")


def test_a_lambda_that_gives_a_coroutine_is_told_how_to_be_written(llm: LLM) -> None:
    judge = judges_of(llm)["awaits"]
    with pytest.raises(TypeError, match="async def"):
        filter_vote(llm, QUESTION, k=2, judge=lambda *asked: judge(*asked))  # noqa: PLW0108 -- it is about lambdas


def test_one_answer_alone_is_ahead_of_all_others(llm: LLM) -> None:
    r = best_of_n(llm, QUESTION, n=3, score=len)
    assert (r.answer, r.margin, r.score, r.tie) == ("A", float("inf"), 1.0, False)


def test_only_vote_asks_on(llm: LLM) -> None:
    with pytest.raises(ValueError, match="vote's"):
        best_of_n(llm, QUESTION, score=len, ties="extend")


def test_answers_that_are_no_keys_are_counted_by_theirs(llm: LLM, said: Said) -> None:
    said.of = in_turn("AAB")
    r = vote(llm, QUESTION, k=3, parse=lambda text: ([text],))
    assert r.answer == (["A"],)
    assert sorted(r.counts.values()) == [1, 2]


def unlike(answer: object) -> Any:
    return [answer]


def immense(answer: object) -> int:
    return 10**400


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda llm: vote(llm, QUESTION, parse="ABCD"), "parse='ABCD' must be a function"),
        (lambda llm: vote(llm, QUESTION, equivalence=5), "equivalence=5 must be a function"),
        (lambda llm: filter_vote(llm, QUESTION, judge=True), "judge=True must be a function"),
        (lambda llm: weighted_vote(llm, QUESTION, weight=1), "weight=1 must be a function"),
        (lambda llm: best_of_n(llm, QUESTION, score=1), "score=1 must be a function"),
        (lambda llm: adaptive_vote(llm, QUESTION, stop=5), r"stop=5 must be a rule, as BetaStop\(.95\)"),
        (lambda llm: adaptive_vote(llm, QUESTION, stop=BetaStop), "must be a rule"),
        (lambda llm: vote("gpt", QUESTION), r"llm='gpt' must be an LLM\(...\)"),
    ],
)
def test_what_could_not_be_used_is_refused_before_anything_is_paid_for(
    wrong: Callable[[LLM], Any], message: str, endpoint: FakeEndpoint, llm: LLM
) -> None:
    with pytest.raises(TypeError, match=message):
        wrong(llm)
    assert not endpoint.asked


def test_keys_and_scores_that_are_none_say_what_they_must_be(llm: LLM) -> None:
    with pytest.raises(TypeError, match=r"equivalence gave \['A'\] for 'A': it must give a key that is hashable"):
        vote(llm, QUESTION, equivalence=unlike)
    with pytest.raises(TypeError, match=r"score gave 10.*it must give a finite number"):
        best_of_n(llm, QUESTION, score=immense)
