"""What a piece of a flow asks models for, kept together: a judge is a part of its vote, counted and queued with it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from exoflow.driver.body import current_body
from exoflow.refs import Ref

if TYPE_CHECKING:
    from exoflow.driver.body import Body

C = TypeVar("C", bound=Ref[Any] | Coroutine[Any, Any, Any])


class Meter:
    """The calls of models, and the votes, that a body has made in a block."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.refs: list[Ref[Any]] = []
        self.results: list[Any] = []
        """Of those that were awaited where they were made."""
        self.failed = 0
        """So many of them have none."""


_meter: ContextVar[Meter | None] = ContextVar("exoflow_llm_meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """A block of a child flow whose calls are counted, and are of the job of the flow that it is a child of."""
    body = current_body()
    assert body is not None
    meter = Meter(body)
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def noted(call: C) -> C:
    """A call of a model, or a vote, that is being made in a flow: if its body is metered, it is told."""
    meter = _meter.get()
    if meter is None or meter.body is not current_body():
        return call
    if isinstance(call, Ref):
        meter.refs.append(call)
        return call
    return cast(C, _awaited(meter, call))


def job_of(body: Body) -> str:
    """What the calls of a body are a part of, for a scheduler: the flow that made them."""
    meter = _meter.get()
    if meter is not None and meter.body is body and body.owner is not None:
        body = body.owner.body
    return f"{body.run_id}/{body.scope.path}"


async def _awaited(meter: Meter, call: Coroutine[Any, Any, Any]) -> Any:
    try:
        result = await call
    except Exception:
        meter.failed += 1
        raise
    meter.results.append(result)
    return result
