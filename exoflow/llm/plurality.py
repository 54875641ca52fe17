"""The plurality of many votes, in floats: an answer in a second where exact numbers take an hour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def in_floats(chances: Sequence[float], k: int) -> list[float]:
    """As ``laws.plurality``. Nothing is subtracted, so that small chances are as exact as great ones.

    For each number of votes m that may win it multiplies, of all options but one, the polynomials of having less than m
    votes, or m and being one of those that tie: from the left and from the right, so that each option is left out once.
    """
    weights = [_weights(p, k) for p in chances]
    won = np.zeros(len(weights))
    for m in range(1, k + 1):
        left, right = _products(weights, m, k - m), _products(weights[::-1], m, k - m)[::-1]
        for y, own in enumerate(weights):
            ways = left[y] @ right[y + 1][:, ::-1].T  # [ties to the left, ties to the right]
            ties = np.add.outer(np.arange(len(ways)), np.arange(ways.shape[1]))
            won[y] += own[m] * (ways / (ties + 1)).sum()
    return [float(chance) for chance in won / won.sum()]


def _weights(p: float, k: int) -> Floats:
    """``[k + 1]``: chances of a Poisson variable of mean kp, up to a factor. Given that they sum to k, such variables
    are the votes of k answers; and nothing is as small as 1/k! in it that matters.
    """
    found = np.zeros(k + 1)
    most = min(k, int(k * p))
    found[most] = 1.0
    for j in range(most, k):
        found[j + 1] = found[j] * (k * p / (j + 1))
    for j in range(most, 0, -1):
        found[j - 1] = found[j] * (j / (k * p))
    shares: Floats = found / found.sum()
    return shares


def _products(weights: Sequence[Floats], m: int, most: int) -> list[Floats]:
    """Of the first 0, 1, … options: ``[ties, votes]``, votes up to ``most``, ties those that have m of them."""
    products = [np.eye(1, most + 1)]
    for row in weights:
        before = products[-1]
        after = np.zeros((min(len(before), most // m) + 1, most + 1))
        for ties, ways in enumerate(before):
            after[ties] += np.convolve(ways, row[: min(m, most + 1)])[: most + 1]
        tied = before[: len(after) - 1, : max(0, most + 1 - m)] * row[m]
        after[1 : 1 + len(tied), m:] += tied
        products.append(after)
    return products
