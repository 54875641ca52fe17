"""What a tenant, and whoever is below one, may take."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Tenant:
    """What somebody who is charged may take. An unknown one is ``Tenant()``.

    A budget bounds what the runs of this process spend, resumed ones with what they had spent before. Other processes
    have budgets of their own.
    """

    weight: int | float | str | Decimal = 1
    """Its share of what is contended for, among those beside it. A decimal is taken at its digits."""
    priority: int = 0
    """Its band; 0 is the most urgent. A band is served when nobody waits in those before it."""
    budget_usd: int | float | str | Decimal | None = None
    budget_tokens: int | None = None
    """Tokens of prompts and answers together."""
    max_waiting: int | None = None
    """How many of its calls may wait; one more is ``Overloaded``."""
    each: Tenant | None = None
    """What each of those below it may take, unless they are named themselves."""
