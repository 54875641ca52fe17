"""Task libraries for work with language models: calls of any endpoint, votes and their worth, the multi-LoRA engine.

Rooms, each of which knows those below it; ``docs/architecture.md`` has a picture.
    planning, voting    what samples and votes are worth; votes
    library_flow        flows that sync and async callers call alike
    laws                what a vote is worth, in formulas
    calls, fair         calls, recorded and paid for once; whose turn it is, and who may spend what
    durable             the engine in a flow
    engine, server      the multi-LoRA engine, over HTTP; ``bench`` measures both
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from exoflow.extras import needed
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.request import AdapterRef, Event, Output, SamplingParams, Usage

if TYPE_CHECKING:
    from exoflow.llm.calls import LLM, Answer, Prices
    from exoflow.llm.durable import EngineSpec
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.engine.models.sources import find_model
    from exoflow.llm.fair.scheduler import FairScheduler, Tenant
    from exoflow.llm.planning import Log, collect, curve, fit_scaling, plan
    from exoflow.llm.voting import (
        AdaptiveVote,
        BestOf,
        BetaStop,
        Budget,
        FilterVote,
        Margin,
        Vote,
        WeightedVote,
        Window,
        adaptive_vote,
        best_of_n,
        choice,
        filter_vote,
        first_line,
        json_field,
        number,
        regex,
        vote,
        weighted_vote,
    )

__all__ = [
    "LLM",
    "AdapterRef",
    "AdaptiveVote",
    "Answer",
    "BestOf",
    "BetaStop",
    "Budget",
    "Engine",
    "EngineConfig",
    "EngineSpec",
    "Event",
    "FairScheduler",
    "FilterVote",
    "Log",
    "Margin",
    "Output",
    "Prices",
    "SamplingParams",
    "Tenant",
    "Usage",
    "Vote",
    "WeightedVote",
    "Window",
    "adaptive_vote",
    "best_of_n",
    "choice",
    "collect",
    "curve",
    "filter_vote",
    "find_model",
    "first_line",
    "fit_scaling",
    "json_field",
    "number",
    "plan",
    "regex",
    "vote",
    "weighted_vote",
]

_HOMES = {
    "calls": "Answer LLM Prices",
    "durable": "EngineSpec",
    "engine.engine": "Engine",
    "engine.models.sources": "find_model",
    "fair.scheduler": "FairScheduler Tenant",
    "planning": "Log collect curve fit_scaling plan",
    "voting": (
        "AdaptiveVote BestOf BetaStop Budget FilterVote Margin Vote WeightedVote Window adaptive_vote best_of_n choice "
        "filter_vote first_line json_field number regex vote weighted_vote"
    ),
}
"""Which module a name comes from that is imported when it is first asked for: torch, and what flows are made of."""

_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed(name, "llm"):
        return getattr(import_module(f"exoflow.llm.{_HOME[name]}"), name)
