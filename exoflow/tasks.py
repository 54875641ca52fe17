"""Tasks: functions whose calls in a flow are durable."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from dataclasses import replace
from types import MethodType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from exoflow.attempts import current_attempt
from exoflow.context import PlainCall, plain_call
from exoflow.declaration import call_spec, is_method, task_spec
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.body import current_body
from exoflow.driver.life import live_bodies
from exoflow.driver.spec import TaskSpec
from exoflow.driver.sync_body import SyncBody
from exoflow.options import CallOptions, TaskOptions
from exoflow.refs import Ref, Refs
from exoflow.signatures import A, Calls, Q, Takes1

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class Callee(Calls[P, R, X]):
    """What a task and a flow share: they look like their function, and know what arguments fit it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(cast(Callable[..., Any], self), function)
        self._function = function
        self._looks_at(inspect.signature(function))

    def _looks_at(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        self._least = sum(each.default is each.empty for each in places)
        self._most = len(places)
        if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
            self._most = -1  # keywords have to be looked at in any case

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit, before anything is recorded."""
        if kwargs or not self._least <= len(args) <= self._most:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._function.__qualname__}{self._signature}: {error}") from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._function.__module__}.{self._function.__qualname__}>"


class AnyTask(Callee[P, R, X]):
    """Of sync and async tasks, what does not depend on which."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec.inside or spec.function)
        self._spec = spec
        self._pure = spec.note.effect is None and not spec.note.rollback
        self.is_method = is_method(self._function)
        """It stands in a class and takes the object: it is for actors."""
        self._object: object = None
        """On which it is called."""
        looks_back = [each for each in (spec.undo, spec.probe) if each is not None]
        self._looks_back = [(each, inspect.signature(each)) for each in looks_back]

    @property
    def name(self) -> str:
        """As it stands in the ids of its calls."""
        return self._spec.name

    @property
    def spec(self) -> TaskSpec:
        """What ``@task`` has made of its options."""
        return self._spec

    def bound(self, owner: object, spec: TaskSpec) -> Self:
        """The method of this object: its signature is without the first parameter."""
        other = copy(self)
        other._object = owner
        other._spec = spec
        other._looks_at(self._signature.replace(parameters=list(self._signature.parameters.values())[1:]))
        return other

    def _plainly_bound(self, owner: object) -> Self:
        """The method of a plain object."""
        function = MethodType(self._function, owner)
        other = self.bound(owner, replace(self._spec, function=function))
        other._function = function
        return other

    def _refuse_objects(self) -> None:
        """In a flow's body, only actors have methods that can be called durably."""
        if self.is_method and self._spec.actor is None:
            cls = self._function.__qualname__.rpartition(".")[0]
            what = (
                cls
                if self._object is None
                else f"this {cls}, which was made outside of the flow's body or is no actor,"
            )
            raise TypeError(
                f"{self._function.__qualname__} is a method, and a replay in another process has no {what} to call it "
                f"on: put @exoflow.actor on the class, and create it in the flow; or write a function"
            )

    def options(self, **options: Unpack[CallOptions]) -> Self:
        """The same task with other options for this call: ``t.options(retries=3).submit(x)``.

        ``key`` names the call, instead of its being the n-th of its task.

        Raises:
            TypeError, ValueError: there is no such option, or its value is wrong.
        """
        other = object.__new__(type(self))  # a copy without copy's ways about: this may be done for each call
        vars(other).update(vars(self), _spec=call_spec(self._spec, options))
        return other

    def _submit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ref[R]:
        body = current_body()
        if body is None:
            raise self._no_flow("submit")
        if self.is_method:
            self._refuse_objects()
        self._check(args, kwargs)
        handle = body.submit(self._spec, args, kwargs)
        return Ref(handle.call_id, handle)

    def _map(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Refs[R]:
        if current_body() is None:
            raise self._no_flow("map")
        if self._spec.key is not None:
            raise ValueError(
                f"options(key=...).map would give every call the key {self._spec.key!r}, and a key is one call's: "
                f"write [{self.name}.options(key=x).submit(x) for x in ...]"
            )
        return super()._map(iterables, kwargs)

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super()._check(args, kwargs)
        if kwargs:
            for function, signature in self._looks_back:
                try:
                    signature.bind("key", *args, **kwargs)
                except TypeError as error:
                    raise TypeError(
                        f"{self.name} may have to call {function.__qualname__}{signature} with the key and these "
                        f"arguments, keywords as they are: {error}"
                    ) from None

    def _no_flow(self, word: str) -> RuntimeError:
        if current_attempt() is not None:
            return RuntimeError(
                f"{self.name}.{word}(...) in a task: a task calls {self.name}(...), plainly, or not at all"
            )
        where = "from a thread that no flow knows" if live_bodies() else "outside a flow"
        return RuntimeError(
            f"{self.name}.{word}(...) {where}: it is for the body of a flow, in its own thread. "
            f"{self.name}(...) calls the plain function"
        )

    def _in_task(self) -> bool:
        """Whether the call is made in a task, and is the plain function; an effect would go unseen there."""
        attempt = current_attempt()
        if attempt is not None and not self._pure:
            raise self._unrecorded(f"in the task {attempt.task}")
        return attempt is not None

    def _unrecorded(self, where: str) -> RuntimeError:
        return RuntimeError(
            f"{self.name} has an effect, and is called {where}: nothing would be recorded. Call it in the flow's body; "
            f"{self.name}.function(...) if that is what you want"
        )

    def _before_plain(self) -> None:
        """A call that no flow records, though one is live, is most likely a mistake."""
        if not live_bodies():
            return
        if not self._pure:
            raise self._unrecorded("in a thread that no flow knows while one is live")
        warnings.warn(
            f"{self.name} is called in a thread that no flow knows while one is live: the plain function runs, and "
            f"nothing is recorded. {self.name}.function(...) says that this is what you want",
            RuntimeWarning,
            stacklevel=5,
        )


class Task(AnyTask[P, R, R], Generic[P, R]):
    """A function whose calls in a flow are durable. Outside any flow, and in a task, it is the function.

    In a flow ``t(x)`` gives the value, ``t.submit(x)`` a Ref at once, ``t.map(xs)`` a call for each element.
    """

    @property
    def function(self) -> Callable[P, R]:
        """The plain function."""
        return self._function

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...

    @overload
    def __get__(self: Takes1[A, Q], instance: A, owner: type, /) -> Task[Q, R]: ...

    def __get__(self, instance: Any, owner: type, /) -> Any:
        return self if instance is None or not self.is_method else self._plainly_bound(instance)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        body = current_body()
        if body is None:
            return self._call_plain(args, kwargs)
        if self.is_method:
            self._refuse_objects()
        if isinstance(body, SyncBody):
            self._check(args, kwargs)
            return body.call(self._spec, args, kwargs)
        raise RuntimeError(
            f"{self.name}(...) would block the event loop of the async flow {body.flow.name}: "
            f"write `await {self.name}.submit(...)`"
        )

    def _call_plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._in_task():
            return self._function(*args, **kwargs)
        self._before_plain()
        token = plain_call.set(PlainCall())
        try:
            return self._spec.function(*args, **kwargs)
        finally:
            plain_call.reset(token)


class AsyncTask(AnyTask[P, R, Coroutine[Any, Any, R]], Generic[P, R]):
    """A coroutine function whose calls in a flow are durable: ``await t(x)``, ``t.submit(x)``, ``t.map(xs)``."""

    @property
    def function(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The plain function."""
        return self._function

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...

    @overload
    def __get__(self: Takes1[A, Q], instance: A, owner: type, /) -> AsyncTask[Q, R]: ...

    def __get__(self, instance: Any, owner: type, /) -> Any:
        return self if instance is None or not self.is_method else self._plainly_bound(instance)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        body = current_body()
        if body is None:
            if self._in_task():
                return self._function(*args, **kwargs)
            self._before_plain()
            return self._call_plain(args, kwargs)
        if self.is_method:
            self._refuse_objects()
        if isinstance(body, AsyncBody):
            self._check(args, kwargs)
            return body.call(self._spec, args, kwargs)
        raise RuntimeError(
            f"{self.name} is async, and the flow {body.flow.name} is not: write `{self.name}.submit(...).result()`"
        )

    async def _call_plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        token = plain_call.set(PlainCall())
        try:
            return await self._function(*args, **kwargs)
        finally:
            plain_call.reset(token)


class TaskDecorator(Protocol):
    """What ``@task(...)`` is."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is the narrower case, and comes first
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(  # type: ignore[overload-overlap]  # as above
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncTask[P, R]: ...


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(**options: Unpack[TaskOptions]) -> TaskDecorator: ...


def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task, with or without options.

    Args:
        function: What the decorator stands on; sync or async.
        options: See ``TaskOptions``. Without any a task is taken as nondeterministic and as seen by nobody outside.

    Raises:
        TypeError, ValueError: an option is unknown or wrong, or two of them contradict each other.
    """
    if function is None:
        return functools.partial(_made, options=cast(TaskOptions, options))
    if options:
        raise TypeError("write @task(option=...) above the function")
    return _made(function, TaskOptions())


def _made(function: Callable[..., Any], options: TaskOptions) -> Task[..., Any] | AsyncTask[..., Any]:
    if isinstance(function, Callee):
        raise TypeError(f"{function!r} is one already: @task goes on a plain function")
    return task_of(task_spec(function, options))


def task_of(spec: TaskSpec) -> Task[..., Any] | AsyncTask[..., Any]:
    """What calls a task that is declared so."""
    return AsyncTask(spec) if spec.is_async else Task(spec)
