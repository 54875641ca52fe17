"""Which answers a piece of a flow has asked for: so that a judge that asks a model is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exoflow.llm.calls.answer import Answer

    from exoflow.refs import Ref


class Meter:
    """The calls of models that were made in a block, in their order; answers where they were awaited at once."""

    def __init__(self) -> None:
        self.calls: list[Answer | Ref[Answer]] = []


_meter: ContextVar[Meter | None] = ContextVar("exoflow_llm_meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """A block whose calls of models are kept together."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def note_call(call: Answer | Ref[Answer]) -> None:
    """A call of a model was made, or has been answered; each is told once."""
    meter = _meter.get()
    if meter is not None:
        meter.calls.append(call)
