"""An engine in a worker of an executor, seen from here.

Its worker runs one attempt after another, as of any actor; each takes new questions there, and brings back what is
answered. Between them, and during them, the engine computes: all that it was asked is in its batches together. So the
executors' own protocol is the only connection that is needed: no port, no address, and a worker that dies is told as
for any attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

from exoflow.attempts.actors import Creation, Method
from exoflow.codec import Encoded, decode, decode_error, from_bytes
from exoflow.errors import ExecutorError, Interruption, LLMError
from exoflow.llm.durable.host import Answer, EngineActor, Question
from exoflow.model import CallId, Held, Inline, RunId, Value, version
from exoflow.protocols import ActorPart, Attempt, Computed, Executor, Outcome, Vanished

TURN_S = 0.1
"""How long an attempt waits for a first answer; what is asked meanwhile waits as long at most."""

logger = logging.getLogger(__name__)


class EngineLost(Interruption):
    """The worker that had the engine is gone: the call that waits for it is lost with it, as if it had run there."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    question: Question
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]

    def settle(self, answer: Answer | BaseException) -> None:
        def tell() -> None:
            if self.future.done():
                return
            if isinstance(answer, BaseException):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)

        with contextlib.suppress(RuntimeError):  # its loop is closed, and nobody waits any more
            self.loop.call_soon_threadsafe(tell)


class RemoteEngine:
    """Asks an ``EngineActor``; it is created when something is asked, and again where it was lost.

    Args:
        executor: Whose worker it lives in. It is closed with this.
        arguments: Of the ``EngineActor``.
        resources: What the worker must have.
    """

    def __init__(self, executor: Executor, arguments: tuple[Any, ...], resources: Mapping[str, float]) -> None:
        if not executor.has_actors:
            raise ExecutorError(f"the executor {executor.name!r} has no actors, and an engine is one")
        self._executor = executor
        self._arguments = arguments
        self._resources = resources
        self._run = RunId(f"engine-{uuid4().hex[:12]}")
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._state: Held | None = None
        self._busy = False
        self._closed = False
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: dict[int, None] = {}
        self._dropped: list[int] = []

    is_dead = False

    async def answer(self, question: Question) -> Answer:
        """Ask it.

        Raises:
            EngineLost: its worker died meanwhile.
            LLMError: it cannot be answered, or the engine was closed.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(question, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise _closed()
            number = next(self._numbers)
            self._waiting[number] = waiting
            self._unsent[number] = None
        self._turn()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._drop(number)
            raise

    def close(self) -> None:
        """End its worker; who waits for it is told."""
        with self._lock:
            self._closed = True
            told, self._waiting, self._unsent = list(self._waiting.values()), {}, {}
        for waiting in told:
            waiting.settle(_closed())
        self._executor.close()

    def _drop(self, number: int) -> None:
        with self._lock:
            if self._waiting.pop(number, None) is None:
                return
            if number in self._unsent:
                del self._unsent[number]
            else:
                self._dropped.append(number)
        self._turn()

    def _turn(self) -> None:
        """Start the next attempt, if there is anything to ask or to wait for, and none is under way."""
        with self._lock:
            if self._busy or self._closed or not (self._waiting or self._dropped):
                return
            self._busy = True
            creates = self._state is None
            attempt = self._creation() if creates else self._exchange()
        self._executor.start(attempt, self._created if creates else self._exchanged)

    def _creation(self) -> Attempt:
        self._dropped.clear()
        return self._attempt(Creation(EngineActor), self._arguments)

    def _exchange(self) -> Attempt:
        questions = [(number, self._waiting[number].question) for number in self._unsent]
        dropped = self._dropped
        self._unsent, self._dropped = {}, []
        return self._attempt(Method(EngineActor, "exchange"), (questions, dropped, TURN_S))

    def _attempt(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Attempt:
        number = next(self._numbers)
        origin = CallId("engine")
        return Attempt(
            run_id=self._run,
            call=origin,
            version=version(1, number),
            number=1,
            key=f"{self._run}/{number}",
            task="engine",
            function=function,
            args=args,
            kwargs={},
            inputs={},
            resources=self._resources,
            actor=ActorPart(origin, holder=origin if self._state else None, state=self._state),
        )

    def _created(self, outcome: Outcome) -> None:
        failed: BaseException | None = None
        if isinstance(outcome, Computed):
            logger.info("an engine runs with the executor %s, in %s", self._executor.name, outcome.worker or "a worker")
        elif isinstance(outcome, Vanished):
            failed = EngineLost(outcome.reason)
        else:
            failed = decode_error(outcome.error)
        self._settle(outcome, failed, {})

    def _exchanged(self, outcome: Outcome) -> None:
        if isinstance(outcome, Computed):
            try:
                self._settle(outcome, None, dict(self._read(outcome.value)))
            except KeyError as error:
                self._settle(Vanished(f"its answers are lost: {error}"), EngineLost("its answers are lost"), {})
            return
        reason = outcome.reason if isinstance(outcome, Vanished) else str(decode_error(outcome.error))
        if not self._closed:
            logger.warning("the engine with the executor %s is lost: %s", self._executor.name, reason)
        self._settle(outcome, EngineLost(reason), {})

    def _read(self, value: Value) -> list[tuple[int, Answer | bytes]]:
        if isinstance(value, Inline):
            return cast(list[tuple[int, Answer | bytes]], decode(from_bytes(value)))
        assert isinstance(value, Held), "it was not to be stored"
        found = self._executor.fetch(value)
        assert isinstance(found, Encoded)
        answers: list[tuple[int, Answer | bytes]] = decode(found)
        self._executor.release(value)
        return answers

    def _settle(self, outcome: Outcome, failed: BaseException | None, answers: Mapping[int, Answer | bytes]) -> None:
        """Go on with the state that is left; without one, what was asked of the engine has failed with it."""
        with self._lock:
            self._busy = False
            created = self._state is not None
            self._state = outcome.state if failed is None else None
            told: list[tuple[_Waiting, Answer | BaseException]] = []
            for number, answer in answers.items():
                if number in self._waiting:  # else it was dropped
                    found = decode_error(answer) if isinstance(answer, bytes) else answer
                    told.append((self._waiting.pop(number), found))
            if failed is not None:
                lost = [number for number in self._waiting if number not in self._unsent or not created]
                told += [(self._waiting.pop(number), failed) for number in lost]
                self._unsent = {number: None for number in self._unsent if created}
                self._dropped.clear()
        if failed is not None and outcome.state is not None:
            self._executor.release(outcome.state)
        for waiting, answer_or_error in told:
            waiting.settle(answer_or_error)
        self._turn()


def _closed() -> LLMError:
    return LLMError("the engine was closed")
