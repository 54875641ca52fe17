"""How an engine stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """How the engine stands. Adapters by name; the base model is None."""

    running: dict[str | None, int]
    waiting: dict[str | None, int]
    loading: dict[str | None, int]
    resident: int
    loads: int
    preemptions: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    pages: int
    free_pages: int
    reclaimable_pages: int
    adapter_pages: int
    page_bytes: int
    step_s: float
    """Of the last steps, on average."""
