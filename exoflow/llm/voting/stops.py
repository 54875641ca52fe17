"""When an adaptive vote has heard enough: rules that see the votes so far, in sample order, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Protocol

from exoflow.llm.laws import beta_confidence, exact
from exoflow.llm.voting.tally import Tally
from exoflow.model import NANO_USD_PER_USD


@dataclass(slots=True)
class Heard:
    """The contiguous prefix of the samples, as far as it is known: what a rule decides on."""

    votes: list[Hashable | None] = field(default_factory=list)
    """None: it abstained."""
    tally: Tally = field(default_factory=lambda: Tally({}, {}))
    nano_usd: int = 0
    """What all of them cost."""
    dearest: int = 0

    def hear(self, vote: Hashable | None, nano_usd: int = 0) -> None:
        """The next sample."""
        self.votes.append(vote)
        if vote is not None:
            self.tally.add(vote)
        self.nano_usd += nano_usd
        self.dearest = max(self.dearest, nano_usd)


class Stop(Protocol):
    """A rule: a frozen dataclass, so that a run's inputs can be compared. Pure."""

    def enough(self, heard: Heard) -> bool:
        """Whether the vote ends here. Asked after every sample, in their order."""
        ...

    def affords(self, heard: Heard, in_flight: int) -> bool:
        """Whether another call may be made beside those that are not heard of yet."""
        ...


class Rule:
    """What all rules share: ``a | b`` ends with the first of them."""

    __slots__ = ()

    def affords(self, heard: Heard, in_flight: int) -> bool:
        return True

    def __or__(self, other: Stop) -> First:
        check_stop(other)
        return First((self, other))  # type: ignore[arg-type]  # each rule has its ``enough``


@dataclass(frozen=True, slots=True)
class First(Rule):
    """Ends with the first of several rules."""

    rules: tuple[Stop, ...]

    def enough(self, heard: Heard) -> bool:
        return any(rule.enough(heard) for rule in self.rules)

    def affords(self, heard: Heard, in_flight: int) -> bool:
        return all(rule.affords(heard, in_flight) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class BetaStop(Rule):
    """Ends when the leader is the more probable one of the first two with this confidence.

    Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", EMNLP '23, the stopping rule "Beta".
    """

    confidence: float = 0.95

    def __post_init__(self) -> None:
        given: object = self.confidence
        if not isinstance(given, int | float) or not 0.5 < given < 1:
            raise ValueError(f"BetaStop({self.confidence!r}): a confidence lies between 0.5 and 1")

    def enough(self, heard: Heard) -> bool:
        first, second = [*sorted(heard.tally.counts.values(), reverse=True), 0, 0][:2]
        return first > second and beta_confidence(first, second) >= exact(self.confidence)


@dataclass(frozen=True, slots=True)
class Window(Rule):
    """Ends when the last ``size`` valid votes are for one option.

    Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency", ICLR '24. Their windows do not overlap.
    """

    size: int = 5

    def __post_init__(self) -> None:
        _at_least(2, "Window", self.size)

    def enough(self, heard: Heard) -> bool:
        valid = [vote for vote in heard.votes if vote is not None][-self.size :]
        return len(valid) == self.size and len(set(valid)) == 1


@dataclass(frozen=True, slots=True)
class Margin(Rule):
    """Ends when the leader is so many votes ahead of the second."""

    votes: int = 3

    def __post_init__(self) -> None:
        _at_least(1, "Margin", self.votes)

    def enough(self, heard: Heard) -> bool:
        return heard.tally.margin >= self.votes


@dataclass(frozen=True, slots=True, init=False)
class Budget(Rule):
    """Ends when another call that costs what the dearest has cost would go beyond ``usd``.

    Calls that are under way count with it, so that only a call dearer than any before can go beyond. What judges ask
    models does not count.
    """

    usd: Decimal

    def __init__(self, *, usd: float | Decimal | str) -> None:
        try:
            amount = Decimal(str(usd))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount <= 0:
            raise ValueError(f"Budget(usd={usd!r}): an amount of money is a number, more than 0")
        object.__setattr__(self, "usd", amount)

    def enough(self, heard: Heard) -> bool:
        return bool(heard.votes) and not self.affords(heard, 0)

    def affords(self, heard: Heard, in_flight: int) -> bool:
        if not heard.votes:
            return not in_flight  # one call shows what a call costs
        if not heard.nano_usd:
            raise ValueError("Budget(usd=...) needs to know what calls cost: LLM(..., prices=Prices(...))")
        return heard.nano_usd + (in_flight + 1) * heard.dearest <= self.usd * NANO_USD_PER_USD


def check_stop(stop: object) -> None:
    """Refuse what is no rule, before anything is asked.

    Raises:
        TypeError: it is none.
    """
    if isinstance(stop, type) or not all(callable(getattr(stop, name, None)) for name in ("enough", "affords")):
        raise TypeError(f"stop={stop!r} must be a rule, as BetaStop(.95), Window(5), Margin(3) or Budget(usd=.01)")


def _at_least(least: int, name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name}({number!r}): it takes a whole number, {least} or more")
