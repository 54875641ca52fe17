"""Actors: objects whose methods are tasks, and whose state survives by snapshots."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast, overload

from exoflow.declaration import actor_specs
from exoflow.driver.body import Body, current_body
from exoflow.driver.spec import Chain, TaskSpec
from exoflow.options import check_executor, count
from exoflow.protocols import Executor
from exoflow.tasks import AnyTask

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cast:
    """What the decorator knows of a class."""

    snapshot_every: int
    creates: TaskSpec
    methods: Mapping[str, TaskSpec]
    signature: inspect.Signature


class ActorType(type):
    """The class of an actor's class: in a flow's body, calling that creates an actor. Elsewhere it is any class."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made: Cast | None = cls.__dict__.get("__exoflow_actor__")
        body = current_body()
        if made is None or body is None:
            return super().__call__(*args, **kwargs)
        return _create(cls, made, body, args, kwargs)


class Actor:
    """An actor, as the flow that created it has it. Its tasks are called on it; its state is where its process is."""

    def __init__(self, cls: type, made: Cast, chain: Chain, name: str) -> None:
        self.__dict__.update(_class=cls, _cast=made, _chain=chain, _name=name)

    def __getattr__(self, name: str) -> Any:
        cls, made = self._class, self._cast
        spec = made.methods.get(name)
        if spec is not None:
            task: AnyTask[..., Any, Any] = inspect.getattr_static(cls, name)
            bound = task.bound(self, replace(spec, actor=self._chain))
            self.__dict__[name] = bound
            return bound
        if name.startswith("__") or not hasattr(cls, name) and not made.methods:
            raise AttributeError(f"{cls.__qualname__} has no attribute {name!r}")
        raise AttributeError(
            f"{self!r}.{name}: the state of an actor is where its process is, and is had by its tasks alone. Write a "
            f"method that returns it, with @task, and call that"
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"{self!r}.{name} = ...: the state of an actor is where its process is. Write a method that sets it, with "
            f"@task, and call that"
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be passed to a task or a child flow, nor be returned from a flow: its calls are ordered "
            f"as this flow makes them"
        )

    def __repr__(self) -> str:
        return f"<actor {self._name}>"


def _create(cls: type, made: Cast, body: Body, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Actor:
    try:
        made.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}{made.signature}: {error}") from None
    chain = Chain(made.snapshot_every)
    handle = body.submit(replace(made.creates, actor=chain), args, kwargs)
    return Actor(cls, made, chain, handle.call_id)


@overload
def actor(cls: type[T], /) -> type[T]: ...


@overload
def actor(
    *, snapshot_every: int = 1, executor: str | Executor | None = None, resources: Mapping[str, float] | None = None
) -> Callable[[type[T]], type[T]]: ...


def actor(
    cls: type[Any] | None = None,
    /,
    *,
    snapshot_every: int = 1,
    executor: str | Executor | None = None,
    resources: Mapping[str, float] | None = None,
) -> Any:
    """Make a class, whose methods are tasks, a class of actors.

    In a flow ``t = Trainer(lr)`` creates one, and ``t.step(x)``, ``t.step.submit(x)`` are calls in order, as written.
    Elsewhere the class is as it was.

    Args:
        cls: The class that the decorator stands on.
        snapshot_every: A snapshot of its state, which is its pickle, is taken when it has been created, and behind
            every n-th call; and whenever an effect has to wait for one.
        executor: Who runs it; None: as the run has it.
        resources: What the executor must have for it.

    Raises:
        TypeError, ValueError: the class cannot be an actor's, or an option is wrong.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not isinstance(cls, type):
            raise TypeError(f"@exoflow.actor goes on a class, not on {cls!r}")
        made = _with_actor_type(cls)
        creates, methods = actor_specs(made, _tasks_of(made), executor, dict(resources or {}))
        signature = cast(Any, creates.function).__signature__
        made.__exoflow_actor__ = Cast(snapshot_every, creates, methods, signature)  # type: ignore[attr-defined]
        return made

    if snapshot_every == 0:
        raise ValueError("snapshot_every=0: a snapshot is taken behind every n-th call, so n is at least 1")
    count("snapshot_every", snapshot_every)
    check_executor(executor)
    return decorate if cls is None else decorate(cls)


def _with_actor_type(cls: type[T]) -> type[T]:
    """The class under its own name, with nothing added but what calling it does: no class can be given another type."""
    meta = type(cls)
    kind = ActorType if meta is type else type(f"Actor{meta.__name__}", (ActorType, meta), {})
    namespace = {
        "__slots__": (),
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
    }
    return cast("type[T]", kind(cls.__name__, (cls,), namespace))


def _tasks_of(cls: type) -> dict[str, AnyTask[..., Any, Any]]:
    """Its methods that are tasks, inherited ones too."""
    found: dict[str, AnyTask[..., Any, Any]] = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name, None)
        if isinstance(member, AnyTask) and member.is_method:
            found[name] = member
    return found


__all__ = ["Actor", "ActorType", "Cast", "actor"]
