"""What each k is worth in money, and what two samples an item already tell of a vote of three."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Real

import numpy as np

from exoflow.llm import laws
from exoflow.llm.planning.curves import REPLICATES, accuracies_of, calls_of, cost_of_sample
from exoflow.llm.planning.estimate import Floats, Rule
from exoflow.llm.planning.log import Log, as_log
from exoflow.llm.planning.resampling import Range, cautions_of, check_replicates, choose, means
from exoflow.llm.planning.sample import Sample
from exoflow.llm.planning.tables import in_columns


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

    items: int
    rows: tuple[Row, ...]
    best_range: tuple[int, int]
    """Where the best k is found when the items are resampled."""
    three: Range | None
    """Where items have two samples: bounds of the accuracy at k = 3, for two options."""

    @property
    def best(self) -> Row:
        return next(row for row in self.rows if row.best)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to bear in mind before its intervals are believed."""
        return cautions_of(self.items)

    def table(self) -> str:
        """A line a k, for a person, and below it what to bear in mind."""
        rows = [
            (
                str(row.k),
                f"{row.accuracy:.3f} [{row.accuracy_range.low:.3f}, {row.accuracy_range.high:.3f}]",
                str(row.calls),
                f"{1000 * row.usd:.4f}",
                f"{1000 * row.gain:+.3f} [{1000 * row.gain_range.low:+.3f}, {1000 * row.gain_range.high:+.3f}]",
                f"best; {self.best_range[0]} to {self.best_range[1]} when items are resampled" if row.best else "",
            )
            for row in self.rows
        ]
        table = in_columns(("k", "accuracy", "calls", "usd for 1,000 items", "gain in usd against k = 1", ""), rows)
        lines = [table, *self.cautions]
        if self.three is not None:
            low, high = self.three
            lines.append(
                f"k = 3 is between {low:.3f} and {high:.3f} where there are two options: two samples tell as much"
            )
        return "\n".join(lines)


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
        ValueError: an amount is negative, or nobody says what a call costs; else as of ``curve``.
    """
    check_replicates(replicates)
    value = _amount(value_per_correct, "value_per_correct")
    log = as_log(log)
    table = accuracies_of(log, rule)
    ks = np.arange(1, table.shape[1] + 1)
    cost = _cost_of_sample(log, usd_per_call, rule)[:, None] * ks
    net = value * table - cost
    columns = means(np.concatenate([table, cost, net, net - net[:, :1]], axis=1), replicates, seed)
    mean = np.split(columns.mean, 4)
    low, high = (np.split(edge, 4) for edge in columns.interval())
    best = choose(columns.part(3 * len(ks), 4 * len(ks)), "max", np.zeros(1 + replicates))
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
            best=n == best.at,
        )
        for n, k in enumerate(ks)
    )
    three = None
    if table.shape[1] == 2 and rule == "vote":
        three = Range(*map(float, laws.three_vote_bounds(*_pair_moments(log))))
    return Plan(len(table), rows, (best.span[0] + 1, best.span[1] + 1), three)


def _pair_moments(log: Log) -> tuple[Fraction, Fraction]:
    """How often a sample is correct, and how often two are: unbiased, but the second no less than it can be."""
    counted = [(sum(item.votes[option] for option in item.correct), item.n) for item in log.items]
    m1 = sum((Fraction(right, n) for right, n in counted), Fraction(0)) / len(counted)
    m2 = sum((Fraction(right * (right - 1), n * (n - 1)) for right, n in counted), Fraction(0)) / len(counted)
    return m1, max(m1**2, m2)


def _cost_of_sample(log: Log, usd_per_call: float | Decimal | None, rule: Rule) -> Floats:
    if usd_per_call is not None:
        return np.full(len(log.items), calls_of(rule, 1) * _amount(usd_per_call, "usd_per_call"))
    if not log.usd:
        raise ValueError("the log says no cost: give usd_per_call=, which may be 0, or collect with LLM(prices=...)")
    return cost_of_sample(log)


def _amount(usd: float | Decimal, name: str) -> float:
    given: object = usd
    amount = float(given) if isinstance(given, Real | Decimal) and given == given else math.nan
    if not 0 <= amount < math.inf:
        raise ValueError(f"{name} is {usd!r}, no amount of dollars")
    return amount
