"""How many calls are worth their money: collect samples, estimate curves without a model, and beyond the log with one.

``log`` and ``estimate`` are the nouns and the exact part, ``resampling`` the intervals; ``curves``, ``scaling`` and
``worth`` are what people ask for, ``drawing`` their plots. ``collecting`` and ``files`` do I/O; all else sees no clock
and no chance but a seed.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "Choice": "resampling",
    "Curve": "curves",
    "Log": "log",
    "Plan": "worth",
    "Point": "curves",
    "Sample": "log",
    "Scaling": "scaling",
    "collect": "collecting",
    "curve": "curves",
    "fit_scaling": "scaling",
    "plan": "worth",
    "read_dataset": "files",
    "read_log": "files",
    "write_log": "files",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
