"""Strands: who in a flow makes a call (I1). The body is one; each asyncio task under it is one, named by its place."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exoflow.driver.body import Body


class Strand:
    """Counts calls by task name, and children, in program order: the same in every replay."""

    __slots__ = ("body", "children", "counts", "name", "prefix")

    def __init__(self, body: Body, name: str) -> None:
        self.body = body
        self.name = name
        self.prefix = f"{body.scope.path}~{name}:" if name else body.scope.path
        self.counts: dict[str, int] = {}
        self.children = 0

    def child(self) -> Strand:
        name = f"{self.name}.{self.children}" if self.name else str(self.children)
        self.children += 1
        self.body.strands += 1
        return Strand(self.body, name)


current: contextvars.ContextVar[Strand | None] = contextvars.ContextVar("exoflow_strand", default=None)


def hook(loop: asyncio.AbstractEventLoop) -> None:
    """Name every asyncio task that a flow body creates on this loop, when it is created. To be called once a loop."""
    inner: Callable[..., Any] | None = loop.get_task_factory()

    def create(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        strand = current.get()
        if strand is not None:
            context = options.get("context") or contextvars.copy_context()
            context.run(current.set, strand.child())
            options["context"] = context
        if inner is not None:
            return inner(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(create)  # type: ignore[arg-type]  # its protocol cannot say that options are passed on
