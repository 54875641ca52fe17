"""What the interface of calls, votes, fair shares and plans is to be, line by line: each name and parameter, used."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from exoflow import flow, gather
from exoflow.llm import (
    LLM,
    AdaptiveVote,
    Answer,
    BestOf,
    BetaStop,
    Budget,
    EngineSpec,
    FairScheduler,
    FilterVote,
    Log,
    Margin,
    Prices,
    Tenant,
    Vote,
    WeightedVote,
    Window,
    adaptive_vote,
    best_of_n,
    choice,
    collect,
    curve,
    filter_vote,
    fit_scaling,
    laws,
    plan,
    vote,
    weighted_vote,
)
from exoflow.llm.fair import FCFS, VTC, Arrival, BatchCost, Linear, simulate
from exoflow.llm.voting import Sample
from exoflow.testing import Asked, FakeEndpoint

MESSAGES = [{"role": "user", "content": "Which of A, B, C and D?"}]
ROWS = [{"id": "one", "prompt": "A or B?", "answer": "A"}, {"id": "two", "messages": MESSAGES, "answer": "B"}]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(says) as found:
        yield found


@pytest.fixture
def llm(endpoint: FakeEndpoint) -> LLM:
    sched = FairScheduler(policy="vtc", slots=64, cost=Linear(1, 2), charge="reserve", group_by=("tenant", "user"),
                          tenants={"acme": Tenant(weight=2, priority=0, budget_usd=50)})  # fmt: skip
    return LLM(endpoint.url, model="any", scheduler=sched, max_tokens=256,
               prices=Prices(usd_per_million_in=.15, usd_per_million_out=.6), rpm=6000, tpm=1_000_000)  # fmt: skip


def says(asked: Asked) -> str:
    return "AAB"[crc32(asked.key.encode()) % 3]


def passes(question: object, answer: str) -> bool:
    return answer == "A"


def confidence(sample: Sample) -> float:
    return 1.0 + sample.index


def quality(answer: str) -> float:
    return float(ord(answer))


@flow
def calls(llm: LLM) -> list[Answer]:
    one = llm(MESSAGES, temperature=0.7)
    other = llm.options(labels={"user": "ann"}).submit(prompt="It is", tools=[], response_format={"type": "text"})
    return [one, other.result(), *llm.map([MESSAGES, "Which?"]).result()]


@flow
def votes(llm: LLM) -> tuple[Vote, FilterVote, list[AdaptiveVote], WeightedVote, BestOf]:
    stops = [BetaStop(0.95), Window(5), Margin(3), Budget(usd=0.001)]
    adaptive = [adaptive_vote.submit(llm, MESSAGES, stop=stop, max_k=40, parallel=4) for stop in stops]
    return (
        vote(llm, MESSAGES, k=11, parse=choice("ABCD")),
        filter_vote(llm, MESSAGES, k=10, judge=passes),
        gather(adaptive).result(),
        weighted_vote(llm, MESSAGES, k=11, weight=confidence),
        best_of_n(llm, MESSAGES, n=8, score=quality),
    )


@flow
async def votes_awaited(llm: LLM) -> list[str]:
    first = await vote(llm, prompt="It is", k=3, parse=choice("ABCD"))
    return [first.answer, *(each.answer for each in await vote.map(repeat(llm), [MESSAGES, MESSAGES], k=3))]


def test_a_call_in_a_flow_is_recorded_and_has_all_its_fields(llm: LLM, tmp_path: Path) -> None:
    run = calls.options(labels={"tenant": "acme"}, store=str(tmp_path), run_id="calls").run
    found = run(llm)
    for answer in found:
        assert {answer.text, answer.parsed, answer.tool_calls} <= {"A", "B", None, ()}
        assert answer.usage.completion_tokens and answer.cost > 0
    assert run(llm) == found
    assert llm.how.scheduler is not None and llm.how.scheduler.stats()["acme"].calls == 4
    llm.how.scheduler.update("acme", Tenant(weight=1.5))


def test_each_vote_tells_all_that_votes_tell(llm: LLM, tmp_path: Path) -> None:
    plain, filtered, adaptive, weighted, best = votes.options(store=str(tmp_path), run_id="votes").run(llm)
    for r in (plain, filtered, *adaptive, weighted, best):
        assert r.answer in ("A", "B") and r.counts and r.margin >= 0 and r.tie in (True, False)
        assert 0 < r.n_valid <= len(r.samples) and r.usage.prompt_tokens and r.cost > 0
    assert all(r.n_counted <= r.n_sampled <= r.n_counted + 3 for r in adaptive)


async def test_votes_are_awaited_and_mapped_in_an_async_flow(llm: LLM, tmp_path: Path) -> None:
    assert len(await votes_awaited.options(store=str(tmp_path), run_id="awaited").run(llm)) == 3


def test_a_vote_outside_of_flows_is_a_run(llm: LLM, tmp_path: Path) -> None:
    run = vote.options(run_id="monday", store=str(tmp_path)).run
    assert run(llm, MESSAGES, k=3) == run(llm, MESSAGES, k=3)


def test_an_llm_is_frozen_and_pickled_without_what_is_live(llm: LLM) -> None:
    copy = pickle.loads(pickle.dumps(llm))
    assert (copy.endpoint, copy.model) == (llm.endpoint, llm.model)
    with pytest.raises(AttributeError):
        copy.model = "another"
    assert LLM(EngineSpec("smollm2"), model="pirate").model == "pirate"


def test_a_log_is_collected_and_planned_with(llm: LLM, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    figures = pytest.importorskip("matplotlib.figure")
    log = collect.options(store=str(tmp_path), run_id="log").run(llm, ROWS, n=20, parse=choice("ABCD"))
    log.write(tmp_path / "log.jsonl")
    assert Log.read(tmp_path / "log.jsonl") == log
    fields = {"id", "index", "text", "answer", "correct", "tokens", "usd", "seconds"}
    assert all(fields <= sample.as_row().keys() for sample in log)

    c = curve(log, ks=range(1, 21), ci="cluster-bootstrap")
    assert {type(c.plot(x=x)) for x in ("calls", "usd")} == {figures.Figure}
    m = fit_scaling(log)
    for rule in ("max", "1se"):
        k, (low, high) = m.best_k(rule=rule)
        assert 1 <= low <= k <= high
    table = plan(log, value_per_correct=0.01, usd_per_call=0.001)
    best = table.best
    assert best in table.rows and best.accuracy and best.calls and best.usd and best.gain_range.low <= best.gain


def test_a_simulation_has_all_its_figures() -> None:
    arrivals = [Arrival(0.1 * number, "ab"[number % 2], 257, 256) for number in range(20)]
    policies: list[Any] = [VTC(Linear(1, 2), weights={"a": 2, "b": 1}, predict=None), FCFS()]
    for policy in policies:
        r = simulate(arrivals, policy, BatchCost.a10g(), memory_tokens=10_000)
        assert r.max_difference >= r.mean_difference >= 0 and r.tokens_per_s > 0
        assert r.service("a", 0.0, 1e9) == 10 * (257 + 2 * 256) and len(r.first_token_s("b")) == 10
        assert r.table().startswith("| client")
    pytest.importorskip("matplotlib")
    assert r.plot()


def test_the_laws_take_what_they_are_said_to_take() -> None:
    assert laws.binary(0.5, 0.85, 0.4, 3) == pytest.approx(0.645625)
    assert laws.best_k(0.5, 0.85, 0.4) == 3 and laws.best_k(0.9, 0.6, 0.3) == math.inf
    assert laws.plurality([0.4, 0.35, 0.25], 3)[0] == pytest.approx(0.422)
    assert laws.u_statistic({"A": 6, "B": 3}, 9, "A") == 1
