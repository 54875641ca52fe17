"""The engine's loop: plan, compute, choose, tell. Of one thread; it knows no other."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.generation import Answer, Generation
from exoflow.llm.engine.memory import Memory
from exoflow.llm.engine.models.loaded import LoadedModel
from exoflow.llm.engine.parallel import Leader
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.pool import PagePool
from exoflow.llm.engine.queues import Queue
from exoflow.llm.engine.request import FinishReason, Request, State
from exoflow.llm.engine.residency import AdapterCost, Load
from exoflow.llm.engine.runner import Runner
from exoflow.llm.engine.sampler import Choice, Draw, chance_of, choose, failure_of
from exoflow.llm.engine.scheduler import Scheduler
from exoflow.llm.engine.stats import Stats
from exoflow.llm.engine.telling import Told

logger = logging.getLogger(__name__)


class Adapters(Protocol):
    """Adapters by version, and how they come into the pool."""

    def cost(self, version: str) -> AdapterCost: ...

    def begin(self, load: Load) -> None:
        """Fill the pages of a load, without waiting for it."""
        ...

    def finished(self) -> Sequence[tuple[str, LLMError | None]]:
        """Loads that have ended since the last call; their slots are in the tables."""
        ...

    def close(self) -> None: ...


class Core:
    """Sequences, pool and model of one engine."""

    def __init__(
        self,
        model: LoadedModel,
        runner: Runner | Leader,
        config: EngineConfig,
        adapters: Adapters,
        queue: Queue,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._model = model
        self._runner = runner
        self._adapters = adapters
        self._memory = Memory(PagePool(runner.pages))
        self.scheduler = Scheduler(
            config,
            self._memory,
            queue,
            max_context=min(model.max_context, config.max_context or model.max_context),
            cost=adapters.cost,
            first_token_s=lambda tokens: self._step_s + tokens * self._token_s,
        )
        self._live: dict[Request, tuple[Generation, Answer]] = {}
        self._late: list[Told] = []
        self._step_s = 0.0
        self._token_s = 0.0
        self._counts: Counter[str] = Counter()

    def add(self, generation: Generation) -> None:
        """Let its answers be generated. What is wrong with it is told to it, not raised."""
        now = self.clock()
        for answer in generation.answers:
            answer.request.arrival_s = now
            try:
                self.scheduler.add(answer.request, now)
            except LLMError as error:
                self.abort(generation)
                generation.fail(error)
                return
            self._live[answer.request] = (generation, answer)

    def abort(self, generation: Generation) -> None:
        """Nobody wants its answers any more: what has not ended ends as it is."""
        self._tell_late()
        for answer in generation.answers:
            if answer.request in self._live:
                self._end(answer.request, "abort")

    def forget(self, version: str) -> None:
        """Nobody needs this version any more: what is left of it makes room now."""
        self.scheduler.residency.forget(version)
        self.scheduler.prefixes.forget(version)

    def resident_versions(self) -> set[str]:
        return {resident.version for resident in self.scheduler.residency}

    def warm_up(self) -> None:
        self._runner.warm_up()

    def close(self, error: LLMError) -> None:
        """No step any more: whoever waits hears why."""
        self._tell_late()
        for generation, _ in list(self._live.values()):
            generation.fail(error)
        self._live.clear()
        self._adapters.close()
        self._runner.close()

    @property
    def is_idle(self) -> bool:
        return not self._live and not self._late

    def step(self) -> bool:
        """Compute once; False: there was nothing to compute (an adapter may be on its way)."""
        self._take_in_adapters()
        begun = self.clock()
        plan = self.scheduler.step(begun)
        for load in plan.loads:
            self._adapters.begin(load)
        for request in plan.dropped:
            self._tell_end(request)
        if not plan.chunks:
            self._tell_late()
            return False
        logits = self._runner.run(plan.chunks, [self._slot(chunk.request) for chunk in plan.chunks])
        self._tell_late()
        self._take_out(plan.chunks, logits)
        if not self._runner.computes_meanwhile:
            self._tell_late()
        self._measure(plan.chunks, self.clock() - begun)
        return True

    def wait_s(self) -> float | None:
        """How long there is nothing to compute unless somebody says something, if the queue knows."""
        ready_s = getattr(self.scheduler.queue, "ready_s", None)
        now_s = self.clock()
        at_s = ready_s(now_s) if ready_s is not None else None
        return None if at_s is None else max(0.0, at_s - now_s)

    def _take_in_adapters(self) -> None:
        for version, error in self._adapters.finished():
            if error is None:
                self.scheduler.residency.arrived(version)
                continue
            logger.warning("an adapter could not be loaded: %s", error)
            self._tell_late()
            for request in self.scheduler.failed(version, self.clock()):
                if request in self._live:  # else it went with another answer to the same prompt
                    generation, _ = self._live.pop(request)
                    generation.fail(error)
                    self.abort(generation)

    def _take_out(self, chunks: Sequence[Chunk], logits: Tensor) -> None:
        """The rows of logits to those whom they belong to."""
        row, choosing, rows = 0, [], []
        for chunk in chunks:
            if chunk.request.scores:
                if chunk.start == 0:
                    self._live[chunk.request][1].rows.clear()  # it begins again after a preemption
                self._live[chunk.request][1].rows.append(logits[row : row + chunk.count].float().cpu())
                row += chunk.count
            elif chunk.gives_token:
                choosing.append(chunk.request)
                rows.append(row)
                row += 1
        choices = self._choices(choosing, logits[rows]) if rows else {}
        for chunk in chunks:
            if chunk.request not in self._live:
                continue  # its generation failed with another of its answers
            choice = choices.get(chunk.request)
            self.scheduler.computed(chunk, choice.token_id if choice else None, self.clock())
            if choice:
                self._counts["output"] += 1
                self._told(chunk.request, choice)
            elif chunk.request.scores and chunk.gives_token:
                self._end(chunk.request, "length")

    def _choices(self, requests: Sequence[Request], logits: Tensor) -> dict[Request, Choice]:
        """A token for each, together. If that fails, one by one: only those fail who would fail alone."""
        try:
            return dict(zip(requests, choose(logits, self._draws(requests)), strict=True))
        except Exception as error:
            if len(requests) > 1:
                choices: dict[Request, Choice] = {}
                for row, request in enumerate(requests):
                    if request in self._live:  # else it went with another answer to the same prompt
                        choices |= self._choices([request], logits[row : row + 1])
                return choices
            logger.warning("a token could not be chosen: %s", error, exc_info=not isinstance(error, OverflowError))
            self._fail(requests[0], failure_of(error, requests[0].adapter))
            return {}

    def _draws(self, requests: Sequence[Request]) -> list[Draw]:
        draws = []
        for request in requests:
            answer = self._live[request][1]
            chance = chance_of(answer.seed, request.index, len(request.output))
            allowed = answer.grammar.allowed(request.output) if answer.grammar else None
            draws.append(Draw(request.params, chance, allowed))
        return draws

    def _told(self, request: Request, choice: Choice) -> None:
        """A token was chosen: end what ends with it, and tell it soon."""
        generation, answer = self._live[request]
        if choice.logprobs is not None:
            answer.logprobs.append(choice.logprobs)
        grammar = answer.grammar
        if grammar is not None:
            grammar.follow(request.output)
            if grammar.error is not None:
                self._fail(request, grammar.error)
                return
        ignores_eos = request.params.ignore_eos and grammar is None
        is_eos = choice.token_id in self._model.tokenizer.eos_ids and not ignores_eos
        told = Told(generation, answer, choice, is_eos)
        if request.params.stop:
            told.read()  # its text may be its end
        if is_eos or answer.stream.has_stopped or (grammar is not None and grammar.is_complete):
            told.reason = "stop"
        elif len(request.output) >= request.params.max_tokens:
            told.reason = "length"
        if told.reason is not None:
            self.scheduler.finish(request, told.reason, self.clock())
            del self._live[request]
        self._late.append(told)

    def _tell_late(self) -> None:
        """What the last step gave. A GPU is given its next step first: it computes while this is told."""
        late, self._late = self._late, []
        for told in late:
            told.tell()

    def _fail(self, request: Request, error: LLMError) -> None:
        """Its generation ends, whatever its other answers do."""
        generation, _ = self._live[request]
        generation.fail(error)
        self.abort(generation)

    def _end(self, request: Request, reason: FinishReason) -> None:
        self.scheduler.finish(request, reason, self.clock())
        self._tell_end(request)

    def _tell_end(self, request: Request) -> None:
        generation, answer = self._live.pop(request)
        assert request.finish_reason is not None
        generation.end(answer, request.finish_reason)

    def _slot(self, request: Request) -> int:
        if request.adapter is None:
            return -1
        resident = self.scheduler.residency.find(request.adapter.version)
        assert resident is not None, "who runs holds its adapter"
        return resident.slot

    def _measure(self, chunks: Sequence[Chunk], took_s: float) -> None:
        tokens = sum(chunk.count for chunk in chunks)
        self._counts["steps"] += 1
        self._counts["prompt"] += sum(chunk.count for chunk in chunks if chunk.count > 1)
        self._step_s += 0.1 * (took_s - self._step_s)
        if tokens > 4 * len(chunks):
            self._token_s += 0.2 * (took_s / tokens - self._token_s)

    def stats(self) -> Stats:
        residents = list(self.scheduler.residency)
        by_state: dict[State, Counter[str | None]] = {state: Counter() for state in State}
        for request in self._live:
            by_state[request.state][request.adapter.name if request.adapter else None] += 1
        return Stats(
            running=dict(by_state[State.RUNNING]),
            waiting=dict(by_state[State.WAITING]),
            loading=dict(by_state[State.LOADING]),
            resident=len(residents),
            loads=self.scheduler.residency.loads,
            preemptions=self.scheduler.preemptions,
            steps=self._counts["steps"],
            prompt_tokens=self._counts["prompt"],
            cached_tokens=self.scheduler.prefixes.hits,
            output_tokens=self._counts["output"],
            pages=self._memory.pool.size,
            free_pages=self._memory.pool.free,
            reclaimable_pages=self._memory.reclaimable,
            adapter_pages=sum(len(resident.pages) for resident in residents),
            page_bytes=self._runner.pool[:, 0].numel() * self._runner.pool.element_size(),
            step_s=self._step_s,
        )
