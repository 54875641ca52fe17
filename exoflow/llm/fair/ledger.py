"""Who has spent what, and what is reserved: whole tokens and 1e-9 USD. Pure: what it is told, it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from exoflow.llm.fair.policy import Path
from exoflow.llm.fair.tenants import Tenant

Unit = Literal["tokens", "nano_usd"]


@dataclass(slots=True, eq=False)
class Account:
    """Of somebody who is charged; all that is spent below it is spent here too."""

    path: Path
    above: tuple[Account, ...] = field(repr=False)
    """Those that it is part of, from the nearest to the root."""
    upwards: tuple[Account, ...] = field(init=False, repr=False)
    """It, and those above it."""
    limit_tokens: int | None = None
    limit_nano_usd: int | None = None
    spent_tokens: int = 0
    spent_nano_usd: int = 0
    reserved_tokens: int = 0
    reserved_nano_usd: int = 0
    service: int = 0
    """What was spent by the cost function."""
    calls: int = 0
    """How many were settled."""
    waiting: int = 0
    limit_waiting: int | None = None

    def __post_init__(self) -> None:
        self.upwards = (self, *self.above)

    def wait(self, calls: int) -> None:
        """So many more wait; negative: fewer."""
        for each in self.upwards:
            each.waiting += calls

    @property
    def has_budget(self) -> bool:
        return self.limit_tokens is not None or self.limit_nano_usd is not None


class Short(NamedTuple):
    """A budget that has not enough left for a call."""

    account: Account
    unit: Unit
    limit: int
    spent: int
    reserved: int
    asked: int

    @property
    def is_final(self) -> bool:
        """Whether it does not help to wait for the end of what is in flight."""
        return self.spent + self.asked > self.limit

    @property
    def left(self) -> int:
        return self.limit - self.spent - self.reserved


@dataclass(slots=True, eq=False)
class Reservation:
    """The most that a call may take, until it is settled or released."""

    account: Account
    tokens: int
    nano_usd: int
    is_open: bool = True


class Ledger:
    """Accounts by path, each under its parent.

    A call is settled once, ever: by its grant, or by what a resumed run tells of it; in whichever order they come.

    Args:
        terms: what somebody may take.
    """

    def __init__(self, terms: Callable[[Path], Tenant]) -> None:
        self._terms = terms
        self._accounts: dict[Path, Account] = {}
        self._settled: dict[str, set[str]] = {}
        """By run, its calls that are."""

    def account(self, path: Path) -> Account:
        """The one of this path; opened with the budget that its terms give it."""
        found = self._accounts.get(path)
        if found is None:
            found = self._accounts[path] = Account(path, self.account(path[:-1]).upwards if path else ())
            self._limit(found)
        return found

    def limits_changed(self) -> None:
        """The terms are others now."""
        for account in self._accounts.values():
            self._limit(account)

    def _limit(self, account: Account) -> None:
        terms = self._terms(account.path)
        account.limit_tokens = terms.budget_tokens
        account.limit_nano_usd = terms.budget_nano_usd
        account.limit_waiting = terms.max_waiting

    def forget(self, account: Account) -> None:
        """Nobody asks again what was spent there. What is spent above it stays."""
        del self._accounts[account.path]

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def reserve(self, account: Account, tokens: int, nano_usd: int) -> Reservation:
        """Take it from what is left. Whether there is enough says ``short``."""
        for each in account.upwards:
            each.reserved_tokens += tokens
            each.reserved_nano_usd += nano_usd
        return Reservation(account, tokens, nano_usd)

    def release(self, reservation: Reservation) -> None:
        """Give it back; a second time is nothing."""
        if reservation.is_open:
            reservation.is_open = False
            for each in reservation.account.upwards:
                each.reserved_tokens -= reservation.tokens
                each.reserved_nano_usd -= reservation.nano_usd

    def spend(self, account: Account, run: str, call: str, tokens: int, nano_usd: int, service: int = 0) -> bool:
        """Settle a call, whether it was reserved here or long ago. False: it was before, and nothing is spent."""
        if run:  # outside of a flow nobody tells of a call again
            settled = self._settled.setdefault(run, set())
            if call in settled:
                return False
            settled.add(call)
        for each in account.upwards:
            each.spent_tokens += tokens
            each.spent_nano_usd += nano_usd
            each.service += service
            each.calls += 1
        return True


def short(account: Account, tokens: int, nano_usd: int) -> Short | None:
    """The strictest budget that has less left than this; None: all have enough.

    One that is short for good comes before one that may only have to wait; else one with the least part of it left.
    """
    found = [lacking for each in account.upwards if each.has_budget for lacking in _lacking(each, tokens, nano_usd)]
    return min(found, key=lambda each: (not each.is_final, Fraction(each.left, each.asked or 1)), default=None)


def _lacking(account: Account, tokens: int, nano_usd: int) -> Iterator[Short]:
    unit: Unit
    for unit, limit, spent, reserved, asked in (
        ("tokens", account.limit_tokens, account.spent_tokens, account.reserved_tokens, tokens),
        ("nano_usd", account.limit_nano_usd, account.spent_nano_usd, account.reserved_nano_usd, nano_usd),
    ):
        if limit is not None and spent + reserved + asked > limit:
            yield Short(account, unit, limit, spent, reserved, asked)
