"""The live state of a scheduler: who waits, who is in flight, what is spent. One lock; any thread, any event loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import partial

from exoflow.errors import LLMError
from exoflow.llm.engine.request import Overloaded, Usage
from exoflow.llm.fair.asks import Ask, Client, Place, Waiter
from exoflow.llm.fair.baselines import RPM
from exoflow.llm.fair.costs import Cost, Linear
from exoflow.llm.fair.holding import Held
from exoflow.llm.fair.ledger import Ledger, short
from exoflow.llm.fair.meters import Meter, TenantStats
from exoflow.llm.fair.policy import Policy
from exoflow.llm.fair.refusals import check_budgets, check_waiting, exceeded, too_late
from exoflow.llm.fair.tenants import NANO, Amount, Path, Tenant, Tenants
from exoflow.llm.fair.vtc import VTC
from exoflow.protocols import Clock


class Grant:
    """A call's turn: a slot, and what is reserved for it.

    End it by ``settle`` or ``release``; what comes after is nothing. One that is forgotten is released.
    """

    __slots__ = ("_turns", "_waiter")

    def __init__(self, turns: Turns, waiter: Waiter) -> None:
        self._turns = turns
        self._waiter = waiter

    def charge(self, tokens: int) -> None:
        """So many tokens more of its answer have come."""
        self._turns.charge(self._waiter, tokens)

    def settle(self, usage: Usage, nano_usd: int) -> None:
        """It was answered, and this is billed. A call that was settled before is not charged again."""
        self._turns.settle(self._waiter, usage, nano_usd)

    def release(self) -> None:
        """It has failed, or is wanted no more: nothing is billed."""
        self._turns.release(self._waiter)

    def __del__(self) -> None:
        if self._waiter.place is Place.RUNNING:
            self._turns.abandon(self._waiter)


class Turns:
    """What all equal descriptions of a scheduler in a process share.

    Args:
        levels: the labels that say who is charged, from the root.
        slots: how many calls are in flight at once.
    """

    def __init__(
        self,
        policy: Policy[Waiter],
        cost: Cost,
        tenants: Tenants,
        levels: tuple[str, ...],
        slots: int,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._vtc = policy if isinstance(policy, VTC) else None
        self._cost = cost
        self._tenants = tenants
        self._levels = levels
        self._free = slots
        self._clock = clock
        self._ledger = Ledger(tenants.of)
        self._held = Held()
        self._clients: dict[Path, Client] = {}
        self._meters: dict[str, Meter] = {}
        self._weights: dict[Path, Amount] = {}
        """As the policy was told."""
        self._stamps: dict[Path, int] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._abandoned: list[Waiter] = []
        self._forget_pause: Callable[[], None] = lambda: None

    async def admit(self, ask: Ask) -> Grant:
        """As ``FairScheduler.admit``."""
        turn: asyncio.Future[None] | None = None
        with self._changing() as now_s:
            waiter = self._join(ask, now_s)
            self._serve(now_s)
            if waiter.place in (Place.QUEUED, Place.HELD):
                self._check_waiting(waiter, now_s)
                loop = asyncio.get_running_loop()
                turn = loop.create_future()
                waiter.wake = partial(_wake, loop, turn)
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
        with self._changing():
            if waiter.place is Place.RUNNING:
                waiter.charged += tokens
                self._policy.charge(waiter, tokens)

    def settle(self, waiter: Waiter, usage: Usage, nano_usd: int) -> None:
        with self._changing() as now_s:
            if waiter.place is Place.RUNNING:
                if usage.completion_tokens > waiter.charged:
                    self._policy.charge(waiter, usage.completion_tokens - waiter.charged)
                self._spend(waiter.of, waiter.ask.run, waiter.ask.call, usage, nano_usd)
                self._end(waiter, now_s, self._cost_of(usage))

    def release(self, waiter: Waiter) -> None:
        with self._changing() as now_s:
            self._end(waiter, now_s)

    def fold(self, run: str, call: str, labels: Mapping[str, str], usage: Usage, nano_usd: int) -> None:
        """As ``FairScheduler.fold``."""
        with self._changing():
            of = self._client(self._path(labels, run))
            if self._spend(of, run, call, usage, nano_usd) and self._vtc is not None:
                self._vtc.spend(of.path, self._cost_of(usage), of.band)

    def _spend(self, of: Client, run: str, call: str, usage: Usage, nano_usd: int) -> bool:
        tokens = usage.prompt_tokens + usage.completion_tokens
        return self._ledger.spend(of.account, run, call, tokens, nano_usd, self._cost_of(usage))

    def _cost_of(self, usage: Usage) -> int:
        """What is billed: tokens of the prompt that were cached have a price of their own."""
        if isinstance(self._cost, Linear):
            return self._cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        return self._cost(usage.prompt_tokens, usage.completion_tokens)

    def update(self, path: Path, tenant: Tenant, stamp: int) -> None:
        """From now on; nothing, if a later one was told before."""
        with self._changing() as now_s:
            if stamp < self._stamps.get(path, stamp):
                return
            self._stamps[path] = stamp
            self._tenants.update(path, tenant)
            self._ledger.limits_changed()
            for client in self._clients.values():
                self._look_up(client)
            for waiter in [each for each in self._policy if each.priority != each.of.band]:
                self._policy.cancel(waiter)
                waiter.priority = waiter.of.band
                self._policy.add(waiter, now_s)
            self._queue(self._held.freed(None), now_s)
            self._serve(now_s)

    def stats(self) -> dict[str, TenantStats]:
        """As ``FairScheduler.stats``."""
        with self._changing():
            return {name: self._stats(name, meter) for name, meter in self._meters.items()}

    def _stats(self, name: str, meter: Meter) -> TenantStats:
        account, all_together = self._ledger.account((name,)), self._ledger.account(())
        return TenantStats(
            waiting=account.waiting,
            in_flight=meter.in_flight,
            wait_p95_s=meter.wait_p95_s,
            calls=account.calls,
            refused=meter.refused,
            service=account.service,
            share=account.service / all_together.service if all_together.service else 0.0,
            counter=self._counter((name,)),
            spent_tokens=account.spent_tokens,
            spent_usd=Decimal(account.spent_nano_usd) / NANO,
            reserved_usd=Decimal(account.reserved_nano_usd) / NANO,
        )

    def _counter(self, path: Path) -> float:
        if self._vtc is None:
            return 0.0
        return float(self._vtc.counters(self._tenants.band(path)).get(path, 0))

    def abandon(self, waiter: Waiter) -> None:
        """Nobody waits for it, or has its grant, any more. Never blocks: garbage collection may call it anywhere."""
        self._abandoned.append(waiter)
        self._end_abandoned()

    def _end_abandoned(self) -> None:
        """Whoever had the lock looks here after it: the one that left something here could not wait for it."""
        while self._abandoned and self._lock.acquire(blocking=False):
            try:
                now_s = self._clock.monotonic()
                while self._abandoned:
                    self._end(self._abandoned.pop(), now_s)
            finally:
                self._lock.release()

    @contextmanager
    def _changing(self) -> Iterator[float]:
        """A block that has the lock; what is below is called in it. Gives the time."""
        try:
            with self._lock:
                yield self._clock.monotonic()
        finally:
            self._end_abandoned()

    def _path(self, labels: Mapping[str, str], run: str) -> Path:
        return (*[labels.get(level, "") for level in self._levels], run)

    def _client(self, path: Path) -> Client:
        found = self._clients.get(path)
        if found is None:
            meter = self._meters.setdefault(path[0], Meter())
            found = self._clients[path] = Client(path, self._ledger.account(path), meter)
            self._look_up(found)
        return found

    def _look_up(self, client: Client) -> None:
        """What its terms are now."""
        client.band = self._tenants.band(client.path)
        client.has_budget = any(account.has_budget for account in client.account.upwards())
        if self._vtc is not None:
            for account in client.account.upwards():
                weight = self._tenants.of(account.path).weight
                if self._weights.get(account.path, 1) != weight:
                    self._weights[account.path] = weight
                    self._vtc.weigh(account.path, weight)

    def _join(self, ask: Ask, now_s: float) -> Waiter:
        """It waits, or is refused at once."""
        of = self._client(self._path(ask.labels, ask.run))
        try:
            check_budgets(ask, of.account, self._levels)
        except LLMError:
            of.meter.refused += 1
            raise
        waiter = Waiter(
            ask=ask,
            of=of,
            number=next(self._numbers),
            arrival_s=now_s,
            input_tokens=ask.input_tokens,
            max_output_tokens=ask.max_output_tokens or 0,
            priority=of.band,
            client=of.path,
            job=ask.job,
        )
        of.account.wait(1)
        if self._held and self._held.is_behind(waiter):
            self._held.hold(waiter)
        else:
            self._policy.add(waiter, now_s)
        if ask.deadline_s is not None:
            due_s = self._clock.now() + ask.deadline_s
            waiter.forget_deadline = self._clock.call_at(due_s, partial(self._expire, waiter))
        return waiter

    def _check_waiting(self, waiter: Waiter, now_s: float) -> None:
        try:
            check_waiting(waiter.of.account, self._levels)
        except Overloaded as error:
            self._refuse(waiter, error, now_s)
            raise

    def _serve(self, now_s: float) -> None:
        """Slots to those whose turn it is. Nobody is skipped because it does not fit: that would break the bound."""
        while self._free > 0 and (waiter := self._policy.peek(now_s)) is not None:
            if self._held and self._held.is_behind(waiter):
                self._policy.cancel(waiter)
                self._held.hold(waiter)
                continue
            lack = short(waiter.of.account, *waiter.ask.most) if waiter.of.has_budget else None
            if lack is not None and lack.is_final:
                self._refuse(waiter, exceeded(lack, self._levels), now_s)
            elif lack is not None:
                self._policy.cancel(waiter)
                self._held.hold(waiter, lack.account)
            elif self._has_room(waiter):
                self._policy.pop(now_s)
                self._start(waiter, now_s)
            else:
                return
        if isinstance(self._policy, RPM) and self._free > 0 and (ready_s := self._policy.ready_s(now_s)) is not None:
            self._look_again(ready_s - now_s)

    def _has_room(self, waiter: Waiter) -> bool:
        """Whether its endpoint takes it now; else there will be another look."""
        if waiter.ask.pace is None:
            return True
        wait_s = waiter.ask.pace.take(waiter.ask.most[0])
        if wait_s:
            self._look_again(wait_s)
        return not wait_s

    def _look_again(self, wait_s: float) -> None:
        self._forget_pause()
        self._forget_pause = self._clock.call_at(self._clock.now() + wait_s, self._go_on)

    def _go_on(self) -> None:
        with self._changing() as now_s:
            self._serve(now_s)

    def _start(self, waiter: Waiter, now_s: float) -> None:
        waiter.place = Place.RUNNING
        waiter.reservation = self._ledger.reserve(waiter.of.account, *waiter.ask.most)
        self._free -= 1
        waiter.of.meter.in_flight += 1
        waiter.of.meter.waits_s.append(now_s - waiter.arrival_s)
        self._left(waiter, now_s)

    def _refuse(self, waiter: Waiter, error: Exception, now_s: float) -> None:
        waiter.error = error
        waiter.of.meter.refused += 1
        self._withdraw(waiter, now_s)

    def _expire(self, waiter: Waiter) -> None:
        with self._changing() as now_s:
            if waiter.place in (Place.QUEUED, Place.HELD):
                self._refuse(waiter, too_late(waiter), now_s)
                self._serve(now_s)

    def _withdraw(self, waiter: Waiter, now_s: float) -> None:
        """It waits no more."""
        if waiter.place is Place.QUEUED:
            self._policy.cancel(waiter)
        waiter.place = Place.GONE
        self._left(waiter, now_s)

    def _left(self, waiter: Waiter, now_s: float) -> None:
        """It was served or refused, or is wanted no more."""
        waiter.of.account.wait(-1)
        if waiter.forget_deadline is not None:
            waiter.forget_deadline()
        self._queue(self._held.left(waiter), now_s)
        if waiter.wake is not None and not waiter.wake():
            self._abandoned.append(waiter)

    def _queue(self, waiters: Iterable[Waiter], now_s: float) -> None:
        for waiter in waiters:
            self._policy.add(waiter, now_s)

    def _end(self, waiter: Waiter, now_s: float, billed: int | None = None) -> None:
        """Whatever it is at. A second time is nothing. Without a bill it is charged for what has come of its answer."""
        if waiter.place is Place.RUNNING:
            waiter.place = Place.GONE
            self._policy.finish(waiter, billed if billed is not None or waiter.charged else 0)
            self._free += 1
            waiter.of.meter.in_flight -= 1
            assert waiter.reservation is not None
            self._ledger.release(waiter.reservation)
            self._queue(self._held.freed(waiter.of.account), now_s)
        elif waiter.place is not Place.GONE:
            self._withdraw(waiter, now_s)
        self._serve(now_s)


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
