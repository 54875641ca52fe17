"""The engine as its users see it: one thread steps, everybody else asks."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from exoflow.errors import LLMError
from exoflow.extras import needed
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.core import Stats
from exoflow.llm.engine.generation import Answer, Generation
from exoflow.llm.engine.prompts import Prompt, check_prompt, one_for_each, params_of, prompts_of
from exoflow.llm.engine.queues import Fcfs, Queue
from exoflow.llm.engine.request import (
    AdapterRef,
    Event,
    Output,
    Request,
    SamplingParams,
    WrongRequest,
    client_of,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor

    from exoflow.llm.engine.adapters.store import AdapterInfo
    from exoflow.refs import Ref

logger = logging.getLogger(__name__)
T = TypeVar("T")
Order = tuple[Callable[[], None], Callable[[LLMError], None]]
"""What the engine's thread is to do, and who is told if it will not be done."""
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
        self._changed = threading.Condition()
        self._orders: deque[Order] = deque()
        self._woken = False
        self._closing = False
        self._error: LLMError | None = None
        self._pinned: dict[str, str] = {}
        self._naming = threading.Lock()
        with needed("Engine", "llm"):  # torch: not before it is used
            from exoflow.llm.engine.assembly import assemble
            from exoflow.llm.engine.grammar import Grammars

            self.model, self._store, self._core = assemble(
                str(model),
                self.config,
                Fcfs(self.config.cluster_s) if queue is None else queue,
                wake=self._wake,
                forgotten=self._forgotten,
            )
        self._vocab = self.model.decoder.embedding.shape[0]
        self._grammars = Grammars(self.model.tokenizer, self._vocab)
        self._thread = threading.Thread(target=self._run, name="exoflow-llm-engine", daemon=True)
        self._thread.start()
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
        return self._store.adapters(self._ask(self._core.resident_versions))

    def _pin(self, name: str, version: str | None) -> None:
        """Keep this version in the pool for the name, and no other."""
        before = self._pinned.get(name)
        if version is not None:
            self._ask(lambda: self._core.scheduler.pin(version, instead_of=before))
            self._pinned[name] = version
        elif before is not None:
            self._ask(lambda: self._core.scheduler.unpin(before))
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
        if priority < 0:
            raise ValueError(f"priority={priority}: 0 is the most urgent")
        if _in_flow():
            raise RuntimeError(
                "in a flow's body this would not be recorded: engine.generate(...), or EngineSpec(...).submit(...)"
            )
        check_prompt(prompt)
        return self._submit(prompt, params_of(params), adapter, labels or {}, priority)

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
            self._order(lambda: self._core.abort(generation))

    def logits(
        self, prompts: Sequence[Sequence[int]], adapter: str | Sequence[str | None] | None = None
    ) -> list[Tensor]:
        """Of each token the logits of what follows it, ``[length, vocab]`` float32, in mixed batches."""
        import torch

        adapters = self._one_for_each(adapter, len(prompts))
        pairs = zip(prompts, adapters, strict=True)
        asked = (self._submit(prompt, SCORED, name, {}, 0, scores=True) for prompt, name in pairs)
        return [torch.cat(generation.answers[0].rows) for generation in self._ended(asked, 1)]

    def room(self, prompt: Sequence[int], adapter: str | None = None) -> int:
        """Tokens that an answer can have at most.

        Raises:
            AdapterError: nothing has this name.
        """
        ref = self._store.resolve(adapter) if adapter is not None else None
        return self._core.scheduler.longest(ref) - len(prompt)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        return self._core.scheduler.max_context

    @property
    def error(self) -> LLMError | None:
        """Why the engine has stopped, if it has."""
        return self._error

    def stats(self) -> Stats:
        return self._ask(self._core.stats)

    # Its life.

    def warm_up(self) -> None:
        """Make ready now what the first requests would wait for: on a GPU the graphs of all steps, which takes a while;
        on a CPU there is nothing.
        """
        self._ask(self._core.warm_up)

    def close(self) -> None:
        """End what runs, and give the memory back. Safe to call twice; the engine's own thread does not wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
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

    # Between threads.

    def _submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        adapter: str | None,
        labels: Mapping[str, str],
        priority: int,
        *,
        scores: bool = False,
    ) -> Generation:
        tokens = tuple(self.model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocab:
            raise WrongRequest(f"the prompt has a token that there is not: they are 0 to {self._vocab - 1}")
        most = self.config.max_batch + self.config.max_waiting
        if params.n > most:
            raise WrongRequest(f"n={params.n} is more than can ever be here at once: {most}, max_batch + max_waiting")
        grammars = self._grammars.begin(params)
        ref = self._store.hold(adapter) if adapter is not None else None
        client = client_of(labels, self.config.group_by)
        first = Request(tokens, params, ref, scores=scores, client=client, priority=priority)
        first.job = labels.get("job") or (f"answers to {first.number}" if params.n > 1 else "")
        others = [
            Request(tokens, params, ref, index=index, leader=first, client=client, job=first.job, priority=priority)
            for index in range(1, params.n)
        ]
        seed = params.seed if params.seed is not None else hash((self.config.seed, first.number))
        answers = [
            Answer(request, self.model.tokenizer, seed, grammar)
            for request, grammar in zip((first, *others), grammars, strict=True)
        ]
        generation = Generation(answers, ref, when_done=lambda: self._store.let_go(ref) if ref else None)
        self._order(lambda: self._core.add(generation), otherwise=generation.fail)
        return generation

    def _order(self, order: Callable[[], None], otherwise: Callable[[LLMError], None] = lambda error: None) -> None:
        """Have the engine's thread do this before its next step."""
        with self._changed:
            if not self._closing:
                self._orders.append((order, otherwise))
                self._changed.notify_all()
                return
        otherwise(self._error or LLMError("the engine is closed"))

    def _ask(self, question: Callable[[], T]) -> T:
        answered, result = threading.Event(), []
        failed: list[LLMError] = []

        def order() -> None:
            try:
                result.append(question())
            except LLMError as error:
                failed.append(error)
            answered.set()

        def closed(error: LLMError) -> None:
            failed.append(error)
            answered.set()

        self._order(order, closed)
        answered.wait()
        if failed:
            raise failed[0]
        return result[0]

    def _forgotten(self, version: str) -> None:
        """Nobody needs this version any more."""
        self._order(lambda: self._core.forget(version))

    def _wake(self) -> None:
        """From a thread that has brought an adapter."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while self._take_orders():
                if not self._core.step():
                    self._wait()
        except Exception as error:  # whatever it is, those who wait must hear of it
            logger.exception("the engine has stopped")
            self._error = _stopped_by(error)
        self._end(self._error or LLMError("the engine was closed"))

    def _end(self, error: LLMError) -> None:
        with self._changed:
            self._closing = True
        while self._orders:
            self._orders.popleft()[1](error)
        self._core.close(error)

    def _take_orders(self) -> bool:
        """Do what others asked for; False: the engine is to close."""
        with self._changed:
            self._woken = False
            count = len(self._orders)
        for _ in range(count):
            order, otherwise = self._orders.popleft()
            try:
                order()
            except Exception as error:
                otherwise(_stopped_by(error))
                raise
        return not self._closing

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._woken or self._closing, self._core.wait_s())


def _stopped_by(error: Exception) -> LLMError:
    # Everybody hears of it: what somebody asked may stand in the error, and does not in this one.
    return LLMError(f"the engine has stopped by {type(error).__name__}: its log says more")


def _in_flow() -> bool:
    """Whether a flow's body calls. Where no flow was ever run, nothing is imported for that."""
    driver, attempts = sys.modules.get("exoflow.driver.body"), sys.modules.get("exoflow.attempts")
    if driver is None or attempts is None:
        return False
    return driver.current_body() is not None and attempts.current_attempt() is None
