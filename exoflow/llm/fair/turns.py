"""The live state of a scheduler, for any thread and event loop: one lock around what ``Dispatch`` decides."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from weakref import WeakSet

from exoflow.llm.engine.request import Usage
from exoflow.llm.fair.asks import Ask, Waiter
from exoflow.llm.fair.dispatch import Dispatch
from exoflow.llm.fair.meters import TenantStats
from exoflow.llm.fair.policy import Path
from exoflow.llm.fair.tenants import Tenant
from exoflow.protocols import Clock

logger = logging.getLogger(__name__)


class Grant:
    """A call's turn: a slot, and what is reserved for it.

    End it by ``settle`` or ``release``; what comes after is nothing. One that is forgotten is released; so is one whose
    event loop was closed, when another call waits.
    """

    __slots__ = ("_turns", "_waiter")

    def __init__(self, turns: Turns, waiter: Waiter) -> None:
        self._turns = turns
        self._waiter = waiter

    def charge(self, tokens: int) -> None:
        """So many tokens more of its answer have come."""
        self._turns.charge(self._waiter, tokens)

    def settle(self, usage: Usage, nano_usd: int, *, keeps_slot: bool = False) -> None:
        """It was answered, and this is billed. A call that was settled before is not charged again.

        ``keeps_slot``: until it is released, when its answer is durable, say.
        """
        self._turns.settle(self._waiter, usage, nano_usd, keeps_slot=keeps_slot)

    def release(self) -> None:
        """It has failed, or is wanted no more: nothing more is billed."""
        self._turns.release(self._waiter)

    def __del__(self) -> None:
        if self._waiter.has_slot:
            self._turns.abandon(self._waiter)


class Turns:
    """What all copies of a scheduler in a process share."""

    def __init__(self, dispatch: Dispatch, clock: Clock) -> None:
        self._dispatch = dispatch
        self._clock = clock
        self._lock = threading.Lock()
        self._abandoned: list[Waiter] = []
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        """Those that calls have come from."""
        self._forget_look: Callable[[], None] = lambda: None

    async def admit(self, ask: Ask) -> Grant:
        """As ``FairScheduler.admit``."""
        turn: asyncio.Future[None] | None = None
        loop = asyncio.get_running_loop()
        with self as now_s:
            waiter = self._dispatch.join(ask, now_s)
            waiter.is_lost = loop.is_closed
            self._loops.add(loop)
            if waiter.waits:
                self._end_lost(now_s)
            if waiter.waits:
                turn = loop.create_future()
                waiter.wake = partial(_wake, loop, turn)
                if ask.deadline_s is not None:
                    due_s = self._clock.now() + ask.deadline_s
                    waiter.forget_deadline = self._clock.call_at(due_s, partial(self._expire, waiter))
        try:
            if turn is not None:
                await turn
        except BaseException:
            self.abandon(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        return Grant(self, waiter)

    def charge(self, waiter: Waiter, tokens: int) -> None:
        with self:
            self._dispatch.charge(waiter, tokens)

    def settle(self, waiter: Waiter, usage: Usage, nano_usd: int, *, keeps_slot: bool) -> None:
        with self as now_s:
            self._dispatch.settle(waiter, usage, nano_usd, now_s, keeps_slot=keeps_slot)

    def release(self, waiter: Waiter) -> None:
        with self as now_s:
            self._dispatch.end(waiter, now_s)

    def fold(self, run: str, call: str, labels: Mapping[str, str], usage: Usage, nano_usd: int) -> None:
        with self as now_s:
            self._dispatch.fold(run, call, labels, usage, nano_usd, now_s)

    def update(self, path: Path, tenant: Tenant, stamp: int) -> None:
        with self as now_s:
            self._dispatch.update(path, tenant, stamp, now_s)

    def stats(self) -> dict[str, TenantStats]:
        with self:
            return self._dispatch.stats()

    def abandon(self, waiter: Waiter) -> None:
        """Nobody waits for it, or has its grant, any more. Never blocks: garbage collection may call it anywhere."""
        self._abandoned.append(waiter)
        self._end_abandoned()

    def _expire(self, waiter: Waiter) -> None:
        with self as now_s:
            self._dispatch.expire(waiter, now_s)

    def _look(self) -> None:
        with self as now_s:
            self._dispatch.serve(now_s)

    def _end_lost(self, now_s: float) -> None:
        """Calls whose loop was closed under them: they would keep their slots for ever."""
        closed = [loop for loop in self._loops if loop.is_closed()]
        if closed:
            self._loops.difference_update(closed)
            for waiter in [each for each in self._dispatch.running if each.is_lost is not None and each.is_lost()]:
                logger.warning(
                    "call %s was in flight when its event loop was closed: its slot is free", waiter.ask.call
                )
                self._dispatch.end(waiter, now_s)

    def __enter__(self) -> float:
        """A block that has the lock; what it has decided is carried out at its end. Gives the time."""
        self._lock.acquire()
        return self._clock.monotonic()

    def __exit__(self, *error: object) -> None:
        try:
            self._carry_out()
        finally:
            self._lock.release()
        if self._abandoned:
            self._end_abandoned()

    def _end_abandoned(self) -> None:
        """Whoever had the lock looks here after it: the one that left something here could not wait for it."""
        while self._abandoned and self._lock.acquire(blocking=False):
            try:
                now_s = self._clock.monotonic()
                while self._abandoned:
                    self._dispatch.end(self._abandoned.pop(), now_s)
                self._carry_out()
            finally:
                self._lock.release()

    def _carry_out(self) -> None:
        for error in self._dispatch.errors:
            logger.error("a call was paid for, and what it took of its share is a guess", exc_info=error)
        self._dispatch.errors.clear()
        if self._dispatch.told:
            for waiter in self._dispatch.told:
                if waiter.forget_deadline is not None:
                    waiter.forget_deadline()
                if waiter.wake is not None and not waiter.wake():
                    self._abandoned.append(waiter)
            self._dispatch.told.clear()
        if self._dispatch.again_s is not None:
            self._forget_look()
            self._forget_look = self._clock.call_at(self._clock.now() + self._dispatch.again_s, self._look)
            self._dispatch.again_s = None


def _wake(loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> bool:
    """Whether its loop is there to hear of it."""
    try:
        if asyncio._get_running_loop() is loop:
            _done(turn)
        else:
            loop.call_soon_threadsafe(_done, turn)
    except RuntimeError:  # the loop is closed
        return False
    return True


def _done(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
