"""The bootstrap over items: they are the sampling unit, since the samples of one share its difficulty."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exoflow.extras import needed

Floats: TypeAlias = NDArray[np.float64]
Choosing: TypeAlias = Literal["max", "1se"]

LEVEL = 0.95
"""Of every interval."""

_AT_ONCE = 1 << 22
"""Weights held at a time."""

FEW = 30
"""Items: of fewer no interval is to be believed."""

SAME = 1e-12
"""Means that differ by less are equal: with two options a vote of 2m is one of 2m - 1."""


class Range(NamedTuple):
    """An interval of 95 %, over items."""

    low: float
    high: float


def check_replicates(replicates: object) -> None:
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 1:
        raise ValueError(f"replicates is {replicates!r}, no whole number from 1: intervals need some, 2,000 by default")


def cautions_of(items: int) -> tuple[str, ...]:
    """What to bear in mind before intervals over so many items are believed."""
    if items == 1:
        return ("one item: its intervals are points, since nothing tells how others would differ from it",)
    return (f"{items} items: of fewer than {FEW} no interval is to be believed",) if items < FEW else ()


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

    items: int

    def part(self, begin: int, end: int) -> Means:
        """Some of the columns."""
        of = slice(begin, end)
        return Means(self.mean[of], self.error[of], self.resampled[:, of], self.resampled_error[:, of], self.items)

    def interval(self) -> tuple[Floats, Floats]:
        """Of 95 %, of each column."""
        return self.interval_of(self.resampled)

    def interval_of(self, draws: Floats) -> tuple[Floats, Floats]:
        """Of 95 %, of what was drawn in each set, by column.

        Percentiles, at levels that make up for what resampling n items makes too narrow: Hesterberg, "What Teachers
        Should Know About the Bootstrap", The American Statistician 69 (2015), section 3.1.
        """
        low, high = np.quantile(draws, _levels(self.items), axis=0)
        return low, high


@cache
def _levels(items: int) -> tuple[float, float]:
    with needed("an interval", "plan"):
        from scipy.special import ndtr, stdtrit

    if items < 2:
        return 0.0, 1.0
    tail = float(ndtr(np.sqrt(items / (items - 1)) * stdtrit(items - 1, (1 - LEVEL) / 2)))
    return tail, 1 - tail


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
    return Means(mean, error, resampled, resampled_error, items)


def _with_error(moments: Floats, items: int) -> tuple[Floats, Floats]:
    mean, square = np.split(moments, 2, axis=-1)
    variance = np.maximum(square - mean**2, 0.0) / max(1, items - 1)
    return mean, np.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Choice:
    """A column that was chosen for its mean, and how sure that is. Positions count from 0."""

    at: int
    span: tuple[int, int]
    """Where it is chosen when items are resampled."""
    value: Range
    """Of its mean: the span of its own interval and of that of what is chosen in each resampled set."""
    gain: Range
    """The same of its difference to the first column."""


def choose(table: Means, rule: Choosing, first: Floats, same: float = SAME) -> Choice:
    """The best column by ``rule``, chosen anew in each resampled set.

    An interval of the chosen column alone knows nothing of the choice; one of what is chosen in each set alone is too
    high near a flat top. The span of both was seen to cover as it should, where either falls short.

    Args:
        table: columns in ascending order of cost; of equal ones the first is best.
        first: ``[1 + replicates]``: the mean of what ``gain`` is against, over the items and in each resampled set.
        same: means that differ by no more are equal.
    """
    at = int(chosen(table.mean, table.error, rule, same))
    again = chosen(table.resampled, table.resampled_error, rule, same)
    own = table.resampled[:, at]
    there = np.take_along_axis(table.resampled, again[:, None], axis=1)[:, 0]
    low, high = table.interval_of(again.astype(np.float64))
    return Choice(
        at,
        (min(at, round(float(low))), max(at, round(float(high)))),
        _span(table, own, there),
        _span(table, own - first[1:], there - first[1:]),
    )


def _span(table: Means, *draws: Floats) -> Range:
    low, high = table.interval_of(np.stack(draws, axis=1))
    return Range(float(low.min()), float(high.max()))


def chosen(mean: Floats, error: Floats, rule: Choosing, same: float = SAME) -> NDArray[np.intp]:
    """``max``: the first of the highest means. ``1se``: the first within that one's standard error of it."""
    best: NDArray[np.intp] = (mean >= mean.max(axis=-1, keepdims=True) - same).argmax(axis=-1)
    if rule == "max":
        return best
    at = np.expand_dims(best, -1)
    enough = np.take_along_axis(mean, at, -1) - np.take_along_axis(error, at, -1)
    least: NDArray[np.intp] = (mean >= enough - same).argmax(axis=-1)
    return least
