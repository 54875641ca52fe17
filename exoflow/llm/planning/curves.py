"""What a vote over k samples gets right, for each k, from a log of n samples an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from exoflow.llm.planning.estimate import RULES, Floats, Rule, accuracy_matrix, silence
from exoflow.llm.planning.log import Log, as_log
from exoflow.llm.planning.resampling import Choice, Choosing, Means, cautions_of, check_replicates, choose, means
from exoflow.llm.planning.sample import Sample
from exoflow.llm.planning.tables import in_columns

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.figure import Figure

REPLICATES = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """One k of a curve. Intervals are of 95 %, over items."""

    k: int
    accuracy: float
    low: float
    high: float
    error: float
    """Standard error of the accuracy."""
    gain: float
    """accuracy(k) - accuracy(1), paired by item."""
    gain_low: float
    gain_high: float
    calls: int
    """For one item: samples, and one of the judge a sample where there is a judge."""
    usd: float
    """For one item, on average."""
    silent: float
    """How often all k abstain, which is counted as wrong."""


class BestK(NamedTuple):
    """A k, and where it is found when the items are resampled."""

    k: int
    interval: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy and cost of a vote over k samples, a point for each k."""

    rule: Rule
    items: int
    points: tuple[Point, ...]
    choices: Mapping[Choosing, Choice] = field(repr=False)

    @property
    def ks(self) -> tuple[int, ...]:
        return tuple(point.k for point in self.points)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to bear in mind before its intervals are believed."""
        return cautions_of(self.items)

    def __getitem__(self, k: int) -> Point:
        for point in self.points:
            if point.k == k:
                return point
        raise KeyError(f"the curve has no k = {k}; it has {', '.join(map(str, self.ks))}")

    def best_k(self, rule: Choosing = "1se") -> BestK:
        """``max``: the k of the highest accuracy. ``1se``: the smallest within one standard error of it."""
        choice = self.choice(rule)
        return BestK(self.ks[choice.at], (self.ks[choice.span[0]], self.ks[choice.span[1]]))

    def choice(self, rule: Choosing = "1se") -> Choice:
        """The chosen point, with intervals that know that it was chosen."""
        if rule not in self.choices:
            raise ValueError(f"rule is 'max' or '1se', not {rule!r}")
        return self.choices[rule]

    def table(self) -> str:
        """A line a k, for a person, and below it what to bear in mind."""
        marks = {self.best_k("1se").k: "within 1 s.e. of the best", self.best_k("max").k: "best"}
        rows = [
            (
                str(p.k),
                f"{p.accuracy:.3f} [{p.low:.3f}, {p.high:.3f}]",
                f"{p.gain:+.3f} [{p.gain_low:+.3f}, {p.gain_high:+.3f}]",
                str(p.calls),
                f"{1000 * p.usd:.4f}",
                marks.get(p.k, ""),
            )
            for p in self.points
        ]
        head = "k", "accuracy", "against k = 1", "calls", "usd for 1,000 items", ""
        return "\n".join([in_columns(head, rows), *self.cautions])

    def plot(
        self, x: Literal["calls", "usd"] = "calls", path: str | PathLike[str] | None = None, rule: Choosing = "1se"
    ) -> Figure:
        """Accuracy against calls or dollars, the k that ``rule`` chooses marked. ``path`` ends in .png or .svg."""
        from exoflow.llm.planning.drawing import draw_curve

        return draw_curve(self, x, path, rule)


def curve(
    log: Log | Iterable[Sample | Mapping[str, object]],
    ks: Iterable[int] | None = None,
    ci: Literal["cluster-bootstrap"] = "cluster-bootstrap",
    *,
    rule: Rule = "vote",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Curve:
    """Unbiased for each k up to the fewest samples that an item has, without a model: see ``laws.u_statistic``.

    Args:
        ks: all that can be estimated, by default.
        ci: intervals are of 95 %, by resampling items.
        rule: how the samples are made an answer. ``filter_vote`` and ``first_passing`` need judged samples.
        replicates: resampled sets of items.
        seed: of the resampling; the same seed gives the same intervals.

    Raises:
        ValueError: a k is above the samples of an item; items lack labels, or judgements where ``rule`` needs them.
    """
    if ci != "cluster-bootstrap":
        raise ValueError(f"ci is 'cluster-bootstrap', not {ci!r}")
    check_replicates(replicates)
    log = as_log(log)
    table = accuracies_of(log, rule)
    wanted = _wanted(ks, table.shape[1], log)
    at = np.array(wanted) - 1
    own = means(np.concatenate([table[:, at], table[:, at] - table[:, :1], table[:, :1]], axis=1), replicates, seed)
    of_k, gains = own.part(0, len(at)), own.part(len(at), 2 * len(at))
    one = np.append(own.mean[-1], own.resampled[:, -1])
    choices: dict[Choosing, Choice] = {choosing: choose(of_k, choosing, one) for choosing in ("max", "1se")}
    return Curve(rule, len(log.items), _points(wanted, of_k, gains, log, rule), choices)


def accuracies_of(log: Log, rule: Rule) -> Floats:
    """``[items, k]``, k = 1 … the fewest samples of an item. What can be checked of a log for it is checked."""
    if rule not in RULES:
        raise ValueError(f"rule is one of {', '.join(RULES)}, not {rule!r}")
    if not log.items:
        raise ValueError("the log is empty")
    if log.unlabelled:
        raise ValueError(
            f"accuracy needs labels: {_some(log.unlabelled)} without; give their rows of the data set an answer"
        )
    if rule != "vote" and log.unjudged:
        raise ValueError(f"rule={rule!r} needs judged samples (passed): {_some(log.unjudged)} without")
    return accuracy_matrix(log.items, rule, min(item.n for item in log.items))


def cost_of_sample(log: Log) -> Floats:
    """``[items]``: dollars for a sample of it, on average."""
    return np.array([item.usd / item.n for item in log.items])


def calls_of(rule: Rule, k: int) -> int:
    return k if rule == "vote" else 2 * k


def _wanted(ks: Iterable[int] | None, most: int, log: Log) -> tuple[int, ...]:
    wanted = tuple(sorted(set(whole(range(1, most + 1) if ks is None else ks))))
    if wanted[-1] > most:
        short = [item for item in log.items if item.n < wanted[-1]]
        raise ValueError(
            f"k = {wanted[-1]} needs as many samples of each item; {_some([item.id for item in short])} with fewer, "
            f"the fewest {most}: ask for ks up to {most}, or collect more; fit_scaling() predicts beyond"
        )
    return wanted


def whole(ks: object) -> tuple[int, ...]:
    """Ks as they were given.

    Raises:
        ValueError: they are none.
    """
    given = tuple(ks) if isinstance(ks, Iterable) else ()
    if not given or not all(isinstance(k, int | np.integer) and k >= 1 for k in given):
        raise ValueError(f"ks are whole numbers from 1, and at least one: {ks!r}")
    return tuple(map(int, given))


def _points(ks: Sequence[int], of_k: Means, gains: Means, log: Log, rule: Rule) -> tuple[Point, ...]:
    low, high = of_k.interval()
    gain_low, gain_high = gains.interval()
    usd, silent = float(cost_of_sample(log).mean()), silence(log.items, max(ks))
    return tuple(
        Point(
            k=k,
            accuracy=float(of_k.mean[n]),
            low=float(low[n]),
            high=float(high[n]),
            error=float(of_k.error[n]),
            gain=float(gains.mean[n]),
            gain_low=float(gain_low[n]),
            gain_high=float(gain_high[n]),
            calls=calls_of(rule, k),
            usd=k * usd,
            silent=float(silent[k - 1]),
        )
        for n, k in enumerate(ks)
    )


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} item{'s' if len(ids) > 1 else ''} ({shown})"
