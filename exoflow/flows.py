"""Flows: functions whose bodies survive the process that runs them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from exoflow import codec, settings
from exoflow.attempts import current_attempt
from exoflow.codec.mainfile import is_finding_code
from exoflow.declaration import flow_spec
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.body import Body, current_body
from exoflow.driver.runtime import Runtime
from exoflow.driver.spec import FlowSpec
from exoflow.driver.sync_body import SyncBody
from exoflow.errors import RunMismatch
from exoflow.hosting import adopt, is_first, run_here, run_here_async
from exoflow.naming import key_text
from exoflow.options import FlowOptions, RunOptions, check_run_options
from exoflow.refs import Ref, Refs
from exoflow.running import Run
from exoflow.tasks import Callee

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.driver.records import Start

__all__ = ["AnyFlow", "AsyncFlow", "Flow", "adopt", "defined", "flow", "run_here", "run_here_async"]

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")

defined: dict[str, FlowSpec] = {}
"""The flows of this process by name; the newest where there are several."""


class AnyFlow(Callee[P, R, X]):
    """Of sync and async flows, what does not depend on which."""

    def __init__(self, spec: FlowSpec, options: RunOptions) -> None:
        super().__init__(spec.function)
        self._spec = spec
        self._options = options

    @property
    def name(self) -> str:
        """By which its runs are listed, and its code is found again."""
        return self._spec.name

    def options(self, **options: Unpack[RunOptions]) -> Self:
        """The same flow with options for a run: ``f.options(run_id="monday").run(x)``.

        With an id that was used before: broken off, the run goes on; ended, its stored result or its error; live in
        this process, the run is joined.

        Raises:
            TypeError, ValueError: there is no such option, or its value is wrong.
        """
        check_run_options(self.name, options)
        spec = self._spec
        if "key" in options:
            assert spec.task is not None
            spec = replace(spec, task=replace(spec.task, key=key_text(options["key"])))
        other = copy(self)  # its function is not looked at again: a gateway does this for each request
        other._spec, other._options = spec, cast(RunOptions, {**self._options, **options})
        return other

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run in the background.

        Raises:
            RuntimeError: in a flow or a task.
            RunIsLive: another process has the run of this id.
            RunMismatch: the run of this id has other inputs.
        """
        self._outside("start")
        execution = self._begin(args, kwargs)
        if is_first(execution):
            execution.start()
        return Run(execution.run_id, execution.values.store, execution)

    def _begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Execution:
        self._check(args, kwargs)
        references = codec.find_references(args, kwargs)
        if references:
            raise TypeError(f"{references[0]!r} means nothing outside its flow: give {self.name} the value")
        store = settings.store_of(self._options.get("store"))
        executors = settings.executors_of(store)
        executor = self._options.get("executor") or self._spec.executor
        cwd = os.getcwd()
        return Runtime.of(store).begin(
            self._spec,
            args,
            kwargs,
            run_id=self._options.get("run_id"),
            labels=self._options.get("labels", {}),
            executor=executors(settings.executor_of(executor, cwd)),
            executors=executors,
            cwd=cwd,
        )

    def _adopt(self, run_id: str) -> Execution:
        self._outside("resume")
        return adopt(run_id, self._code_of, self._options.get("store"), self._options.get("executor"))

    def _code_of(self, start: Start) -> FlowSpec:
        if start.flow != self.name:
            error = RunMismatch(
                f"the run {start.run_id} is one of {start.flow}, not of {self.name}: exoflow.resume({start.run_id!r}) "
                "finds its code"
            )
            error.run_id = start.run_id
            raise error
        return self._spec

    def _outside(self, word: str) -> None:
        body = current_body()
        if body is not None:
            raise RuntimeError(
                f"{self.name}.{word}(...) in the flow {body.flow.name}: a flow calls another as a child, by "
                f"{_called(self, body)} or .submit(...)"
            )
        if current_attempt() is not None:
            raise self._in_task()
        if is_finding_code():
            raise RuntimeError(
                f"{self.name}.{word}(...) runs when its file is imported, and another process imports it to find its "
                f"tasks: put the call under `if __name__ == '__main__':`"
            )

    def _in_task(self) -> RuntimeError:
        return RuntimeError(
            f"the flow {self.name} is called in a task: call it in the flow's body, as a child; "
            f"{self.name}.function(...) runs the plain function"
        )

    def _submit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ref[R]:
        body = current_body()
        if body is None:
            if current_attempt() is not None:
                raise self._in_task()
            raise RuntimeError(
                f"{self.name}.submit(...) outside a flow: it makes a child flow. {self.name}.start(...) starts a run"
            )
        self._check_child(args, kwargs)
        handle = body.submit_child(self._spec, args, kwargs)
        return Ref(handle.call_id, handle)

    def _map(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Refs[R]:
        if "key" in self._options:
            raise ValueError(
                "options(key=...).map would give every call one key: write .options(key=x).submit(x) for each"
            )
        return super()._map(iterables, kwargs)

    def _check_child(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = [name for name in self._options if name != "key"]
        if given:
            raise RuntimeError(
                f"{self.name}.options({given[0]}=...) is for a run, and a child flow is part of its parent's: "
                "it has the option key only"
            )
        self._check(args, kwargs)


class Flow(AnyFlow[P, R, R], Generic[P, R]):
    """A function whose body survives its process. ``f(x)`` runs it, or in another flow makes it a child."""

    @property
    def function(self) -> Callable[P, R]:
        """The plain function."""
        return self._function

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it, and return its result once that is durable.

        Raises:
            RuntimeError: in a flow or a task.
            RunIsLive: another process has the run of this id.
            RunMismatch: the run of this id has other inputs, or changed code would be mixed with recorded results.
            RunCancelled: the run was cancelled.
            InDoubt: nobody knows whether an irrevocable effect happened.
            KeyboardInterrupt: Ctrl-C; the run can be resumed.
            Exception: the flow's own error.
        """
        self._outside("run")
        return cast(R, run_here(self._begin(args, kwargs)))

    def resume(self, run_id: str) -> R:
        """Go on with a run of this flow, in this process.

        Raises:
            RunNotFound: there is none; the message names the nearest id.
            RunIsLive, RunMismatch, RunCancelled, InDoubt, KeyboardInterrupt, Exception: as ``run``.
        """
        return cast(R, run_here(self._adopt(run_id)))

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        body = current_body()
        if body is None:
            return self.run(*args, **kwargs)
        if isinstance(body, SyncBody):
            self._check_child(args, kwargs)
            return body.child(self._spec, args, kwargs)
        raise RuntimeError(
            f"{self.name}(...) would block the event loop of the async flow {body.flow.name}: "
            f"write `await {self._function.__name__}.submit(...)`"
        )


class AsyncFlow(AnyFlow[P, R, Coroutine[Any, Any, R]], Generic[P, R]):
    """A coroutine function whose body survives its process: ``await f(x)``, or ``f.start(x).result()`` in sync code."""

    @property
    def function(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The plain function."""
        return self._function

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it on the running event loop, and return its result once that is durable. Raises as ``Flow.run``."""
        self._outside("run")
        return cast(R, await run_here_async(self._begin(args, kwargs)))

    async def resume(self, run_id: str) -> R:
        """Go on with a run of this flow, on the running event loop. Raises as ``Flow.resume``."""
        return cast(R, await run_here_async(self._adopt(run_id)))

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        body = current_body()
        if body is None:
            if current_attempt() is not None:
                raise self._in_task()
            self._check(args, kwargs)
            return self.run(*args, **kwargs)
        if isinstance(body, AsyncBody):
            self._check_child(args, kwargs)
            return body.child(self._spec, args, kwargs)
        raise RuntimeError(
            f"{self.name} is async, and the flow {body.flow.name} is not: "
            f"write `{self._function.__name__}.submit(...).result()`"
        )


class FlowDecorator(Protocol):
    """What ``@flow(...)`` is."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is the narrower case, and comes first
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncFlow[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(  # type: ignore[overload-overlap]  # as above
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncFlow[P, R]: ...


@overload
def flow(function: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(**options: Unpack[FlowOptions]) -> FlowDecorator: ...


def flow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a flow, with or without options.

    Its body is replayed after a crash, and must make the same calls as long as it gets the same answers: time, chance,
    files and the network belong in tasks.

    Args:
        function: What the decorator stands on; sync or async.
        options: See ``FlowOptions``.

    Raises:
        TypeError, ValueError: an option is unknown or wrong.
    """
    if function is None:
        return functools.partial(_made, options=cast(FlowOptions, options))
    if options:
        raise TypeError("write @flow(option=...) above the function")
    return _made(function, FlowOptions())


def _made(function: Callable[..., Any], options: FlowOptions) -> Flow[..., Any] | AsyncFlow[..., Any]:
    if isinstance(function, Callee):
        raise TypeError(f"{function!r} is one already: @flow goes on a plain function")
    spec = flow_spec(function, options)
    defined[spec.name] = spec
    return AsyncFlow(spec, RunOptions()) if spec.is_async else Flow(spec, RunOptions())


def _called(flow: AnyFlow[..., Any, Any], body: Body) -> str:
    return f"`await {flow.name}(...)`" if body.is_async else f"`{flow.name}(...)`"
