"""What a user writes down of an engine: model, adapters, where it runs. It is called in a flow like a task."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from exoflow.context import calling_body
from exoflow.driver.spec import TaskSpec
from exoflow.errors import AdapterError
from exoflow.llm.durable.calls import generated, looked_up
from exoflow.llm.durable.host import Named, Prompted
from exoflow.llm.durable.seats import close_seat, seat_of
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.prompts import Prompt, one_for_each, params_of, prompts_of
from exoflow.llm.engine.queues import Queue
from exoflow.llm.engine.request import AdapterRef, Output, SamplingParams
from exoflow.options import check_executor, number
from exoflow.protocols import Executor
from exoflow.refs import Ref, Refs

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine


class Making(partial[Queue]):
    """A ``partial`` that equals any other of the same content."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Making):
            return NotImplemented
        return (self.func, self.args, self.keywords) == (other.func, other.args, other.keywords)

    def __hash__(self) -> int:
        return hash(self.func)  # an argument may have no hash


@dataclass(frozen=True, slots=True, eq=True)
class Setup:
    """What makes two descriptions mean one engine."""

    model: str
    settings: tuple[tuple[str, object], ...] = ()
    executor: str | Executor | None = None
    resources: tuple[tuple[str, float], ...] = ()
    queue: Callable[[], Queue] | None = None
    engine: Engine | None = None
    """One that runs already, in this process."""


class _How:
    """How the engine of a description runs. No dataclass: it is no part of what a call's arguments are compared by."""

    def __init__(self, setup: Setup, adapters: Mapping[str, str] | None) -> None:
        self.setup = setup
        self.adapters = adapters
        """By name, the directory; None: as the engine has them."""

    def __reduce__(self) -> tuple[Any, ...]:
        engine = self.setup.engine
        return (_How, (self.setup, self.adapters)) if engine is None else (_how_of, (id(engine),))

    def path(self, name: str) -> str | None:
        """Where the adapter lies; None: the engine knows.

        Raises:
            AdapterError: it is none of the engine's. It is never answered by the base model.
        """
        if self.adapters is None:
            return None
        if name not in self.adapters:
            known = ", ".join(sorted(self.adapters)) or "none"
            raise AdapterError(f"there is no adapter {name!r}: the engine was described with {known}")
        return self.adapters[name]


def _how_of(key: int) -> _How:
    engine = _running.get(key)
    if engine is None:
        raise AdapterError("an engine that ran in another process is no argument: describe it by EngineSpec(...)")
    return _How(Setup(engine.model.name, engine=engine), None)


_running: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


@dataclass(frozen=True, init=False, repr=False)
class EngineSpec:
    """An engine, written down: nothing starts before it is asked. All calls in a process share one.

    As an argument of a recorded call it is its model: other settings, and another place, are no other call.

    Args:
        model: as of ``Engine``.
        adapters: by name, a PEFT directory, as whoever runs the engine finds it.
        executor: whose worker the engine runs in; None, ``"local"``: this process.
        resources: what that worker must have.
        queue: makes the queue of its requests; importable, as ``VTC`` or ``functools.partial(VTC, weights=...)``.
        settings: the fields of ``EngineConfig``.

    Raises:
        TypeError, ValueError: there is no such setting, or its value is wrong.
    """

    model: str
    how: _How

    def __init__(
        self,
        model: str | Path,
        *,
        adapters: Mapping[str, str | os.PathLike[str]] | None = None,
        executor: str | Executor | None = None,
        resources: Mapping[str, float] | None = None,
        queue: Callable[[], Queue] | None = None,
        **settings: object,
    ) -> None:
        EngineConfig(**settings)  # type: ignore[arg-type]  # it checks them itself
        check_executor(executor)
        for name, amount in (resources or {}).items():
            number(f"resources[{name!r}]", amount)
        if resources and executor in (None, "local"):
            raise ValueError(f"resources={dict(resources)!r} are what a worker must have: give its executor, too")
        of_name = tuple(sorted(settings.items()))
        if isinstance(queue, partial):
            queue = Making(queue.func, *queue.args, **queue.keywords)
        setup = Setup(str(model), of_name, executor, tuple(sorted((resources or {}).items())), queue)
        self._have(setup, _by_name(adapters))

    @property
    def _spec(self) -> TaskSpec:
        """Of the task by which its answers are recorded, as a task's own: `explain` reads it in a flow's source."""
        return generated._spec

    def _have(self, setup: Setup, adapters: Mapping[str, str] | None) -> None:
        object.__setattr__(self, "model", setup.model)
        object.__setattr__(self, "how", _How(setup, adapters))

    @classmethod
    def of(cls, engine: Engine) -> EngineSpec:
        """Of an engine that runs in this process, with its adapters as it has them."""
        _running[id(engine)] = engine
        spec = cls.__new__(cls)
        spec._have(Setup(engine.model.name, engine=engine), None)
        return spec

    def with_adapters(self, adapters: Mapping[str, str | os.PathLike[str]]) -> EngineSpec:
        """The same engine, with these adapters too: such that a flow has trained, say."""
        if self.how.adapters is None:
            raise TypeError("this is an engine that runs already: engine.load_adapter(name, path)")
        spec = EngineSpec.__new__(EngineSpec)
        spec._have(self.how.setup, {**self.how.adapters, **_by_name(adapters)})
        return spec

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt | Ref[Prompt]],
        params: SamplingParams | None = None,
        adapter: str | Sequence[str | None] | None = None,
    ) -> list[Output]:
        """Answers to all prompts, as ``Engine.generate`` gives them. In a flow: one recorded call for each prompt.

        Raises:
            AdapterError: an adapter is unknown, or has other content than when the run began to use it.
            RuntimeError: in an async flow; write ``await engine.map(...)``.
        """
        asked, adapters = _each(prompts, adapter)
        params = params_of(params)
        body = calling_body()
        if body is None:
            if asyncio._get_running_loop() is not None:
                raise RuntimeError("on an event loop, outside of a flow: await asyncio.to_thread(engine.generate, ...)")
            return asyncio.run(self._answers(asked, params, adapters))
        if body.is_async:
            raise RuntimeError(
                f"engine.generate(...) would block the event loop of the async flow {body.flow.name}: "
                f"write `await engine.map(...)`, or `await engine.submit(...)`"
            )
        return [output for answers in self._map(asked, params, adapters).result() for output in answers]

    def submit(
        self, prompt: Prompt | Ref[Prompt], params: SamplingParams | None = None, adapter: str | None = None
    ) -> Ref[list[Output]]:
        """In a flow: ask, and go on; ``params.n`` answers will come."""
        [asked], [name] = _each([prompt], adapter)
        return generated.submit(self, asked, params_of(params), self.adapter_ref(name))

    def map(
        self,
        prompts: Prompt | Sequence[Prompt | Ref[Prompt]],
        params: SamplingParams | None = None,
        adapter: str | Sequence[str | None] | None = None,
    ) -> Refs[list[Output]]:
        """In a flow: ``submit`` for each prompt."""
        asked, adapters = _each(prompts, adapter)
        return self._map(asked, params_of(params), adapters)

    def close(self) -> None:
        """End the engine that this process has for this description, and all that it is asked. The next call starts
        another.
        """
        close_seat(self.how.setup)

    def _map(
        self, prompts: Sequence[Prompt], params: SamplingParams, adapters: Sequence[str | None]
    ) -> Refs[list[Output]]:
        return generated.map(repeat(self), prompts, repeat(params), [self.adapter_ref(name) for name in adapters])

    def adapter_ref(self, name: str | None) -> Any:
        """In a flow, what stands for the adapter in its calls: its content is looked up once, and recorded."""
        if name is None:
            return None
        body = calling_body()
        path = self.how.path(name)
        if body is None:
            raise RuntimeError(
                "engine.submit(...) and engine.map(...) are for the body of a flow: engine.generate(...)"
            )
        known: dict[tuple[str, str | None], Ref[AdapterRef]] = vars(body).setdefault("_llm_adapters", {})
        if (name, path) not in known:
            # A key, so that it is the same call whichever of an async flow's branches is the first to need it.
            call = looked_up.options(key=name if path is None else f"{name} at {path}")
            known[name, path] = call.submit(self, name)
        return known[name, path]

    async def _answers(
        self, prompts: Sequence[Prompt], params: SamplingParams, adapters: Sequence[str | None]
    ) -> list[Output]:
        """Outside of a flow: nothing is recorded."""
        seat = await seat_of(self.how.setup)
        refs = {name: await seat.answer(Named(name, self.how.path(name))) for name in set(adapters) if name is not None}

        async def answers(prompt: Prompt, name: str | None) -> list[Output]:
            ref = cast(AdapterRef, refs[name]) if name is not None else None
            path = self.how.path(name) if name is not None else None
            return cast("list[Output]", await seat.answer(Prompted(prompt, params, ref, path)))

        found = await asyncio.gather(*map(answers, prompts, adapters))
        return [output for outputs in found for output in outputs]

    def __repr__(self) -> str:
        setup = self.how.setup
        place = f", executor={setup.executor!r}" if setup.executor is not None else ""
        return f"EngineSpec({self.model!r}{place})"


def _by_name(adapters: Mapping[str, str | os.PathLike[str]] | None) -> dict[str, str]:
    if adapters is not None and not isinstance(adapters, Mapping):
        raise TypeError(f"adapters={adapters!r}: give a directory for each name, as {{'pirate': 'adapters/pirate'}}")
    return {name: os.fspath(path) for name, path in (adapters or {}).items()}


def _each(prompts: object, adapter: str | Sequence[str | None] | None) -> tuple[list[Prompt], list[str | None]]:
    asked = prompts_of(prompts, later=(Ref,))
    return asked, one_for_each(adapter, len(asked))
