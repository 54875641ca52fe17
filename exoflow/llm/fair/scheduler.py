"""``FairScheduler``: whose call of an endpoint is next, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exoflow.llm.engine.request import Overloaded, Usage
from exoflow.llm.fair.asks import Ask
from exoflow.llm.fair.tenants import Tenant

__all__ = ["Ask", "FairScheduler", "Grant", "Overloaded", "Tenant"]


class Grant:
    """A call's turn: a slot, and what is reserved for it. End it once, by ``settle`` or ``release``; more is nothing."""

    def charge(self, tokens: int) -> None:
        """So many tokens more of its answer have come."""

    def settle(self, usage: Usage, nano_usd: int) -> None:
        """It has been answered, and this is billed."""

    def release(self) -> None:
        """It has failed, or is wanted no more: nothing is billed."""


class FairScheduler:
    """Whose call is next, for all runs of the process that have an equal one. A description: it can be pickled."""

    def __init__(
        self,
        policy: str = "vtc",
        *,
        slots: int = 64,
        cost: object = None,
        charge: str = "reserve",
        group_by: Sequence[str] = ("tenant", "user"),
        tenants: Mapping[str | tuple[str, ...], Tenant] | None = None,
        name: str | None = None,
    ) -> None:
        self.policy = policy

    async def admit(self, ask: Ask) -> Grant:
        """Wait for the call's turn.

        Raises:
            BudgetExceeded: it may cost more than a budget has left.
            Overloaded: too many wait, or its deadline has passed.
        """
        return Grant()

    def fold(self, run: str, call: str, labels: Mapping[str, str], usage: Usage, nano_usd: int) -> None:
        """Charge what a resumed run had spent before: once for each call, however often it is told."""

    def update(self, name: str | tuple[str, ...], tenant: Tenant) -> None:
        """Change what somebody may take, at once. In a flow it is recorded."""
