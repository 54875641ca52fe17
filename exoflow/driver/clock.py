"""The real clock, with one thread for every timer of the process; and which clock new runs get."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

from exoflow.protocols import Clock

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""The wall clock may be set while we sleep: it is looked at at least so often."""

_FEW = 64


class Timers:
    """Callbacks by the time when they are due. One that is forgotten costs nothing for long, however late it is due.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._numbers = itertools.count()
        self._forgotten = 0

    def add(self, when: float, callback: Callable[[], None]) -> _Entry:
        entry = _Entry(when, next(self._numbers), callback)
        heapq.heappush(self._entries, entry)
        return entry

    def forget(self, entry: _Entry) -> None:
        """Nothing happens if it was due already."""
        if entry.callback is not None:
            entry.callback = None
            self._forgotten += 1
            if self._forgotten > max(_FEW, len(self._entries) // 2):
                self._entries = [each for each in self._entries if each.callback is not None]
                heapq.heapify(self._entries)
                self._forgotten = 0

    def next_s(self) -> float | None:
        """When the next one is due."""
        entries = self._entries
        while entries and entries[0].callback is None:
            heapq.heappop(entries)
            self._forgotten -= 1
        return entries[0].when if entries else None

    def due(self, now: float) -> Callable[[], None] | None:
        """Take the next one out, if it is due by now."""
        when = self.next_s()
        if when is None or when > now:
            return None
        entry = heapq.heappop(self._entries)
        callback, entry.callback = entry.callback, None
        return callback

    def __len__(self) -> int:
        return len(self._entries)


class _Entry:
    __slots__ = ("callback", "number", "when")

    def __init__(self, when: float, number: int, callback: Callable[[], None]) -> None:
        self.when = when
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: _Entry) -> bool:
        return (self.when, self.number) < (other.when, other.number)


class SystemClock:
    """Wall-clock timers that neither fire early nor get lost when the clock is set.

    Args:
        wall: Seconds since the epoch.
        check_s: A clock that is set forward is noticed after so many seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time, check_s: float = CHECK_S) -> None:
        self._wall = wall
        self._check_s = check_s
        self._condition = threading.Condition()
        self._timers = Timers()
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        return self._wall()

    def monotonic(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back from the clock's thread; ``callback`` must not block."""
        with self._condition:
            next_s = self._timers.next_s()
            entry = self._timers.add(when, callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="exoflow-clock", daemon=True)
                self._thread.start()
            if next_s is None or when < next_s:
                self._condition.notify()

        def forget() -> None:
            with self._condition:
                self._timers.forget(entry)

        return forget

    def _serve(self) -> None:
        while True:
            with self._condition:
                while (callback := self._timers.due(self._wall())) is None:
                    next_s = self._timers.next_s()
                    wait_s = None if next_s is None else max(0.0, min(next_s - self._wall(), self._check_s))
                    self._condition.wait(wait_s)
            call(callback)


def call(callback: Callable[[], None]) -> None:
    """Call back; an error is nobody's, and does not end the clock."""
    try:
        callback()
    except Exception:
        logger.exception("a timer's callback failed: %r", callback)


SYSTEM_CLOCK: Clock = SystemClock()

_in_use = SYSTEM_CLOCK


def clock_in_use() -> Clock:
    """The clock of runs that begin now. A run keeps its clock."""
    return _in_use


def use(clock: Clock) -> None:
    """Give this clock to the runs that begin from now on."""
    global _in_use
    _in_use = clock
