"""Strict priority between bands, a policy's own order inside each."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterator
from typing import Generic

from exoflow.llm.fair.policy import Policy, W


class Bands(Generic[W]):
    """The most urgent band that has somebody waiting is served, whoever waits in the others.

    Args:
        band: makes one.
        ageing_s: who has waited so long rises by one band, and by another after as long again, so that nobody waits
            for ever. None: nobody rises. Who has been admitted once stays in its band.
    """

    def __init__(self, band: Callable[[], Policy[W]], ageing_s: float | None = None) -> None:
        if ageing_s is not None and ageing_s <= 0:
            raise ValueError(f"ageing_s={ageing_s} is to be above 0, or None")
        self._make = band
        self._ageing_s = ageing_s
        self._urgencies: list[int] = []
        self._bands: dict[int, Policy[W]] = {}
        self._risen: dict[int, int] = {}
        """Of requests that are not in the band of their own priority, by number."""
        self._rises: dict[int, tuple[float, W]] = {}
        """When who rises. Those are in it that have not been admitted."""
        self._due: list[tuple[float, int]] = []
        """The same in order, and some that are past."""

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
        self._rises.pop(w.number, None)
        return self._of(w).pop(now_s)

    def charge(self, w: W, tokens: int) -> None:
        band = self._bands[w.priority] if not self._risen else self._of(w)  # once a token: no detour
        band.charge(w, tokens)

    def finish(self, w: W, billed: int | None = None) -> None:
        self._of(w).finish(w, billed)
        self._risen.pop(w.number, None)

    def cancel(self, w: W) -> bool:
        if not self._of(w).cancel(w):
            return False
        self._risen.pop(w.number, None)
        self._rises.pop(w.number, None)
        return True

    def __len__(self) -> int:
        return sum(map(len, self._bands.values()))

    def __iter__(self) -> Iterator[W]:
        for band in self._bands.values():
            yield from band

    def _of(self, w: W) -> Policy[W]:
        return self._band(self._risen.get(w.number, w.priority))

    def _band(self, urgency: int) -> Policy[W]:
        band = self._bands.get(urgency)
        if band is None:
            band = self._bands[urgency] = self._make()
            bisect.insort(self._urgencies, urgency)
        return band

    def _will_rise(self, w: W, since_s: float) -> None:
        if self._ageing_s is not None and self._risen.get(w.number, w.priority):
            self._rises[w.number] = since_s + self._ageing_s, w
            heapq.heappush(self._due, (since_s + self._ageing_s, w.number))

    def _rise(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            due_s, number = heapq.heappop(self._due)
            rises_s, w = self._rises.get(number, (None, None))
            if w is None or rises_s != due_s:
                continue
            del self._rises[number]
            self._of(w).cancel(w)
            self._risen[number] = self._risen.get(number, w.priority) - 1
            self._of(w).add(w, now_s)
            self._will_rise(w, due_s)
