"""How many calls are worth their money: collect samples, estimate curves without a model, and beyond the log with one.

``log`` and ``estimate`` are the nouns and the exact part, ``resampling`` the intervals; ``curves``, ``scaling`` and
``worth`` are what people ask for, ``drawing`` their plots. ``collecting`` and ``files`` do I/O; all else sees no clock
and no chance but a seed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exoflow.llm.planning.collecting import collect
    from exoflow.llm.planning.curves import BestK, Curve, Point, curve
    from exoflow.llm.planning.log import Log, Sample
    from exoflow.llm.planning.resampling import Choice, Range
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

_WHERE = {
    "BestK": "curves",
    "Choice": "resampling",
    "Curve": "curves",
    "Log": "log",
    "Plan": "worth",
    "Point": "curves",
    "Range": "resampling",
    "Row": "worth",
    "Sample": "log",
    "Scaling": "scaling",
    "collect": "collecting",
    "curve": "curves",
    "fit_accuracies": "scaling",
    "fit_scaling": "scaling",
    "plan": "worth",
}
"""Imported when they are first asked for: numpy, and what flows are made of."""


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
