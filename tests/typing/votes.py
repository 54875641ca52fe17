"""Votes as a user writes them, sync and async."""

from itertools import repeat
from typing import assert_type

from exoflow import Ref, Refs, flow
from exoflow.llm import (
    LLM,
    AdaptiveVote,
    BetaStop,
    Budget,
    FilterVote,
    Vote,
    adaptive_vote,
    choice,
    filter_vote,
    laws,
    vote,
)

llm = LLM("http://localhost:8000/v1", model="m")


def passes(question: object, answer: str) -> bool:
    return bool(answer)


@flow
def in_a_sync_flow() -> str:
    assert_type(vote(llm, "q", k=3, parse=choice("AB"), temperature=0.7), Vote)
    assert_type(vote.submit(llm, "q"), Ref[Vote])
    assert_type(vote.map(repeat(llm), ["q"]), Refs[Vote])
    assert_type(filter_vote(llm, "q", judge=passes).n_passed, int)
    return str(vote(llm, prompt="q").answer)


@flow
async def in_an_async_flow() -> int:
    assert_type(await vote(llm, "q"), Vote)
    assert_type(await filter_vote(llm, "q", judge=passes), FilterVote)
    assert_type(await adaptive_vote(llm, "q", stop=BetaStop(0.95) | Budget(usd=1)), AdaptiveVote)
    return (await vote.submit(llm, "q")).n_valid


assert_type(vote.options(run_id="x").run(llm, "q"), Vote)
assert_type(laws.best_k(0.5, 0.85, 0.4), float)
