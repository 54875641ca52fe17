"""A model that was loaded, and what it knows of itself."""

from __future__ import annotations

from dataclasses import dataclass

from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.text import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights on their device, and the tokenizer that belongs to them.

    Attributes:
        name: as it was asked for.
        max_context: tokens that it was trained for.
    """

    name: str
    decoder: Decoder
    tokenizer: Tokenizer
    max_context: int
