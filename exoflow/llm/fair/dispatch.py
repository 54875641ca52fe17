"""What a scheduler decides: who is next, who is held back, who is refused. Pure: it is told the time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from exoflow.errors import LLMError
from exoflow.llm.engine.request import Overloaded, Usage
from exoflow.llm.fair.asks import Ask, Client, Place, Waiter
from exoflow.llm.fair.baselines import RPM
from exoflow.llm.fair.clients import Clients
from exoflow.llm.fair.costs import Amount, Checked, Cost, checked, cost_of
from exoflow.llm.fair.holding import Held
from exoflow.llm.fair.ledger import short
from exoflow.llm.fair.meters import TenantStats
from exoflow.llm.fair.policy import Path, Policy
from exoflow.llm.fair.refusals import check_budgets, check_waiting, exceeded, too_late
from exoflow.llm.fair.tenants import Tenant, Tenants
from exoflow.llm.fair.vtc import VTC


class Dispatch:
    """All that waits, is in flight, and was spent.

    After each call those in ``told`` have their turn, or were refused; if ``again_s`` is set, ``serve`` is to be called
    after so many seconds; and ``errors`` are those of a cost function at calls that were paid for, which go on.

    Args:
        levels: the labels that say who is charged, from the root.
        slots: how many calls are in flight at once.
    """

    def __init__(
        self, policy: Policy[Waiter], cost: Cost, tenants: Tenants, levels: tuple[str, ...], slots: int
    ) -> None:
        self._policy = policy
        self._vtc = policy if isinstance(policy, VTC) else None
        self._cost = checked(cost)
        self._levels = levels
        self._free = slots
        self._has_begun = False
        self._held = Held()
        self._clients = Clients(tenants, levels, self._weigh)
        self._ledger = self._clients.ledger
        self._numbers = itertools.count()
        self.running: set[Waiter] = set()
        self.told: list[Waiter] = []
        self.errors: list[Exception] = []
        self.again_s: float | None = None

    def join(self, ask: Ask, now_s: float) -> Waiter:
        """It gets its turn, or waits for it.

        Raises:
            WrongRequest, BudgetExceeded, Overloaded: it is refused.
            LLMError: the cost function fails for it.
        """
        of = self._clients.of(ask.labels, ask.run)
        if isinstance(self._cost, Checked):  # before it is in anybody's way
            self._cost(ask.input_tokens, 0)
            self._most_of(ask)
        if of.has_budget:
            self._check_budgets(ask, of)
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
        self.serve(now_s)
        if waiter.waits:
            self._check_waiting(waiter, now_s)
        return waiter

    def _check_budgets(self, ask: Ask, of: Client) -> None:
        try:
            check_budgets(ask, of.account, self._levels)
        except LLMError:
            of.meter.refused += 1
            raise

    def _check_waiting(self, waiter: Waiter, now_s: float) -> None:
        try:
            check_waiting(waiter.of.account, self._levels)
        except Overloaded as error:
            self._refuse(waiter, error, now_s)
            raise

    def charge(self, waiter: Waiter, tokens: int) -> None:
        """So many tokens more of its answer have come."""
        if waiter.place is Place.RUNNING:
            waiter.charged += tokens
            self._charge(waiter, tokens)

    def _charge(self, waiter: Waiter, tokens: int) -> None:
        try:
            self._policy.charge(waiter, tokens)
        except (LLMError, ValueError) as error:  # what is paid for must not be lost by it
            self.errors.append(error)

    def settle(self, waiter: Waiter, usage: Usage, nano_usd: int, now_s: float, *, keeps_slot: bool = False) -> None:
        """It was answered, and this is billed. Nothing, if it has ended."""
        if waiter.place is Place.RUNNING:
            if usage.completion_tokens > waiter.charged:
                self._charge(waiter, usage.completion_tokens - waiter.charged)
            service = self._service(usage)
            if service is None:
                service = self._most_of(waiter.ask)
            self._spend(waiter.of, waiter.ask.run, waiter.ask.call, usage, nano_usd, service)
            self._finish(waiter, now_s, service)
            if not keeps_slot:
                self._leave(waiter)
            self.serve(now_s)

    def end(self, waiter: Waiter, now_s: float) -> None:
        """Whether it waits or is in flight; nothing, if it has ended. Without a bill it has used what has come."""
        if waiter.place is Place.RUNNING:
            self._finish(waiter, now_s, None if waiter.charged else 0)
        if waiter.place is Place.SETTLED:
            self._leave(waiter)
        elif waiter.waits:
            self._withdraw(waiter, now_s)
        self.serve(now_s)

    def _finish(self, waiter: Waiter, now_s: float, billed: int | None) -> None:
        """What it was charged and has reserved is put right."""
        waiter.place = Place.SETTLED
        self.running.discard(waiter)
        try:
            self._policy.finish(waiter, billed)
        except LLMError as error:
            self.errors.append(error)
            self._policy.finish(waiter, self._most_of(waiter.ask))
        assert waiter.reservation is not None
        self._ledger.release(waiter.reservation)
        self._queue(self._held.freed(waiter.of.account), now_s)

    def _leave(self, waiter: Waiter) -> None:
        waiter.place = Place.GONE
        self._free += 1
        waiter.of.meter.in_flight -= 1

    def expire(self, waiter: Waiter, now_s: float) -> None:
        """Its deadline has come."""
        if waiter.waits:
            self._refuse(waiter, too_late(waiter), now_s)
            self.serve(now_s)

    def fold(self, run: str, call: str, labels: Mapping[str, str], usage: Usage, nano_usd: int, now_s: float) -> None:
        """As ``FairScheduler.fold``.

        Counters have it while nothing has been dispatched here. Later it would be a debt to those that run here, who
        were not there when it was spent, and could take all until it is paid.
        """
        of, service = self._clients.of(labels, run), self._service(usage) or 0
        if self._spend(of, run, call, usage, nano_usd, service):
            if self._vtc is not None and not self._has_begun:
                self._vtc.spend(of.path, service, of.band)
            self._queue(self._held.freed(of.account), now_s)  # what it leaves is too little for ever, for some
            self.serve(now_s)

    def _spend(self, of: Client, run: str, call: str, usage: Usage, nano_usd: int, service: int) -> bool:
        tokens = usage.prompt_tokens + usage.completion_tokens
        return self._ledger.spend(of.account, run, call, tokens, nano_usd, service)

    def _service(self, usage: Usage) -> int | None:
        """As it is billed: tokens of the prompt that were cached have a price of their own. None: nobody knows."""
        try:
            return cost_of(self._cost, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        except LLMError as error:
            self.errors.append(error)
            return None

    def _most_of(self, ask: Ask) -> int:
        return self._cost(ask.input_tokens, ask.max_output_tokens or 0)

    def update(self, path: Path, tenant: Tenant, stamp: int, now_s: float) -> None:
        """From now on; nothing, if a later one was told before."""
        if self._clients.update(path, tenant, stamp):
            moved = [waiter for waiter in self._policy if waiter.priority != waiter.of.band]
            for waiter in moved:
                self._policy.cancel(waiter)
            self._queue(moved, now_s)
            self._queue(self._held.freed(None), now_s)
            self.serve(now_s)

    def _weigh(self, path: Path, weight: Amount) -> None:
        if self._vtc is not None:
            self._vtc.weigh(path, weight)

    def serve(self, now_s: float) -> None:
        """Slots to those whose turn it is. Nobody is skipped because it does not fit: that would break the bound."""
        while self._free > 0 and (waiter := self._policy.peek(now_s)) is not None:
            if self._is_held(waiter, now_s):
                continue
            if waiter.ask.pace is not None and (self._wait_for(waiter.ask.pace.take(waiter.ask.most[0]))):
                return
            self._policy.pop(now_s)
            self._start(waiter, now_s)
        if isinstance(self._policy, RPM) and self._free > 0 and (ready_s := self._policy.ready_s(now_s)) is not None:
            self._wait_for(ready_s - now_s)

    def _is_held(self, waiter: Waiter, now_s: float) -> bool:
        """Whether a budget keeps it, which it has left the queue for."""
        if self._held and self._held.is_behind(waiter):
            self._policy.cancel(waiter)
            self._held.hold(waiter)
            return True
        lack = short(waiter.of.account, *waiter.ask.most) if waiter.of.has_budget else None
        if lack is None:
            return False
        if lack.is_final:
            self._refuse(waiter, exceeded(lack, self._levels), now_s)
        else:
            self._policy.cancel(waiter)
            self._held.hold(waiter, lack.account)
        return True

    def _wait_for(self, seconds: float) -> float:
        if seconds:
            self.again_s = seconds
        return seconds

    def _start(self, waiter: Waiter, now_s: float) -> None:
        waiter.place = Place.RUNNING
        self.running.add(waiter)
        waiter.reservation = self._ledger.reserve(waiter.of.account, *waiter.ask.most)
        self._free -= 1
        self._has_begun = True
        waiter.of.meter.in_flight += 1
        waiter.of.meter.waits_s.append(now_s - waiter.arrival_s)
        self._left(waiter, now_s)

    def _refuse(self, waiter: Waiter, error: Exception, now_s: float) -> None:
        waiter.error = error
        waiter.of.meter.refused += 1
        self._withdraw(waiter, now_s)

    def _withdraw(self, waiter: Waiter, now_s: float) -> None:
        """It waits no more."""
        if waiter.place is Place.QUEUED:
            self._policy.cancel(waiter)
        waiter.place = Place.GONE
        self._left(waiter, now_s)

    def _left(self, waiter: Waiter, now_s: float) -> None:
        waiter.of.account.wait(-1)
        self._queue(self._held.left(waiter), now_s)
        self.told.append(waiter)

    def _queue(self, waiters: Iterable[Waiter], now_s: float) -> None:
        for waiter in waiters:
            waiter.priority = waiter.of.band
            self._policy.add(waiter, now_s)

    def stats(self) -> dict[str, TenantStats]:
        """As ``FairScheduler.stats``."""
        everyone = self._ledger.account(())
        found = {}
        for name, meter in self._clients.meters.items():
            account, counters = self._ledger.account((name,)), {}
            if self._vtc is not None:
                counters = self._vtc.counters(self._clients.band((name,)))
            found[name] = meter.stats(account, everyone.service, float(counters.get((name,), 0)))
        return found
