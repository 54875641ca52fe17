"""The bootstrap over items: they are the sampling unit, since the samples of one share its difficulty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Choosing: TypeAlias = Literal["max", "1se"]

_AT_ONCE = 1 << 22
"""Weights held at a time."""

_SAME = 1e-12
"""Means that differ by less are equal: with two options a vote of 2m is one of 2m - 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """Of the columns of a table, over items: of the items themselves, and of ``replicates`` resampled sets of them."""

    mean: Floats
    """``[columns]``."""
    error: Floats
    """Standard error of each mean."""
    resampled: Floats
    """``[replicates, columns]``."""
    resampled_error: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        return percentiles(self.resampled, level)


def percentiles(draws: Floats, level: float) -> tuple[Floats, Floats]:
    """The middle ``level`` of the draws, by column."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def means(table: Floats, replicates: int, seed: int) -> Means:
    """Of ``table`` ``[items, columns]``. Columns are resampled together, so that their differences are paired."""
    items, columns = table.shape
    random = np.random.default_rng(seed)
    both = np.concatenate([table, table**2], axis=1)
    moments = np.empty((replicates, 2 * columns))
    step = max(1, _AT_ONCE // items)
    for at in range(0, replicates, step):
        weights = random.multinomial(items, np.full(items, 1 / items), size=min(step, replicates - at))
        moments[at : at + step] = weights @ both / items
    mean, error = _with_error(both.mean(axis=0), items)
    resampled, resampled_error = _with_error(moments, items)
    return Means(mean, error, resampled, resampled_error)


def _with_error(moments: Floats, items: int) -> tuple[Floats, Floats]:
    mean, square = np.split(moments, 2, axis=-1)
    variance = np.maximum(square - mean**2, 0.0) / max(1, items - 1)
    return mean, np.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Choice:
    """A column that was chosen for its mean, and how sure that is. Positions count from 0."""

    at: int
    low: int
    high: int
    value: tuple[float, float, float]
    """Its mean and its interval, less what being chosen flatters it by."""
    gain: tuple[float, float, float]
    """The same of its difference to the baseline."""


def choose(table: Means, rule: Choosing, level: float, baseline: float, resampled_baseline: Floats) -> Choice:
    """The best column by ``rule``, chosen anew in each resampled set.

    What the best of several means is too high by is, in each set, its mean there less that of the same column over all items;
    the interval is the estimate less the quantiles of that.

    Args:
        table: columns in ascending order of cost; of equal ones the first is best.
        baseline: the mean of what ``gain`` is against.
        resampled_baseline: its ``[replicates]``.
    """
    at = int(chosen(table.mean, table.error, rule))
    again = chosen(table.resampled, table.resampled_error, rule)
    there = np.take_along_axis(table.resampled, again[:, None], axis=1)[:, 0]
    excess = there - table.mean[again]
    excess_gain = (there - resampled_baseline) - (table.mean[again] - baseline)
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
    return Choice(
        at,
        int(min(low, at)),
        int(max(high, at)),
        _less(float(table.mean[at]), excess, level),
        _less(float(table.mean[at]) - baseline, excess_gain, level),
    )


def chosen(mean: Floats, error: Floats, rule: Choosing) -> NDArray[np.intp]:
    """``max``: the first of the highest means. ``1se``: the first within one standard error, the highest mean's, of it."""
    best = (mean >= mean.max(axis=-1, keepdims=True) - _SAME).argmax(axis=-1)
    if rule == "max":
        return best
    at = np.expand_dims(best, -1)
    enough = np.take_along_axis(mean, at, -1) - np.take_along_axis(error, at, -1)
    return (mean >= enough - _SAME).argmax(axis=-1)


def _less(estimate: float, excess: Floats, level: float) -> tuple[float, float, float]:
    low, high = np.quantile(excess, [(1 + level) / 2, (1 - level) / 2])
    return estimate - float(excess.mean()), estimate - float(low), estimate - float(high)
