"""Models: where they come from, and what they compute."""

from __future__ import annotations

from exoflow.llm.engine.models.loading import load_model
from exoflow.llm.engine.models.sources import find_model

__all__ = ["find_model", "load_model"]
