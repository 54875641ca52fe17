"""The generations that somebody waits for: how many there can be, and that none is left when nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from exoflow.errors import AdapterError
from exoflow.llm.engine.request import SamplingParams
from exoflow.llm.server.metrics import Meters
from exoflow.llm.server.refusals import Refusal, no_model

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.engine.generation import Generation
    from exoflow.llm.engine.prompts import Prompt

logger = logging.getLogger(__name__)
ANSWERS_MAX = 256
"""Of one request: its prompts times n."""
T = TypeVar("T")


class UnderWay:
    """Of one server, on its event loop."""

    def __init__(self, engine: Engine, meters: Meters) -> None:
        self._engine, self._meters = engine, meters
        self._tokenising = ThreadPoolExecutor(thread_name_prefix="exoflow-llm-tokenising")
        self.generations: set[Generation] = set()
        self.answers = 0
        """Of all of them: n for each prompt."""
        self._all_ended = asyncio.Event()

    async def begin(
        self, prompts: Sequence[Prompt], params: SamplingParams, adapter: str | None, labels: dict[str, str]
    ) -> partial[None]:
        """The generations, and what is to be called when nobody waits for them any more."""
        count, config = params.n * len(prompts), self._engine.config
        if not 1 <= count <= ANSWERS_MAX:
            raise Refusal(400, f"{count} answers are asked for: it can be 1 to {ANSWERS_MAX}", param="n")
        most = config.max_waiting + config.max_batch
        if count > most:
            raise Refusal(400, f"{count} answers are asked for: this server has {most} under way at most", param="n")
        if self.answers + count > most:
            raise Refusal(429, f"{most} answers can be under way: ask again later", code="overloaded", wait_s=1)
        self.answers += count
        begun = time.monotonic()
        try:
            generations = await self.tokenised(lambda: self._submit(prompts, params, adapter, labels))
        except BaseException:
            self.answers -= count
            raise
        self.generations.update(generations)
        return partial(self._end, generations, count, begun)

    def _submit(
        self, prompts: Sequence[Prompt], params: SamplingParams, adapter: str | None, labels: dict[str, str]
    ) -> list[Generation]:
        generations: list[Generation] = []
        try:
            generations.extend(self._engine.submit(prompt, params, adapter, labels=labels) for prompt in prompts)
        except BaseException as error:
            for generation in generations:
                self._engine.abort(generation)
            if isinstance(error, AdapterError):  # it was unloaded just now
                raise no_model(adapter or "") from error
            raise
        return generations

    def _end(self, generations: Sequence[Generation], count: int, begun: float) -> None:
        self._meters.ended(generations, time.monotonic() - begun)
        for generation in generations:
            self._engine.abort(generation)
        self.generations.difference_update(generations)
        self.answers -= count
        if not self.generations:
            self._all_ended.set()

    async def drain(self, grace_s: float) -> None:
        """What is under way has so many seconds to end."""
        self._all_ended.clear()
        if self.generations:
            try:
                await asyncio.wait_for(self._all_ended.wait(), grace_s)
            except TimeoutError:
                logger.info("%d requests are ended unfinished", len(self.generations))
                for generation in self.generations:
                    self._engine.abort(generation)

    async def tokenised(self, work: Callable[[], T]) -> T:
        """In threads of its own, so that nothing else waits for long texts."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenising, work)
