"""What a store of adapters keeps: of each name what it means, of each version where it is had."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from exoflow.llm.engine.adapters.format import AdapterSpec
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.request import AdapterRef
from exoflow.llm.engine.residency import AdapterCost

Place = Literal["disk", "host", "pool"]


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """One line of the list of adapters."""

    name: str
    version: str
    rank: int
    bytes: int
    """In the pool, and in host memory."""
    place: Place
    """The nearest of the places that have it."""
    path: str
    pinned: bool
    loads: int
    """How often this version was brought into the pool."""


@dataclass(frozen=True, slots=True)
class Meaning:
    version: str
    path: Path
    number: int
    """Of the reading that it comes from: an older one that ends later does not overrule it."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was read for a name that does not mean it yet."""

    ref: AdapterRef
    path: Path
    number: int
    adapter: HostAdapter


@dataclass(slots=True, eq=False)
class Entry:
    """One version that somebody needs."""

    spec: AdapterSpec
    cost: AdapterCost
    bytes: int
    names: set[str] = field(default_factory=set)
    paths: dict[Path, None] = field(default_factory=dict)
    """Where its content was seen last. Empty: others were written over it, and only copies are left."""
    holders: int = 0
    loads: int = 0
    reading: threading.Lock = field(default_factory=threading.Lock)
