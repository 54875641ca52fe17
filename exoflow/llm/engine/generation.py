"""What somebody asked for, on its way: events from the engine's thread to whoever waits, in a thread or on a loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from exoflow.errors import LLMError
from exoflow.llm.engine.request import (
    AdapterRef,
    Event,
    FinishReason,
    Output,
    Request,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from exoflow.llm.engine.text import TextStream, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from exoflow.llm.engine.grammar import Grammar

logger = logging.getLogger(__name__)


class Answer:
    """One of the n answers, as far as it has come. Of the engine's thread."""

    def __init__(self, request: Request, tokenizer: Tokenizer, seed: int, grammar: Grammar | None = None) -> None:
        self.request = request
        self.seed = seed
        self.grammar = grammar
        self.stream = TextStream(tokenizer, request.params.stop)
        self.logprobs: list[TokenLogprobs] = []
        self.rows: list[Tensor] = []
        """Of a request that is scored: logits ``[rows, vocab]``, chunk by chunk."""

    def output(self) -> Output:
        request = self.request
        assert request.finish_reason is not None
        return Output(
            text=self.stream.text,
            token_ids=tuple(request.output),
            logprobs=tuple(self.logprobs) if request.params.logprobs is not None else None,
            finish_reason=request.finish_reason,
            adapter=request.adapter,
            usage=Usage(len(request.prompt), len(request.output), request.cached),
            index=request.index,
        )


class Generation:
    """All n answers to one prompt. Iterate over it for events, or ask for ``outputs``."""

    def __init__(self, answers: list[Answer], adapter: AdapterRef | None, when_done: Callable[[], None]) -> None:
        self.answers = answers
        self.adapter = adapter
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._open = len(answers)
        self._error: LLMError | None = None
        self._listeners: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._when_done = when_done

    @property
    def params(self) -> SamplingParams:
        return self.answers[0].request.params

    @property
    def is_done(self) -> bool:
        return self._open == 0 or self._error is not None

    def outputs(self, timeout_s: float | None = None) -> list[Output]:
        """All answers, once they have ended.

        Raises:
            TimeoutError: they have not.
            LLMError: they cannot be had, and why.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_done, timeout_s):
                raise TimeoutError(f"no end after {timeout_s} s")
            if self._error is not None:
                raise self._error
        return [answer.output() for answer in self.answers]

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back once all answers have ended, or cannot be had: from the engine's thread, or here if it is so."""
        with self._changed:
            if not self.is_done:
                self._at_end.append(callback)
                return
        callback()

    async def ended(self) -> list[Output]:
        """``outputs`` for a task of an event loop: it waits, and nothing wakes it for single tokens."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(arrived.set)

        self.when_ended(wake)
        await arrived.wait()
        return self.outputs()

    def __iter__(self) -> Iterator[Event]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self.is_done)
                event = self._next()
            if event is None:
                return
            yield event

    async def __aiter__(self) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # a loop that was closed: nobody waits on it any more
                loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            self._listeners.append(wake)
        try:
            while True:
                arrived.clear()
                with self._changed:
                    event, is_done = self._next(), self.is_done
                if event is not None:
                    yield event
                elif is_done:
                    return
                else:
                    await arrived.wait()
        finally:
            with self._changed:
                self._listeners.remove(wake)

    # From the engine's thread.

    def tell(self, event: Event) -> None:
        with self._changed:
            if self._error is not None:
                return
            self._events.append(event)
            if event.finish_reason is not None:
                self._open -= 1
                if self.is_done:
                    self._when_done()
            self._wake()

    def fail(self, error: LLMError) -> None:
        with self._changed:
            if not self.is_done:
                self._error = error
                self._when_done()
                self._wake()

    def end(self, answer: Answer, reason: FinishReason) -> None:
        """One answer has ended without a token more."""
        self.tell(Event(answer.request.index, answer.stream.end(), None, None, reason))

    def _next(self) -> Event | None:
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _wake(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener()
        if self.is_done:
            callbacks, self._at_end = self._at_end, []
            for callback in callbacks:
                try:
                    callback()
                except Exception:  # it is its owner's, and the engine goes on
                    logger.exception("what was to be done at the end of a generation has failed")
