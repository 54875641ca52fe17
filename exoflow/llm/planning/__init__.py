"""How many calls are worth their money: collect samples, estimate curves without a model, and beyond the log with one.

Rooms:
    collecting, progress       n samples of each question, as a flow; how far it is
    log, files                 what was answered, and as a file                                       ``log`` is pure
    estimate                   what a vote over k of an item's samples would have got right           pure
    resampling                 intervals: no chance but a seed                                        pure
    curves, scaling, worth     ``curve``, ``fit_scaling``, ``plan``                                   pure
    tables, drawing            as text, and as pictures                                               ``tables`` is pure
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from exoflow.extras import needed

if TYPE_CHECKING:
    from exoflow.llm.planning.collecting import collect
    from exoflow.llm.planning.curves import BestK, Curve, Point, curve
    from exoflow.llm.planning.log import Log
    from exoflow.llm.planning.resampling import Choice, Range
    from exoflow.llm.planning.sample import Sample
    from exoflow.llm.planning.scaling import Scaling, fit_accuracies, fit_scaling
    from exoflow.llm.planning.worth import Plan, Row, plan

__all__ = [
    "BestK",
    "Choice",
    "Curve",
    "Log",
    "Plan",
    "Point",
    "Range",
    "Row",
    "Sample",
    "Scaling",
    "collect",
    "curve",
    "fit_accuracies",
    "fit_scaling",
    "plan",
]

_HOMES = {
    "collecting": "collect",
    "curves": "BestK Curve Point curve",
    "log": "Log",
    "resampling": "Choice Range",
    "sample": "Sample",
    "scaling": "Scaling fit_accuracies fit_scaling",
    "worth": "Plan Row plan",
}
"""Imported when they are first asked for: numpy, and what flows are made of."""

_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed(name, "plan"):
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
