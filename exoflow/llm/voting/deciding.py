"""From samples to what is told of a vote."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from exoflow.context import rng
from exoflow.errors import NoConsensus
from exoflow.llm.engine.request import Usage
from exoflow.llm.voting.equivalence import is_hashable
from exoflow.llm.voting.results import Sample, by_first_said
from exoflow.llm.voting.tally import Tally, Ties, check_ties, winner
from exoflow.model import Spent

Equivalence = Callable[[Any], Hashable]
X = TypeVar("X")


def votes_of(samples: Sequence[Sample], equivalence: Equivalence) -> list[Hashable | None]:
    """What each votes for; None: it abstains."""
    return [None if sample.answer is None else _key(equivalence, sample.answer) for sample in samples]


def _key(equivalence: Equivalence, answer: object) -> Hashable:
    key = equivalence(answer)
    if is_hashable(key):
        return key
    raise TypeError(f"equivalence gave {key!r} for {answer!r}: it must give a key that is hashable, as text or a tuple")


def told(
    samples: Sequence[Sample],
    voters: Sequence[Sample],
    counted: Tally,
    ties: Ties,
    equivalence: Equivalence,
    cost: Spent,
) -> dict[str, Any]:
    """What all votes tell.

    Raises:
        NoConsensus: nobody has voted.
    """
    _refuse_empty(counted, samples)
    said = by_first_said(voters, equivalence)
    bill = cost.bill
    won = winner(counted, ties, lambda n: rng().randrange(n))
    return {
        "answer": None if won is None else said[won],
        "counts": named(counted.counts, voters, equivalence),
        "margin": plain(counted.margin),
        "tie": counted.tie,
        "n_valid": counted.n_valid,
        "samples": tuple(samples),
        "n_calls": cost.calls,
        "usage": Usage(bill.input_tokens, bill.output_tokens, bill.cached_tokens),
        "nano_usd": bill.nano_usd,
    }


def plain(weight: Fraction) -> float:
    """As a number that people know: an int, where it is one."""
    return weight.numerator if weight.denominator == 1 else float(weight)


def named(votes: Mapping[Hashable, X], voters: Sequence[Sample], equivalence: Equivalence) -> dict[Hashable, X]:
    """The same by how each option was first said, where that can be a key."""
    said = by_first_said(voters, equivalence)
    return {said[option] if is_hashable(said[option]) else option: value for option, value in votes.items()}


def _refuse_empty(tally: Tally, samples: Sequence[Sample]) -> None:
    """Nobody has voted.

    Raises:
        NoConsensus: so it is; it says what the first that abstained had said.
    """
    if tally.n_valid:
        return
    first = samples[0] if samples else None
    shown = "" if first is None else f"; the first said {first.text[:80]!r}: {first.why or 'it abstains'}"
    raise NoConsensus(f"none of {len(samples)} answers could be counted{shown}")


def check_ties_of(name: str, ties: str) -> None:
    """Of a vote that does not ask on."""
    check_ties(ties)
    if ties == "extend":
        raise ValueError(f"ties='extend' is vote's: {name} takes 'seeded', 'first' or 'abstain'")


def check_count(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{name}={number!r} must be a whole number, 1 or more")
