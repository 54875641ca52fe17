"""Flows of a library: whoever writes a flow, sync or async, calls them in the words of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast

from exoflow import flows
from exoflow.declaration import flow_spec
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.body import current_body
from exoflow.hosting import run_beside, run_here_async
from exoflow.llm.calls.metering import noted
from exoflow.options import FlowOptions, RunOptions
from exoflow.refs import Ref

P = ParamSpec("P")
R = TypeVar("R")


class LibraryFlow(flows.AnyFlow[P, R, R], Generic[P, R]):
    """An async body for callers of both kinds: ``f(x)`` in a sync flow, ``await f(x)`` in an async one.

    The same outside of flows, with ``f.run(x)`` and ``f.resume(id)`` too: on an event loop they are awaited, elsewhere
    they wait. Types say R in both cases, so R is to have an ``__await__`` for type checkers.
    """

    @property
    def function(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The plain function."""
        return self._function

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it, and return its result once that is durable. Raises as ``Flow.run``."""
        self._outside("run")
        return cast(R, _ended(self._begin(args, kwargs)))

    def resume(self, run_id: str) -> R:
        """Go on with a run of this flow, in this process. Raises as ``Flow.resume``."""
        return cast(R, _ended(self._adopt(run_id)))

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        body = current_body()
        if body is None:
            return self.run(*args, **kwargs)
        self._check_child(args, kwargs)
        if body.is_async:
            return noted(cast(AsyncBody, body).child(self._spec, args, kwargs))
        return self._submit(args, kwargs).result()

    def _submit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ref[R]:
        return noted(super()._submit(args, kwargs))


def _ended(execution: Any) -> Any:
    if asyncio._get_running_loop() is None:
        return run_beside(execution)
    return run_here_async(execution)


def library_flow(function: Callable[P, Coroutine[Any, Any, R]]) -> LibraryFlow[P, R]:
    """Make a coroutine function a flow that both kinds of callers can call. Its results hold for all versions of it."""
    spec = flow_spec(function, FlowOptions(version="1"))
    flows.defined[spec.name] = spec
    return LibraryFlow(spec, RunOptions())
