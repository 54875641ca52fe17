"""The requests of one client, in their order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic

from exoflow.llm.fair.policy import Order, W, order_of

ENDED_MAX = 1024
"""So many jobs keep their place while nothing of them waits."""


class Line(Generic[W]):
    """Job by job, in the order of their first arrival; by arrival within a job.

    A job keeps its place while nothing of it waits, between one call and the next, until ``forget``.
    """

    __slots__ = ("_counts", "_ended", "_heap", "_places", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, W] = {}
        self._heap: list[tuple[Order, Order, int]] = []
        """The job's place, the request's own, its number. Those that have been cancelled are dropped at the top."""
        self._places: dict[str, Order] = {}
        self._counts: dict[str, int] = {}
        """How many wait, of jobs of which any do."""
        self._ended: dict[str, None] = {}
        """Those of which none do, the longest so first."""

    def add(self, w: W) -> None:
        self._waiting[w.number] = w
        heapq.heappush(self._heap, (self._place(w), order_of(w), w.number))

    def head(self) -> W:
        while (number := self._heap[0][2]) not in self._waiting:
            heapq.heappop(self._heap)
        return self._waiting[number]

    def pop(self) -> W:
        w = self.head()
        heapq.heappop(self._heap)
        self._leave(w)
        return w

    def cancel(self, w: W) -> bool:
        """Whether it waited."""
        if w.number not in self._waiting:
            return False
        self._leave(w)
        if len(self._heap) > 2 * len(self._waiting) + 16:
            self._heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(self._heap)
        return True

    def forget(self) -> None:
        """Nobody has a place any more: nothing waits, and nothing is under way."""
        self._heap.clear()
        self._places.clear()
        self._ended.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[W]:
        return iter(self._waiting.values())

    def _place(self, w: W) -> Order:
        if not w.job:
            return order_of(w)
        self._ended.pop(w.job, None)
        self._counts[w.job] = self._counts.get(w.job, 0) + 1
        return self._places.setdefault(w.job, order_of(w))

    def _leave(self, w: W) -> None:
        del self._waiting[w.number]
        if not w.job:
            return
        self._counts[w.job] -= 1
        if not self._counts[w.job]:
            del self._counts[w.job]
            self._ended[w.job] = None
            if len(self._ended) > ENDED_MAX:
                oldest = next(iter(self._ended))
                del self._ended[oldest], self._places[oldest]
