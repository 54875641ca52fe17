"""For tests: of flows, with time skipped, or on a model that is none; and of what implements a protocol, by the suites
in the modules here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from exoflow.extras import needed
from exoflow.testing.skipping import SkippedTime, skipping_time

if TYPE_CHECKING:
    from exoflow.testing.endpoint import Asked, FakeEndpoint, Reply

__all__ = ["Asked", "FakeEndpoint", "Reply", "SkippedTime", "skipping_time"]


def __getattr__(name: str) -> object:
    if name not in ("Asked", "FakeEndpoint", "Reply"):  # they need aiohttp
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed(name, "calls"):
        return getattr(import_module("exoflow.testing.endpoint"), name)
