"""What votes beyond the log would get right: Chen et al., "Are More LLM Calls All You Need?", NeurIPS '24."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from exoflow.extras import needed
from exoflow.llm.planning.curves import REPLICATES, BestK, accuracies_of, whole
from exoflow.llm.planning.estimate import Floats, Rule
from exoflow.llm.planning.log import Log, as_log
from exoflow.llm.planning.resampling import Choice, Choosing, Means, cautions_of, check_replicates, choose, means
from exoflow.llm.planning.sample import Sample
from exoflow.llm.planning.tables import in_columns

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.figure import Figure

HORIZON = 99
"""The largest k that is looked at."""

_SAME = 1e-5
"""Of what is predicted, less makes no difference: where the model is flat, the first k is as good as any."""

_LEAST_RATE = 1e-6
_FEWEST = 5
"""Samples of an item: k = 1, 3, 5 are three points for three parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """One item a row: ``G(k) = exp(-a1 k - a2 √k - a3)`` is its accuracy if it is hard, 1 - G if it is easy."""

    a: Floats
    """``[items, 3]``."""
    easy: NDArray[np.bool_]

    def accuracy(self, ks: Sequence[int]) -> Floats:
        """``[items, ks]``. Of an even k that of k - 1: with two options they are the same."""
        g = np.minimum(np.exp(-self.a @ _terms(ks).T), 1.0)
        return np.where(self.easy[:, None], 1 - g, g)


@dataclass(frozen=True, eq=False)
class Scaling:
    """A fit to each item; the curve of the task is the mean over items."""

    fits: Fits = field(repr=False)
    ks: tuple[int, ...]
    """What it was fitted on, all odd."""
    measured: tuple[float, ...]
    """The mean accuracy there, of which the fit knows no more."""
    replicates: int = REPLICATES
    seed: int = 0

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to bear in mind before its best k is believed."""
        said = [*cautions_of(self.task.items)]
        if self.ks[-1] <= _FEWEST:
            said.append(
                f"fitted on k <= {self.ks[-1]} only: there it often misplaces the best k; 11 samples an item do better"
            )
        if self.best_k("max").k == HORIZON:
            said.append(f"it still rises at k = {HORIZON}, where the search ends: no best k was found")
        return tuple(said)

    @overload
    def predict(self, ks: int) -> float: ...
    @overload
    def predict(self, ks: Iterable[int]) -> list[float]: ...
    def predict(self, ks: int | Iterable[int]) -> float | list[float]:
        """The accuracy of a vote over k samples, for any k from 1."""
        wanted = whole(ks if isinstance(ks, Iterable) else [ks])
        predicted = [float(value) for value in self.fits.accuracy(wanted).mean(axis=0)]
        return predicted if isinstance(ks, Iterable) else predicted[0]

    def best_k(self, rule: Choosing = "max") -> BestK:
        """``max``: the odd k of the highest accuracy, up to 99. ``1se``: the smallest within one standard error of it.

        The interval is of 95 %, by resampling items.
        """
        if rule not in self._choices:
            raise ValueError(f"rule is 'max' or '1se', not {rule!r}")
        choice = self._choices[rule]
        return BestK(2 * choice.at + 1, (2 * choice.span[0] + 1, 2 * choice.span[1] + 1))

    def table(self, ks: Iterable[int] = (1, 3, 5, 7, 9, 11, 15, 21, 31, 51, 99)) -> str:
        """A line a k, for a person, and below it what to bear in mind."""
        measured = dict(zip(self.ks, self.measured, strict=True))
        low, high = self.task.interval()
        rows = [
            (
                str(k),
                f"{self.predict(k):.3f} [{low[(k - 1) // 2]:.3f}, {high[(k - 1) // 2]:.3f}]",
                f"{measured[k]:.3f}" if k in measured else "",
                "best" if k == self.best_k().k else "",
            )
            for k in sorted({*ks, self.best_k().k})
        ]
        return "\n".join([in_columns(("k", "predicted", "measured", ""), rows), *self.cautions])

    def plot(self, path: str | PathLike[str] | None = None, rule: Choosing = "max") -> Figure:
        """The prediction, what it was fitted on, the k that ``rule`` chooses. ``path`` ends in .png or .svg."""
        from exoflow.llm.planning.drawing import draw_scaling

        return draw_scaling(self, path, rule)

    @cached_property
    def task(self) -> Means:
        """Over items, at k = 1, 3, … 99."""
        return means(self.fits.accuracy(range(1, HORIZON + 1, 2)), self.replicates, self.seed)

    @cached_property
    def _choices(self) -> Mapping[Choosing, Choice]:
        one = np.append(self.task.mean[0], self.task.resampled[:, 0])
        return {rule: choose(self.task, rule, one, _SAME) for rule in ("max", "1se")}


def fit_scaling(
    log: Log | Iterable[Sample | Mapping[str, object]],
    ks: Iterable[int] | None = None,
    *,
    rule: Rule = "vote",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Scaling:
    """Fit the model to each item's unbiased accuracies at odd k, as far as each item has samples. It needs labels.

    Args:
        ks: what to fit on; even ones are left out, since they flatten the fit.

    Raises:
        ValueError: an item has fewer than five samples, or no label.
    """
    table = accuracies_of(as_log(log), rule)
    most = table.shape[1]
    odd = sorted({k for k in whole(range(1, most + 1) if ks is None else ks) if k % 2})
    if len(odd) < 3 or odd[0] < 1 or odd[-1] > most:
        raise ValueError(
            f"three parameters need three odd k, from 1 to the {most} samples that each item has: {odd}; "
            f"collect {_FEWEST} samples an item or more"
        )
    return fit_accuracies(odd, table[:, np.array(odd) - 1], replicates=replicates, seed=seed)


def fit_accuracies(ks: Sequence[int], table: Floats, *, replicates: int = REPLICATES, seed: int = 0) -> Scaling:
    """Fit the model to ``table`` ``[items, ks]``, accuracies at odd ks that come from anywhere."""
    check_replicates(replicates)
    patterns, of_item = np.unique(table, axis=0, return_inverse=True)
    fitted = [_fit(_terms(ks), pattern) for pattern in patterns]
    a = np.array([parameters for parameters, _ in fitted])[of_item]
    easy = np.array([is_easy for _, is_easy in fitted])[of_item]
    measured = tuple(float(value) for value in table.mean(axis=0))
    return Scaling(Fits(a, easy), tuple(ks), measured, replicates, seed)


def _fit(terms: Floats, accuracy: Floats) -> tuple[Floats, bool]:
    """The nearer of the two forms. What only rises is easy, what only falls hard: the other form cannot be nearer."""
    steps = np.diff(accuracy)
    forms = [form for form, possible in ((True, steps.max() > 0), (False, steps.min() < 0)) if possible]
    if not forms:  # flat, and it stays so: the rates' least is no rate at all
        easy = bool(accuracy[0] >= 0.5)
        g = float(1 - accuracy[0] if easy else accuracy[0])
        return np.array([0.0, 0.0, -math.log(g) if g else math.inf]), easy
    results = [(*_least_squares(terms, 1 - accuracy if easy else accuracy), easy) for easy in forms]
    _, parameters, easy = min(results, key=lambda result: result[0])
    return parameters, easy


def _least_squares(terms: Floats, g: Floats) -> tuple[float, Floats]:
    with needed("fit_scaling", "plan"):
        from scipy.optimize import least_squares

    found = least_squares(
        lambda a: np.exp(-terms @ a) - g,
        x0=(1.0, 1.0, 1.0),
        jac=lambda a: -np.exp(-terms @ a)[:, None] * terms,
        bounds=([_LEAST_RATE, _LEAST_RATE, -np.inf], np.inf),
    )
    return float(found.cost), found.x


def _terms(ks: Iterable[int]) -> Floats:
    """``[ks, 3]``: k, √k, 1, each even k as k - 1."""
    odd = np.array([k - 1 + k % 2 for k in ks], dtype=np.float64)
    return np.stack([odd, np.sqrt(odd), np.ones_like(odd)], axis=1)
