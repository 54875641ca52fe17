"""Room in the pool for whoever needs it next: what is only kept for later makes way, KV and adapters alike.

Both are weighed by one rule, GreedyDual-Size-Frequency (Cherkasova, HPL-98-69): an entry is worth what it costs to
bring back, times how often it was used, for each page that it takes; whatever was used since the last eviction starts
above it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from exoflow.errors import OutOfPages
from exoflow.llm.engine.pool import PagePool


@dataclass(slots=True, eq=False)
class Kept:
    """Pages that would be of use again, and that nobody needs now or that somebody holds."""

    pages: int
    cost_s: float
    """To bring them back: a prefill, or a copy from host memory."""
    drop: Callable[[], None]
    """Give the pages back to the pool and forget them. Called once, when nobody holds them."""
    uses: int = 1
    worth: float = field(default=0.0, init=False)
    is_loose: bool = field(default=False, init=False)
    """It may be dropped."""


class Memory:
    """The pool, and what may be dropped from it, the least worth first."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.reclaimable = 0
        """Pages that dropping everything that nobody holds would free. The caches keep it up to date."""
        self._age = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Kept]] = []
        self._loose = 0

    @property
    def room(self) -> int:
        """Pages that ``take`` could give."""
        return self.pool.free + self.reclaimable

    def loosen(self, kept: Kept) -> None:
        """It may be dropped from now on."""
        kept.is_loose = True
        kept.worth = self._age + kept.uses * kept.cost_s / kept.pages
        heapq.heappush(self._heap, (kept.worth, next(self._order), kept))
        self._loose += 1
        if len(self._heap) > 64 + 4 * self._loose:
            self._heap = [entry for entry in self._heap if _is_current(entry)]
            heapq.heapify(self._heap)

    def hold(self, kept: Kept) -> None:
        """It may not be dropped. Its place in the heap is stale then, and is passed over."""
        if kept.is_loose:
            kept.is_loose = False
            self._loose -= 1

    def take(self, count: int) -> list[int]:
        """``count`` pages; the least worth of what is loose is dropped for them.

        Raises:
            OutOfPages: there is no room even then; nothing is dropped.
        """
        if count > self.room:
            raise OutOfPages(
                f"{count} pages are needed; {self.pool.free} of {self.pool.size} are free, {self.reclaimable} could be"
            )
        while self.pool.free < count:
            self._drop_one()
        return self.pool.alloc(count)

    def _drop_one(self) -> None:
        entry = heapq.heappop(self._heap)  # reclaimable pages were promised: there is one
        while not _is_current(entry):
            entry = heapq.heappop(self._heap)
        self._age, _, kept = entry
        self.hold(kept)
        kept.drop()


def _is_current(entry: tuple[float, int, Kept]) -> bool:
    return entry[2].is_loose and entry[2].worth == entry[0]
