"""The engine as its users see it: one thread steps, everybody else asks."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from exoflow.errors import LLMError
from exoflow.extras import needed
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.generation import Generation
from exoflow.llm.engine.prompts import Prompt, check_prompt, one_for_each, params_of, prompts_of
from exoflow.llm.engine.queues import Fcfs, Queue
from exoflow.llm.engine.request import (
    AdapterRef,
    Event,
    Output,
    SamplingParams,
)  # fmt: skip
from exoflow.llm.engine.stats import Stats
from exoflow.llm.engine.thread import EngineThread

if TYPE_CHECKING:
    from torch import Tensor

    from exoflow.llm.engine.adapters.entries import AdapterInfo
    from exoflow.refs import Ref

SCORED = SamplingParams(max_tokens=1, temperature=0.0)


class Engine:
    """One model with its adapters, on one device.

    Args:
        model: a directory, a GGUF file, a name of the hub, or ``smollm2``.
        queue: who is next; first come, first served if not given. A policy of ``exoflow.llm.fair``, such as ``VTC()``,
            shares the engine among those whom ``labels`` name. It is this engine's alone.
        settings: the fields of ``EngineConfig``.

    Raises:
        LLMError: the model cannot be loaded; the message says why.
    """

    def __init__(self, model: str | Path, *, queue: Queue | None = None, **settings: object) -> None:
        self.config = EngineConfig(**settings)  # type: ignore[arg-type]  # it checks them itself
        self._thread = EngineThread()
        self._pinned: dict[str, str] = {}
        self._naming = threading.Lock()
        with needed("Engine", "llm"):  # torch: not before it is used
            from exoflow.llm.engine.assembly import assemble
            from exoflow.llm.engine.intake import Intake

            self.model, self._store, self._core = assemble(
                str(model),
                self.config,
                Fcfs(self.config.cluster_s) if queue is None else queue,
                wake=self._thread.wake,
                forgotten=lambda version: self._thread.order(lambda: self._core.forget(version)),
            )
        self._intake = Intake(self.config, self.model, self._store)
        self._thread.start(self._core)
        atexit.register(self.close)  # a step that is cut off by the end of the process would end it with a crash

    # Adapters.

    def load_adapter(self, name: str, path: str | Path, *, pin: bool = False) -> AdapterRef:
        """Serve the PEFT directory ``path`` under this name.

        A name that is taken gets the new content: requests that came before finish with the old one.

        Args:
            pin: keep it in the pool, whether it is used or not.

        Raises:
            AdapterError: it is broken, or asks for something that the engine cannot do; nothing changes.
            OutOfPages: there is no room to pin it; nothing changes.
        """
        reading = self._store.read(name, path)
        try:
            with self._naming:
                if self._store.is_newest(reading):
                    self._pin(name, reading.ref.version if pin else None)
                    self._store.give(reading)
                    (self._store.pin if pin else self._store.unpin)(name)
        finally:
            self._store.let_go(reading.ref)
        return reading.ref

    def unload_adapter(self, name: str) -> None:
        """Serve it no more; requests that came before finish.

        Raises:
            AdapterError: nothing has this name.
        """
        with self._naming:
            self._store.resolve(name)
            self._pin(name, None)
            self._store.unregister(name)

    def adapter(self, name: str) -> AdapterRef:
        """What the name means now.

        Raises:
            AdapterError: nothing has this name.
        """
        return self._store.resolve(name)

    def adapters(self) -> list[AdapterInfo]:
        """All that have a name, and where they are."""
        return self._store.adapters(self._thread.ask(self._core.resident_versions))

    def _pin(self, name: str, version: str | None) -> None:
        """Keep this version in the pool for the name, and no other."""
        before = self._pinned.get(name)
        if version is not None:
            self._thread.ask(lambda: self._core.scheduler.pin(version, instead_of=before))
            self._pinned[name] = version
        elif before is not None:
            self._thread.ask(lambda: self._core.scheduler.limits.unpin(before))
            del self._pinned[name]

    # Requests.

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        adapter: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> Generation:
        """Ask for an answer, without waiting for it.

        Args:
            adapter: a name that was loaded; None: the base model.
            labels: who is charged, by ``group_by``. ``job``: what it is a part of; those of one job keep together
                among their client's requests.
            priority: 0 is the most urgent. Like labels, it means something to queues that are fair only.

        Raises:
            TypeError: the prompt is neither a text nor token ids.
            AdapterError: nothing has this name. It is never answered by the base model.
            WrongRequest: tokens that there are not, or a grammar that is none.
            ValueError: a priority below 0.
        """
        if _in_flow():
            raise RuntimeError(
                "in a flow's body this would not be recorded: engine.generate(...), or EngineSpec(...).submit(...)"
            )
        check_prompt(prompt)
        return self._begun(self._intake.generation(prompt, params_of(params), adapter, labels or {}, priority))

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt | Ref[Prompt]],
        params: SamplingParams | None = None,
        adapter: str | Sequence[str | None] | None = None,
    ) -> list[Output]:
        """Answers to all prompts, in mixed batches; n for each, side by side.

        In a flow's body: one recorded call for each prompt, as of ``EngineSpec``.

        Args:
            prompts: texts or token ids.
            adapter: one for all, or one for each.
        """
        if _in_flow():
            from exoflow.llm import EngineSpec

            return EngineSpec.of(self).generate(prompts, params, adapter)
        asked, params = prompts_of(prompts), params_of(params)
        adapters = self._one_for_each(adapter, len(asked))
        pairs = zip(asked, adapters, strict=True)
        generations = self._ended((self.submit(prompt, params, name) for prompt, name in pairs), params.n)
        return [output for generation in generations for output in generation.outputs()]

    async def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        adapter: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> AsyncIterator[Event]:
        """Events as they come. A consumer that goes away aborts the request."""
        generation = self.submit(prompt, params, adapter, labels=labels, priority=priority)
        try:
            async for event in generation:
                yield event
        finally:
            self.abort(generation)

    def abort(self, generation: Generation) -> None:
        """Nobody wants it any more. Nothing happens if it has ended."""
        if not generation.is_done:
            self._thread.order(lambda: self._core.abort(generation))

    def logits(
        self, prompts: Sequence[Sequence[int]], adapter: str | Sequence[str | None] | None = None
    ) -> list[Tensor]:
        """Of each token the logits of what follows it, ``[length, vocab]`` float32, in mixed batches."""
        import torch

        adapters = self._one_for_each(adapter, len(prompts))
        pairs = zip(prompts, adapters, strict=True)
        intake = self._intake
        asked = (self._begun(intake.generation(prompt, SCORED, name, {}, 0, scores=True)) for prompt, name in pairs)
        return [torch.cat(generation.answers[0].rows) for generation in self._ended(asked, 1)]

    def room(self, prompt: Sequence[int], adapter: str | None = None) -> int:
        """Tokens that an answer can have at most.

        Raises:
            AdapterError: nothing has this name.
        """
        ref = self._store.resolve(adapter) if adapter is not None else None
        return self._core.scheduler.limits.longest(ref) - len(prompt)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        return self._core.scheduler.limits.max_context

    @property
    def error(self) -> LLMError | None:
        """Why the engine has stopped, if it has."""
        return self._thread.error

    def stats(self) -> Stats:
        return self._thread.ask(self._core.stats)

    # Its life.

    def warm_up(self) -> None:
        """Make ready now what the first requests would wait for: on a GPU the graphs of all steps, which takes a while;
        on a CPU there is nothing.
        """
        self._thread.ask(self._core.warm_up)

    def close(self) -> None:
        """End what runs, and give the memory back. Safe to call twice; the engine's own thread does not wait for it."""
        self._thread.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _one_for_each(self, adapter: str | Sequence[str | None] | None, count: int) -> list[str | None]:
        """All are known, before anything is computed."""
        adapters = one_for_each(adapter, count)
        for name in {name for name in adapters if name is not None}:
            self._store.resolve(name)
        return adapters

    def _begun(self, generation: Generation) -> Generation:
        self._thread.order(lambda: self._core.add(generation), otherwise=generation.fail)
        return generation

    def _ended(self, asked: Iterator[Generation], n: int) -> list[Generation]:
        """All of them once they have ended: asked one after the other, so that the call alone never overloads the
        engine. If one cannot be had, nobody waits for the others.
        """
        at_once = max(1, self.config.max_waiting // (2 * n))
        generations: list[Generation] = []
        try:
            for generation in asked:
                generations.append(generation)
                if len(generations) >= at_once:
                    generations[-at_once].outputs()
            for generation in generations:
                generation.outputs()
        except BaseException:
            for generation in generations:
                self.abort(generation)
            raise
        return generations


def _in_flow() -> bool:
    """Whether a flow's body calls. Where no flow was ever run, nothing is imported for that."""
    driver, attempts = sys.modules.get("exoflow.driver.body"), sys.modules.get("exoflow.attempts")
    if driver is None or attempts is None:
        return False
    return driver.current_body() is not None and attempts.current_attempt() is None
