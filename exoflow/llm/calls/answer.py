"""What a model answered, and what that cost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from exoflow.llm.calls.forms import parsed
from exoflow.llm.calls.prices import usd
from exoflow.llm.engine.request import Usage
from exoflow.model import Bill

_NOTHING = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it: it may be none."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer, and how likely it was."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. What a flow gets, and what is recorded."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    """As the endpoint says: ``"length"`` where ``max_tokens`` cut it off, ``"tool_calls"``, ``"content_filter"`` …"""
    usage: Usage = _NOTHING
    nano_usd: int = 0
    """Billionths of a dollar, by the prices of the ``LLM``; 0 where it has none."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    seconds: float = 0.0
    """From when it was sent, waits between tries included."""
    maybe_rebilled: bool = False
    """It may have been paid for more than once: an earlier try was sent, and what became of it is unknown."""
    is_estimated: bool = False
    """The endpoint did not say what was used, or nothing that can be true: ``usage`` is an estimate."""
    refusal: str | None = None
    """Why the model would not answer, where it says so."""
    model: str = ""
    """Which one answered, as the endpoint says."""
    form: object = field(default=None, repr=False)
    """What was given as ``response_format``."""

    @property
    def cost(self) -> Decimal:
        """In USD, exactly."""
        return usd(self.nano_usd)

    @property
    def parsed(self) -> Any:
        """The text as the ``response_format`` that was asked for; None where none was.

        Raises:
            WrongForm: it is not that.
        """
        return parsed(self.text, self.form, self.finish_reason, self.refusal)

    def __reduce__(self) -> tuple[Any, ...]:
        # By its class, and in this order for ever: a dataclass's own way takes longer than all else of a record.
        first = self.text, self.tool_calls, self.finish_reason, self.usage, self.nano_usd, self.logprobs, self.seconds
        return Answer, (*first, self.maybe_rebilled, self.is_estimated, self.refusal, self.model, self.form)

    def __await__(self) -> Generator[Any, Any, Answer]:
        """In an async flow ``await llm(...)`` gives it, and a type checker sees here that it may."""
        yield from ()
        return self


def bill_of(answer: Answer) -> Bill:
    """What it cost, as it is recorded beside it."""
    usage = answer.usage
    counts = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    return Bill(*counts, answer.nano_usd, answer.maybe_rebilled)
