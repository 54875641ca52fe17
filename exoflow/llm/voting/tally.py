"""Counting votes: a pure function of the votes in sample order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Ties = Literal["seeded", "first", "abstain", "extend"]
"""Who wins a tie: seeded: a draw that is the same in every replay; first: who was voted for first; abstain: nobody;
extend: ask on, as often again at most, and then draw."""
_ONE = Fraction(1)


@dataclass(frozen=True, slots=True)
class Tally:
    """How the votes stand. ``weights`` are the counts, unless votes weigh differently."""

    counts: dict[Hashable, int]
    """By option, in the order in which they were first voted for."""
    weights: dict[Hashable, Fraction]

    def add(self, option: Hashable, weight: Fraction = _ONE) -> None:
        """One vote more."""
        self.counts[option] = self.counts.get(option, 0) + 1
        self.weights[option] = self.weights.get(option, Fraction(0)) + weight

    @property
    def n_valid(self) -> int:
        return sum(self.counts.values())

    @property
    def leaders(self) -> list[Hashable]:
        """Those that nobody is ahead of."""
        most = max(self.weights.values(), default=0)
        return [option for option, weight in self.weights.items() if weight == most]

    @property
    def margin(self) -> Fraction:
        """How far the first is ahead of the second; 0: a tie."""
        first, second = [*sorted(self.weights.values(), reverse=True), Fraction(0), Fraction(0)][:2]
        return first - second

    @property
    def tie(self) -> bool:
        return len(self.leaders) > 1


def tally(votes: Iterable[Hashable | None], weights: Sequence[float] | None = None) -> Tally:
    """Count the votes; None abstains.

    Args:
        weights: of each vote; finite, not negative.
    """
    result = Tally({}, {})
    for index, vote in enumerate(votes):
        if vote is not None:
            result.add(vote, _ONE if weights is None else Fraction(weights[index]))
    return result


def winner(tally: Tally, ties: Ties, draw: Callable[[int], int]) -> Hashable | None:
    """Who has won; None: nobody, since nobody voted, or a tie abstains.

    Args:
        ties: extend is over by now, and draws.
        draw: gives a number below the one that it is given.
    """
    leaders = tally.leaders
    if not leaders or len(leaders) > 1 and ties == "abstain":
        return None
    if len(leaders) == 1 or ties == "first":
        return leaders[0]
    return leaders[draw(len(leaders))]


def check_ties(ties: str) -> None:
    if ties not in get_args(Ties):
        raise ValueError(f"ties={ties!r} must be one of {', '.join(get_args(Ties))}")
