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
    from exoflow.llm.planning import Log, collect, curve, fit_scaling, plan

__all__ = [
    "LLM",
    "AdapterRef",
    "Answer",
    "Engine",
    "EngineConfig",
    "EngineSpec",
    "Event",
    "Log",
    "Output",
    "Prices",
    "SamplingParams",
    "Usage",
    "collect",
    "curve",
    "fit_scaling",
    "plan",
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
"""Imported when they are first asked for: torch, and what flows are made of."""


def __getattr__(name: str) -> object:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HEAVY[name]), name)
