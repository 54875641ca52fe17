"""Votes on the built-in engine: samples have chance of their own, and it is a call's, whichever process makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import exoflow
from exoflow.llm import LLM, vote

if TYPE_CHECKING:
    from exoflow.llm import Engine

ASKED = {"prompt": "the sea", "k": 6, "ignore_eos": True}


def texts(llm: LLM, store: Path, run_id: str = "run") -> list[str]:
    exoflow.configure(store=str(store))
    r = vote.options(run_id=run_id).run(llm, **ASKED)
    assert r.usage.completion_tokens == 6 * 8
    return [sample.text for sample in r.samples]


def test_samples_differ_and_a_call_that_is_made_again_says_the_same(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    first = texts(LLM(open_engine(), max_tokens=8), tmp_path / "one")
    assert len(set(first)) == 6, "each has a seed of its own"
    again = open_engine()
    llm = LLM(again, max_tokens=8)
    other = texts(llm, tmp_path / "two", "another run")
    assert not set(other) & set(first), "an engine whose own chance begins anew says nothing twice"
    assert texts(llm, tmp_path / "three") == first, "and the same call says the same, whatever was asked before"


def test_the_samples_of_a_vote_share_their_prompt(open_engine: Callable[..., Engine], tmp_path: Path) -> None:
    exoflow.configure(store=str(tmp_path / "store"))
    llm = LLM(open_engine(), max_tokens=8)
    r = vote(llm, prompt="a question that is longer than a page or two of eight tokens each", k=6)
    assert sum(sample.usage.cached_tokens > 0 for sample in r.samples) >= 5, "its keys and values are computed once"
