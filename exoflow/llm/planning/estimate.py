"""What a vote over k of an item's samples would have got right, for each k: see ``laws.u_statistic``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import comb
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from exoflow.llm import laws
from exoflow.llm.planning.log import Item

Floats: TypeAlias = NDArray[np.float64]
Rule: TypeAlias = Literal["vote", "filter_vote", "first_passing"]
"""vote: the most frequent wins. filter_vote: of those that pass; of all where none does. first_passing: the first that
passes a judge; the first where none does."""

RULES: tuple[Rule, ...] = get_args(Rule)


def accuracy_matrix(items: Sequence[Item], rule: Rule, most: int) -> Floats:
    """``[items, most]``: how often an option that is correct wins a k-vote among the item's samples, k = 1 … most."""
    return np.stack([accuracies(item, rule)[:most] for item in items])


def accuracies(item: Item, rule: Rule) -> Floats:
    """``[n]``, k = 1 … n."""
    if rule == "vote":
        return _right(item.votes, item.n, item.correct)
    failed = {option: count - item.passed.get(option, 0) for option, count in item.votes.items()}
    passing = sum(item.passed.values())
    if rule == "first_passing":
        some, none = _share(item.passed, passing, item.correct), _share(failed, item.n - passing, item.correct)
        lost = none_drawn(passing, item.n)
        return np.asarray(some * (1 - lost) + none * lost)
    # Where none passes, the k that are drawn are any k of those that fail.
    among_failed = np.zeros(item.n)
    among_failed[: item.n - passing] = _right(failed, item.n - passing, item.correct)
    return np.asarray(_right(item.passed, item.n, item.correct) + among_failed * none_drawn(passing, item.n))


def none_drawn(marked: int, n: int) -> Floats:
    """The chance that none of the ``marked`` of n samples is among k drawn, ``[n]``, k = 1 … n."""
    return np.array([comb(n - marked, k) / comb(n, k) for k in range(1, n + 1)], dtype=np.float64)


def silence(items: Sequence[Item], most: int) -> Floats:
    """``[most]``: how often all k samples of a vote abstain, k = 1 … most. It counts as wrong."""
    silent = [none_drawn(sum(item.votes.values()), item.n)[:most] for item in items]
    return np.asarray(np.mean(silent, axis=0))


def _right(votes: Mapping[str, int], n: int, correct: frozenset[str]) -> Floats:
    """Of n samples, those that are not in ``votes`` vote for nothing."""
    counts: dict[Hashable, int] = {None: n - sum(votes.values())}
    counts.update(votes)
    total = np.zeros(n)
    for option in correct:
        if votes.get(option):
            total += np.array(laws.u_curve(counts, option), dtype=np.float64)
    return total


def _share(votes: Mapping[str, int], n: int, correct: frozenset[str]) -> float:
    return sum(votes.get(option, 0) for option in correct) / max(1, n)
