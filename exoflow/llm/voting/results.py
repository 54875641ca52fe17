"""What is told of a vote."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from exoflow.llm.calls.answer import bill_of
from exoflow.llm.calls.prices import usd
from exoflow.llm.engine.request import Usage
from exoflow.model import Spent

if TYPE_CHECKING:
    from exoflow.llm.calls import Answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the answers to a question."""

    index: int
    reply: Answer
    answer: Any
    """What was parsed from it, and is voted for. None: it abstains."""
    why: str = ""
    """Why it abstains."""
    passed: bool | None = None
    """What the judge said; None: it was not asked."""
    weight: float | None = None
    score: float | None = None

    @property
    def text(self) -> str:
        return self.reply.text

    @property
    def usage(self) -> Usage:
        return self.reply.usage

    @property
    def nano_usd(self) -> int:
        return self.reply.nano_usd

    @property
    def cost(self) -> Decimal:
        """USD, exact."""
        return usd(self.reply.nano_usd)


NOTHING = Spent()


def spent(replies: Iterable[Answer]) -> Spent:
    """On these answers."""
    return Spent.on(map(bill_of, replies))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all kinds of votes tell."""

    answer: Any
    """Who has won, as it was first said; None: a tie that abstains."""
    counts: Mapping[Hashable, int]
    """How many votes each answer got, by how it was first said, in the order in which they were first said."""
    margin: float
    """How many votes the first is ahead of the second; of votes that weigh, how much weight."""
    tie: bool
    """Whether several were first. ``answer`` was drawn from them, then."""
    n_valid: int
    """Votes that counted: without those that abstain."""
    samples: tuple[Sample, ...]
    """In index order, those that abstain too."""
    n_calls: int
    """Of models, made for this vote: those of judges too."""
    usage: Usage
    """Of all these calls."""
    nano_usd: int

    @property
    def cost(self) -> Decimal:
        """Of all these calls, in USD, exact."""
        return usd(self.nano_usd)

    if TYPE_CHECKING:  # in an async flow, ``await vote(...)`` is what ``vote(...)`` is in a sync one

        def __await__(self) -> Generator[Any, None, Self]: ...


@dataclass(frozen=True, slots=True)
class Vote(Outcome):
    """What ``vote`` tells."""


@dataclass(frozen=True, slots=True)
class FilterVote(Outcome):
    """What ``filter_vote`` tells; ``counts`` are of those that passed."""

    n_passed: int
    fell_back: bool
    """None passed, so that all have voted."""


@dataclass(frozen=True, slots=True)
class AdaptiveVote(Outcome):
    """What ``adaptive_vote`` tells. ``samples`` are those that counted."""

    n_counted: int
    """Samples that were decided on: the first so many."""
    n_sampled: int
    """Samples that were asked for; those beyond ``n_counted`` were under way when it stopped."""
    stopped: bool
    """By its rule; else ``max_k`` was reached, or the budget."""


@dataclass(frozen=True, slots=True)
class WeightedVote(Outcome):
    """What ``weighted_vote`` tells."""

    weights: Mapping[Hashable, float]
    """Of each answer, as ``counts``."""


@dataclass(frozen=True, slots=True)
class BestOf(Outcome):
    """What ``best_of_n`` tells: ``margin`` is how far its score is ahead of that of the next other answer."""

    score: float


def by_first_said(samples: Sequence[Sample], key: Callable[[Any], Hashable]) -> dict[Hashable, Any]:
    """By key, the answer as it was first said."""
    said: dict[Hashable, Any] = {}
    for sample in samples:
        if sample.answer is not None:
            said.setdefault(key(sample.answer), sample.answer)
    return said
