"""What each k is worth in money, and what two samples an item already tell of a vote of three."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from exoflow.llm.planning.curves import LEVEL, REPLICATES, accuracies_of, calls_of, cost_of_sample
from exoflow.llm.planning.estimate import Floats, Rule
from exoflow.llm.planning.log import Log, Sample, as_log
from exoflow.llm.planning.resampling import chosen, means, percentiles
from exoflow.llm.planning.tables import in_columns


class Range(NamedTuple):
    """Of 95 %, over items."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One k, for one item on average, in dollars."""

    k: int
    accuracy: float
    accuracy_range: Range
    calls: int
    usd: float
    usd_range: Range
    net_usd: float
    """What its correct answers are worth, less what it costs."""
    gain: float
    """``net_usd`` less that of k = 1, paired by item."""
    gain_range: Range
    best: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A row a k; the best is the one of the highest gain, the smallest of equals."""

    rows: tuple[Row, ...]
    best_range: tuple[int, int]
    """Where the best k is found when the items are resampled."""
    three: Range | None
    """Where items have two samples: bounds of the accuracy at k = 3, for two options."""

    @property
    def best(self) -> Row:
        return next(row for row in self.rows if row.best)

    def table(self) -> str:
        """A line a k, for a person."""
        rows = [
            (
                str(row.k),
                f"{row.accuracy:.3f} [{row.accuracy_range.low:.3f}, {row.accuracy_range.high:.3f}]",
                str(row.calls),
                f"{row.usd:.6f}",
                f"{row.gain:+.6f} [{row.gain_range.low:+.6f}, {row.gain_range.high:+.6f}]",
                f"best; {self.best_range[0]} to {self.best_range[1]} when items are resampled" if row.best else "",
            )
            for row in self.rows
        ]
        table = in_columns(("k", "accuracy", "calls", "usd", "gain in usd against k = 1", ""), rows)
        if self.three is None:
            return table
        return f"{table}\nk = 3 is between {self.three.low:.3f} and {self.three.high:.3f}, as two samples an item tell (two options)"


def plan(
    log: Log | Iterable[Sample | Mapping[str, object]],
    value_per_correct: float | Decimal,
    usd_per_call: float | Decimal | None = None,
    *,
    rule: Rule = "vote",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Plan:
    """Weigh each k: its correct answers at ``value_per_correct`` dollars against its calls.

    Args:
        usd_per_call: what the log's own samples cost, by default.
        rule: as of ``curve``.
        replicates: resampled sets of items.
        seed: of the resampling.

    Raises:
        ValueError: an amount is negative, or the log says no cost and no ``usd_per_call`` is given; else as of ``curve``.
    """
    log = as_log(log)
    table = accuracies_of(log, rule)
    value = _amount(value_per_correct, "value_per_correct")
    ks = np.arange(1, table.shape[1] + 1)
    cost = _cost_of_sample(log, usd_per_call, rule)[:, None] * ks
    net = value * table - cost
    columns = means(np.concatenate([table, cost, net, net - net[:, :1]], axis=1), replicates, seed)
    mean = np.split(columns.mean, 4)
    low, high = (np.split(edge, 4) for edge in columns.interval(LEVEL))
    gains = np.split(columns.resampled, 4, axis=1)[3]
    best = int(chosen(mean[3], mean[3], "max"))
    best_low, best_high = percentiles(chosen(gains, gains, "max").astype(np.float64), LEVEL)
    rows = tuple(
        Row(
            k=int(k),
            accuracy=float(mean[0][n]),
            accuracy_range=Range(float(low[0][n]), float(high[0][n])),
            calls=calls_of(rule, int(k)),
            usd=float(mean[1][n]),
            usd_range=Range(float(low[1][n]), float(high[1][n])),
            net_usd=float(mean[2][n]),
            gain=float(mean[3][n]),
            gain_range=Range(float(low[3][n]), float(high[3][n])),
            best=n == best,
        )
        for n, k in enumerate(ks)
    )
    three = two_sample_bounds(*_pair_moments(log)) if table.shape[1] == 2 and rule == "vote" else None
    return Plan(rows, (min(best + 1, round(float(best_low)) + 1), max(best + 1, round(float(best_high)) + 1)), three)


def two_sample_bounds(m1: float, m2: float) -> Range:
    """Sharp bounds of the accuracy of a vote of three, with two options: m1 = E[p], m2 = E[p²] over items.

    F(3) = 3 m2 - 2 E[p³], and E[p³] is bounded by the two moments. With more options the upper bound has to be raised by a third of
    how often three samples all differ.

    Raises:
        ValueError: no distribution on [0, 1] has these moments.
    """
    if not (0 <= m1 <= 1 and m1**2 - 1e-12 <= m2 <= m1 + 1e-12):
        raise ValueError(f"no chances have the mean {m1} and the mean square {m2}: m1² <= m2 <= m1")
    if m1 in (0.0, 1.0):
        return Range(m1, m1)
    return Range(m2 + 2 * (m1 - m2) ** 2 / (1 - m1), 3 * m2 - 2 * m2**2 / m1)


def _pair_moments(log: Log) -> tuple[float, float]:
    """Unbiased: how often a sample is correct, and how often two different ones are; the second no less than it can be."""
    right = np.array([sum(item.votes[option] for option in item.correct) for item in log.items])
    n = np.array([item.n for item in log.items])
    m1 = float(np.mean(right / n))
    return m1, max(m1**2, float(np.mean(right * (right - 1) / (n * (n - 1)))))


def _cost_of_sample(log: Log, usd_per_call: float | Decimal | None, rule: Rule) -> Floats:
    if usd_per_call is not None:
        return np.full(len(log.items), calls_of(rule, 1) * _amount(usd_per_call, "usd_per_call"))
    if not log.usd:
        raise ValueError("the log says no cost: give usd_per_call=, which may be 0, or collect with LLM(prices=...)")
    return cost_of_sample(log)


def _amount(usd: float | Decimal, name: str) -> float:
    if not 0 <= usd < math.inf:
        raise ValueError(f"{name} is {usd!r}, no amount of dollars")
    return float(usd)
