"""Task libraries for work with language models: the multi-LoRA engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.request import AdapterRef, Event, Output, SamplingParams, Usage

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine

__all__ = ["AdapterRef", "Engine", "EngineConfig", "Event", "Output", "SamplingParams", "Usage"]


def __getattr__(name: str) -> object:
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from exoflow.llm.engine.engine import Engine  # torch: not before it is wanted

    return Engine
