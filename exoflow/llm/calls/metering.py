"""Which answers a piece of a flow has asked for: so that a judge that asks a model is counted."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, overload

from exoflow.refs import Ref

if TYPE_CHECKING:
    from exoflow.llm.calls.answer import Answer


class Meter:
    """The calls of models that were made in a block."""

    def __init__(self) -> None:
        self.refs: list[Ref[Answer]] = []
        self.answers: list[Answer] = []
        """Of those that were awaited where they were made."""
        self.failed = 0
        """So many of them have no answer."""


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


@overload
def noted(call: Ref[Answer]) -> Ref[Answer]: ...


@overload
def noted(call: Coroutine[Any, Any, Answer]) -> Coroutine[Any, Any, Answer]: ...


def noted(call: Ref[Answer] | Coroutine[Any, Any, Answer]) -> Ref[Answer] | Coroutine[Any, Any, Answer]:
    """A call that is being made in a flow: if somebody keeps count, it is told."""
    meter = _meter.get()
    if meter is None:
        return call
    if isinstance(call, Ref):
        meter.refs.append(call)
        return call
    return _awaited(meter, call)


async def _awaited(meter: Meter, call: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        answer = await call
    except Exception:
        meter.failed += 1
        raise
    meter.answers.append(answer)
    return answer
