"""What a vote over k of an item's samples would have won: exactly, from all subsets of the samples at once.

The U-statistic without replacement: the mean over all C(n, k) subsets, so unbiased for every k ≤ n. Drawing with replacement,
as Chen et al. (NeurIPS '24) do, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from exoflow.llm.planning.log import Item

Floats: TypeAlias = NDArray[np.float64]
Rule: TypeAlias = Literal["vote", "filter_vote", "best_of_n"]
RULES: tuple[Rule, ...] = get_args(Rule)

MOST_SAMPLES = 1000
"""Of an item: above it C(n, k) leaves the range of a float."""


@lru_cache(maxsize=1 << 16)
def chance_to_win(votes: int, others: tuple[int, ...], blank: int = 0) -> Floats:
    """That an option with ``votes`` of the n samples has the most of k that are drawn: ``[n + 1]``, k = 0 … n.

    ``others`` are the samples of each other option, ``blank`` those that abstain: they are drawn, and vote for nothing. Of
    options that tie each wins equally often. If all that are drawn abstain, nothing wins.
    """
    n = votes + sum(others) + blank
    if n > MOST_SAMPLES:
        raise ValueError(f"an item has {n} samples; at most {MOST_SAMPLES:,} can be reckoned with")
    won = np.arange(1, votes + 1)  # how many of those drawn are ours
    # A tie with j others is won 1 / (j + 1) of the time, which is ∫ z^j dz over [0, 1]: a few nodes are exact for all j.
    nodes, weights = np.polynomial.legendre.leggauss(len(others) // 2 + 1)
    z = (nodes + 1) / 2
    ways = np.zeros((votes, len(z), n + 1))
    ways[:, :, 0] = 1.0
    for count in others:
        ways = _drawn(ways, count, lambda i: np.where(won > i, 1.0, 0.0)[:, None] + np.where(won == i, 1.0, 0.0)[:, None] * z)
    ways = _drawn(ways, blank, lambda _: np.ones((votes, len(z))))
    wins = np.zeros(n + 1)
    for ours, of_others in zip(won, np.einsum("tzk,z->tk", ways, weights / 2), strict=True):
        wins[ours:] += comb(votes, int(ours)) * of_others[: n + 1 - ours]
    wins /= [float(comb(n, k)) for k in range(n + 1)]
    wins.flags.writeable = False  # it is shared
    return wins


def _drawn(ways: Floats, count: int, factor: Callable[[int], Floats]) -> Floats:
    """``ways`` ``[ours, z, drawn]``, after i of ``count`` samples more were drawn, in C(count, i) ways, each i at its factor."""
    after = np.zeros_like(ways)
    drawn = ways.shape[2]
    for i in range(count + 1):
        after[:, :, i:] += (comb(count, i) * factor(i))[:, :, None] * ways[:, :, : drawn - i]
    return after


def accuracies(item: Item, rule: Rule) -> Floats:
    """Of the item's k-votes, ``[n]``, k = 1 … n: how often an option wins that is correct."""
    judged = item.votes if rule == "vote" else item.passed
    passing = sum(judged.values())
    n = item.n
    if rule == "best_of_n":
        first = np.full(n + 1, _share(judged, item.correct)) * (1 - _none_of(passing, n))
        first[0] = 0.0
    else:
        first = _right(judged, n - passing, item.correct)
    if rule == "vote":
        return first[1:]
    # Where no sample passes, the rule is the same over all: those drawn are then k of the n - passing that fail.
    failed = {option: count - judged.get(option, 0) for option, count in item.votes.items()}
    if rule == "best_of_n":
        failing = np.full(n - passing + 1, sum(failed[option] for option in item.correct) / max(1, n - passing))
    else:
        failing = _right(failed, n - passing - sum(failed.values()), item.correct)
    second = np.zeros(n + 1)
    second[: len(failing)] = failing
    return (first + second * _none_of(passing, n))[1:]


def _right(votes: dict[str, int], blank: int, correct: frozenset[str]) -> Floats:
    total = np.zeros(sum(votes.values()) + blank + 1)
    for option in correct & votes.keys():
        others = sorted(count for other, count in votes.items() if other != option and count)
        total += chance_to_win(votes[option], tuple(others), blank)
    return total


def _share(votes: dict[str, int], correct: frozenset[str]) -> float:
    return sum(votes.get(option, 0) for option in correct) / max(1, sum(votes.values()))


def _none_of(marked: int, n: int) -> Floats:
    """The chance that none of the ``marked`` of n samples is among k drawn, ``[n + 1]``."""
    return np.array([comb(n - marked, k) / comb(n, k) for k in range(n + 1)])


def accuracy_matrix(items: Sequence[Item], rule: Rule, most: int) -> Floats:
    """``[items, most]``: of each item's k-votes, k = 1 … most."""
    return np.stack([accuracies(item, rule)[:most] for item in items])


def silence(items: Sequence[Item], most: int) -> Floats:
    """``[most]``: how often all k samples of a vote abstain, k = 1 … most. It counts as wrong."""
    return np.mean([_none_of(sum(item.votes.values()), item.n)[1 : most + 1] for item in items], axis=0)
