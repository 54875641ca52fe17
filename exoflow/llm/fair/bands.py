"""Strict priority between bands, a policy's own order inside each."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterator
from typing import Generic, Protocol

from exoflow.llm.fair.policy import Policy, W


class Banded(Policy[W], Protocol):
    """What a band is."""

    def knows(self, w: W) -> bool:
        """It was admitted, and has not ended."""
        ...


class Bands(Generic[W]):
    """The most urgent band that has somebody waiting is served, whoever waits in the others.

    Args:
        band: makes one.
        ageing_s: who has waited so long rises by one band, and by another after as long again, so that nobody waits
            for ever. None: nobody rises. Who has been admitted once stays in its band.
    """

    def __init__(self, band: Callable[[], Banded[W]], ageing_s: float | None = None) -> None:
        if ageing_s is not None and ageing_s <= 0:
            raise ValueError(f"ageing_s={ageing_s} is to be above 0, or None")
        self._make = band
        self._ageing_s = ageing_s
        self._urgencies: list[int] = []
        self._bands: dict[int, Banded[W]] = {}
        self._risen: dict[int, int] = {}
        """Of requests that are not in the band of their own priority, by number."""
        self._due: list[tuple[float, int, W]] = []
        """When who rises, if it still waits."""

    def add(self, w: W, now_s: float) -> None:
        if w.priority < 0:
            raise ValueError(f"priority={w.priority}: 0 is the most urgent")
        self._of(w).add(w, now_s)
        self._will_rise(w, w.arrival_s)

    def requeue(self, w: W, now_s: float) -> None:
        self._of(w).requeue(w, now_s)

    def peek(self, now_s: float) -> W | None:
        self._rise(now_s)
        for urgency in self._urgencies:
            if len(self._bands[urgency]) and (w := self._bands[urgency].peek(now_s)) is not None:
                return w
        return None

    def pop(self, now_s: float) -> W:
        w = self.peek(now_s)
        assert w is not None, "nobody is next"
        return self._of(w).pop(now_s)

    def charge(self, w: W, tokens: int) -> None:
        self._of(w).charge(w, tokens)

    def finish(self, w: W, billed: int | None = None) -> None:
        self._of(w).finish(w, billed)
        self._risen.pop(w.number, None)

    def cancel(self, w: W) -> bool:
        if not self._of(w).cancel(w):
            return False
        self._risen.pop(w.number, None)
        return True

    def __len__(self) -> int:
        return sum(map(len, self._bands.values()))

    def __iter__(self) -> Iterator[W]:
        for band in self._bands.values():
            yield from band

    def _of(self, w: W) -> Banded[W]:
        return self._band(self._risen.get(w.number, w.priority))

    def _band(self, urgency: int) -> Banded[W]:
        band = self._bands.get(urgency)
        if band is None:
            band = self._bands[urgency] = self._make()
            bisect.insort(self._urgencies, urgency)
        return band

    def _will_rise(self, w: W, since_s: float) -> None:
        if self._ageing_s is not None and self._risen.get(w.number, w.priority):
            heapq.heappush(self._due, (since_s + self._ageing_s, w.number, w))

    def _rise(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            due_s, _, w = heapq.heappop(self._due)
            band = self._of(w)
            if band.knows(w) or not band.cancel(w):
                continue
            self._risen[w.number] = self._risen.get(w.number, w.priority) - 1
            self._of(w).add(w, now_s)
            self._will_rise(w, due_s)
