"""Task libraries for work with language models: calls of any endpoint, and the multi-LoRA engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.request import AdapterRef, Event, Output, SamplingParams, Usage

if TYPE_CHECKING:
    from exoflow.llm.calls import LLM, Answer, Prices
    from exoflow.llm.durable import EngineSpec
    from exoflow.llm.engine.engine import Engine
<<<<<<< HEAD
    from exoflow.llm.planning import Log, collect, curve, fit_scaling, plan
=======
    from exoflow.llm.voting import (
        AdaptiveVote as AdaptiveVote,
        BestOf as BestOf,
        BetaStop as BetaStop,
        Budget as Budget,
        FilterVote as FilterVote,
        Margin as Margin,
        Vote as Vote,
        WeightedVote as WeightedVote,
        Window as Window,
        adaptive_vote as adaptive_vote,
        best_of_n as best_of_n,
        choice as choice,
        filter_vote as filter_vote,
        first_line as first_line,
        json_field as json_field,
        number as number,
        regex as regex,
        vote as vote,
        weighted_vote as weighted_vote,
    )
>>>>>>> vote

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
<<<<<<< HEAD
    "Log",
=======
    "FilterVote",
    "Margin",
>>>>>>> vote
    "Output",
    "Prices",
    "SamplingParams",
    "Usage",
<<<<<<< HEAD
    "collect",
    "curve",
    "fit_scaling",
    "plan",
=======
    "Vote",
    "WeightedVote",
    "Window",
    "adaptive_vote",
    "best_of_n",
    "choice",
    "filter_vote",
    "first_line",
    "json_field",
    "number",
    "regex",
    "vote",
    "weighted_vote",
>>>>>>> vote
]

_HEAVY = {
    "Answer": "exoflow.llm.calls",
    "Engine": "exoflow.llm.engine.engine",
    "EngineSpec": "exoflow.llm.durable",
    "LLM": "exoflow.llm.calls",
    "Log": "exoflow.llm.planning",
    "Prices": "exoflow.llm.calls",
    "collect": "exoflow.llm.planning",
    "curve": "exoflow.llm.planning",
    "fit_scaling": "exoflow.llm.planning",
    "plan": "exoflow.llm.planning",
}
_HEAVY |= dict.fromkeys(
    (
        "AdaptiveVote",
        "BestOf",
        "BetaStop",
        "Budget",
        "FilterVote",
        "Margin",
        "Vote",
        "WeightedVote",
        "Window",
        "adaptive_vote",
        "best_of_n",
        "choice",
        "filter_vote",
        "first_line",
        "json_field",
        "number",
        "regex",
        "vote",
        "weighted_vote",
    ),
    "exoflow.llm.voting",
)
"""Imported when they are first asked for: torch, and what flows are made of."""


def __getattr__(name: str) -> object:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HEAVY[name]), name)
