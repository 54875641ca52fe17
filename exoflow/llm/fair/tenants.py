"""What a tenant, and whoever is below one, may take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exoflow.llm.fair.costs import Amount, exact, weight_of
from exoflow.llm.fair.policy import Path
from exoflow.model import NANO_USD_PER_USD


@dataclass(frozen=True, slots=True)
class Tenant:
    """What somebody who is charged may take. An unknown one is ``Tenant()``.

    A budget bounds what the runs of this process spend, resumed ones with what they had spent before. Other processes
    have budgets of their own.

    Raises:
        ValueError: a value is out of range.
    """

    weight: Amount = 1
    """Its share of what is contended for, among those beside it. A decimal is taken at its digits."""
    priority: int = 0
    """Its band; 0 is the most urgent. A band is served when nobody waits in those before it. Who is below a tenant can
    be put behind it, not before it.
    """
    budget_usd: Amount | None = None
    budget_tokens: int | None = None
    """Tokens of prompts and answers together."""
    max_waiting: int | None = None
    """How many of its calls may wait; one more is ``Overloaded``."""
    each: Tenant | None = None
    """What each of those below it may take, unless they are named themselves."""

    def __post_init__(self) -> None:
        weight_of(self.weight)
        for name in ("priority", "budget_tokens", "max_waiting"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0)
        if self.budget_usd is not None:
            nano_usd("budget_usd", self.budget_usd)
        if self.each is not None:
            check_tenant("each", self.each)

    @property
    def budget_nano_usd(self) -> int | None:
        return None if self.budget_usd is None else nano_usd("budget_usd", self.budget_usd)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from there.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number from {least}")


def check_tenant(name: str, value: object) -> None:
    """Refuse anything else.

    Raises:
        TypeError: it is no ``Tenant``.
    """
    if not isinstance(value, Tenant):
        raise TypeError(f"{name}={value!r}: give a Tenant")


def nano_usd(name: str, usd: Amount) -> int:
    """The amount in 1e-9 USD.

    Raises:
        ValueError: it is negative, or finer than that.
    """
    nano = exact(usd) * NANO_USD_PER_USD
    if nano < 0 or nano.denominator != 1:
        raise ValueError(f"{name}={usd!r}: give USD from 0, in steps of 1e-9")
    return int(nano)


class Tenants:
    """Who may take what, by path; ``()`` are all together."""

    def __init__(self, named: Iterable[tuple[Path, Tenant]], each_run: Tenant | None, depth: int) -> None:
        self._named = dict(named)
        self._each_run = each_run
        self._depth = depth

    def of(self, path: Path) -> Tenant:
        """As named; else as whoever is above says of each; else ``Tenant()``."""
        named = self._named.get(path)
        if named is not None or not path:
            return named or _ANYBODY
        above = self.of(path[:-1]).each
        if above is None and len(path) == self._depth and path[-1]:
            above = self._each_run
        return above or _ANYBODY

    def band(self, path: Path) -> int:
        """The last of the bands that it and those above it are in."""
        return max(self.of(path[:length]).priority for length in range(len(path) + 1))

    def update(self, path: Path, tenant: Tenant) -> None:
        self._named[path] = tenant


_ANYBODY = Tenant()
