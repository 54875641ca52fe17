"""``FairScheduler``: whose call of an endpoint is next, and what it may cost."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exoflow.context import calling_body
from exoflow.driver.clock import clock_in_use
from exoflow.extras import needed
from exoflow.llm.engine.request import Overloaded, Usage
from exoflow.llm.fair.asks import Ask, Waiter
from exoflow.llm.fair.charges import Charge
from exoflow.llm.fair.costs import Cost, Linear
from exoflow.llm.fair.meters import TenantStats
from exoflow.llm.fair.policy import Path, Policy, path_of
from exoflow.llm.fair.recorded import updated
from exoflow.llm.fair.settings import PolicyName, Settings
from exoflow.llm.fair.tenants import Tenant
from exoflow.llm.fair.turns import Grant, Turns

if TYPE_CHECKING:
    from exoflow.refs import Ref

__all__ = ["Ask", "FairScheduler", "Grant", "Overloaded", "Tenant", "TenantStats"]


class FairScheduler:
    """Whose call is next, and what it may cost.

    A description: it is pickled with those who have it. What waits, is spent and reserved lives in the process that
    controls their runs, and is shared by the copies of the description, by all threads and event loops. Another
    scheduler shares nothing with it, unless they have a name in common; other processes never do.

    Who is charged for a call say its labels, ``group_by`` which of them: a tenant, its user, and below them the run.
    Shares are kept at each of these levels. A budget is reserved before the call, and what it did not take is given
    back at its end: calls in flight cannot overspend together. A call waits while it may still fit, and is refused
    when it cannot. What is billed beyond ``max_tokens`` and the estimated input is spent all the same.

    Args:
        policy: who is next within a band: ``"vtc"``; what it can be compared with, ``"fcfs"``, ``"lcf"``, ``"drr"``; or
            an importable function that makes one, ``partial(RPM, 60)``.
        slots: how many calls are in flight at once.
        cost: what a call takes of its client's share. Who asks for what it cannot price is told so; where it fails for
            a call that was paid for, that is logged, and the call has taken what it reserved.
        charge: ``"reserve"``: ``max_tokens`` are charged when the call goes, and corrected at its end. ``"complete"``:
            what has come; shares are several times less close.
        group_by: the labels that say who is charged, from the root.
        tenants: who may take what: a tenant by its name, whoever is below by the path, ``("acme", "ann")``; ``()`` are
            all together.
        each_run: what each run may take, unless it or its user says.
        ageing_s: a call that has waited so long rises by one band, and by another after as long again. None: never.
        name: schedulers of one name are one. That which this process has made rules over those that came out of
            records: so a resumed run has the budgets that its program says now.

    Raises:
        ValueError: a value is out of range; or the name is that of one with other settings.
    """

    def __init__(
        self,
        policy: PolicyName | Callable[[], Policy[Waiter]] = "vtc",
        *,
        slots: int = 64,
        cost: Cost | None = None,
        charge: Charge = "reserve",
        group_by: Sequence[str] = ("tenant", "user"),
        tenants: Mapping[str | Path, Tenant] | None = None,
        each_run: Tenant | None = None,
        ageing_s: float | None = None,
        name: str | None = None,
    ) -> None:
        if tenants is not None and not isinstance(tenants, Mapping):
            raise TypeError(f"tenants={tenants!r}: give a dict, as {{'acme': Tenant(weight=2)}}")
        given: object = name
        if given is not None and not (isinstance(given, str) and given):
            raise TypeError(f"name={name!r}: give a text, or none")
        if isinstance(group_by, str):
            raise TypeError(f"group_by={group_by!r} is a list of labels: write group_by=({group_by!r},)")
        named = tuple((path_of(who), tenant) for who, tenant in (tenants or {}).items())
        self._settings = Settings(
            policy, slots, cost or Linear(1, 2), charge, tuple(group_by), named, each_run, ageing_s
        )
        self.name = name or uuid.uuid4().hex
        """Of all its copies."""
        if name is not None:
            _make(name, self._settings)

    async def admit(self, ask: Ask) -> Grant:
        """Wait for the call's turn.

        Raises:
            BudgetExceeded: it may take more than a budget has left.
            WrongRequest: a budget is kept, and the ask does not say what it may take.
            Overloaded: too many wait, or its deadline has passed.
        """
        return await self._turns().admit(ask)

    def fold(self, run: str, call: str, labels: Mapping[str, str], usage: Usage, nano_usd: int) -> None:
        """Charge what a run had spent before it was resumed: once for each call, however often it is told.

        Budgets have all of it. Shares have what is told before the first call gets its turn in this process.
        """
        self._turns().fold(run, call, labels, usage, nano_usd)

    def update(self, who: str | Path, tenant: Tenant) -> Awaitable[None]:
        """Change what somebody may take, at once, for those who wait too. In a flow it is a recorded call.

        In an async flow write ``await sched.update(...)``; elsewhere it is done when this returns. A replay makes it
        again; not that of a child flow which has ended: nothing of it is replayed.
        """
        path = self._settings.checked(path_of(who), tenant)
        body = calling_body()
        if body is None:
            self._turns().update(path, tenant, time.time_ns())
            return _Done()
        ref = updated.submit(path, tenant)
        if body.is_async:
            return self._updated(path, tenant, ref)
        self._turns().update(path, tenant, ref.result())
        return _Done()

    async def _updated(self, path: Path, tenant: Tenant, at: Ref[int]) -> None:
        self._turns().update(path, tenant, await at)

    def stats(self) -> dict[str, TenantStats]:
        """How each tenant stands in this process."""
        return self._turns().stats()

    def prometheus(self) -> str:
        """The same in Prometheus' text form. For a registry of yours: ``fair.prometheus.SchedulerCollector``."""
        with needed("FairScheduler.prometheus()", "calls"):
            from exoflow.llm.fair.prometheus import shown

        return shown(self)

    def _turns(self) -> Turns:
        with _lock:
            found = _live.get(self.name)
            if found is None:
                settings = _made.get(self.name, self._settings)
                found = _live[self.name] = settings.turns(clock_in_use())
            return found

    def __repr__(self) -> str:
        return f"FairScheduler({self._settings.policy!r}, slots={self._settings.slots}, name={self.name!r})"


class _Done:
    """What may be awaited, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_live: dict[str, Turns] = {}
_made: dict[str, Settings] = {}
"""Of the schedulers with names, what this process says."""
_lock = threading.Lock()


def _make(name: str, settings: Settings) -> None:
    with _lock:
        before = _made.get(name, settings)
        if replace(before, tenants=settings.tenants) != settings:
            raise ValueError(f"a FairScheduler named {name!r} has other settings: {before}. Give this one another name")
        _made[name] = settings
        live = _live.get(name)
    if live is not None:
        for path, tenant in settings.tenants:
            if tenant != dict(before.tenants).get(path):
                live.update(path, tenant, time.time_ns())
