"""What an endpoint says that it has used, believed only where it can be true."""

from __future__ import annotations

from collections.abc import Mapping

from exoflow.llm.calls.question import BYTES_PER_TOKEN, Question
from exoflow.llm.engine.request import Usage

_TEMPLATE = 20_000
"""Tokens that an endpoint may add to a prompt by itself."""
_MOST = 10_000_000
"""Tokens of any answer."""


def usage_of(told: object, question: Question, text: str) -> tuple[Usage, bool]:
    """What was used, and whether a part of it had to be estimated: it was not told, or cannot be true.

    Args:
        told: The field ``usage`` of an answer, whatever it is.
        text: All that was answered.
    """
    fields = told if isinstance(told, Mapping) else {}
    most_in = _MOST if question.has_other_than_text else 4 * question.most_input_tokens + _TEMPLATE
    most_out = question.max_output_tokens or _MOST
    asked = _count(fields.get("prompt_tokens"), 1 if question.likely_input_tokens > 1 else 0, most_in)
    answered = _count(fields.get("completion_tokens"), 1 if text else 0, most_out)
    cached, is_odd = 0, False
    details = fields.get("prompt_tokens_details")
    if isinstance(details, Mapping) and details.get("cached_tokens") is not None:
        found = _count(details["cached_tokens"], 0, asked if asked is not None else 0)
        cached, is_odd = found or 0, found is None
    estimated = asked is None or answered is None or is_odd
    likely_out = min(most_out, max(len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN, 1 if text else 0))
    return Usage(
        question.likely_input_tokens if asked is None else asked, likely_out if answered is None else answered, cached
    ), estimated


def _count(value: object, least: int, most: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        return None
    return value
