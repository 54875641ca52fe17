"""What is told of each tenant."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from exoflow.llm.fair.ledger import Account
from exoflow.model import NANO_USD_PER_USD

KEPT = 1024
"""Of so many last waits p95 is told."""


@dataclass(frozen=True, slots=True)
class TenantStats:
    """How one tenant stands, now."""

    waiting: int
    in_flight: int
    wait_p95_s: float
    """Of the last 1,024 calls that got their turn."""
    calls: int
    """How many were settled, those that resumed runs had made before among them."""
    refused: int
    """For a budget, a limit or a deadline."""
    service: int
    """What was charged: ``cost(input, output)``, in whole tokens of the cost function."""
    share: float
    """Of the service of all."""
    counter: float
    """Its virtual time, where the policy has one."""
    spent_tokens: int
    spent_usd: Decimal
    reserved_usd: Decimal


@dataclass(slots=True)
class Meter:
    """What is counted of one tenant, besides its account."""

    in_flight: int = 0
    refused: int = 0
    waits_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def stats(self, account: Account, service: int, counter: float) -> TenantStats:
        """How it stands. ``service`` is that of all."""
        ordered = sorted(self.waits_s)
        return TenantStats(
            waiting=account.waiting,
            in_flight=self.in_flight,
            wait_p95_s=ordered[-(-len(ordered) * 95 // 100) - 1] if ordered else 0.0,
            calls=account.calls,
            refused=self.refused,
            service=account.service,
            share=account.service / service if service else 0.0,
            counter=counter,
            spent_tokens=account.spent_tokens,
            spent_usd=Decimal(account.spent_nano_usd) / NANO_USD_PER_USD,
            reserved_usd=Decimal(account.reserved_nano_usd) / NANO_USD_PER_USD,
        )
