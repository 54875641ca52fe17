"""The real clock: one thread for every timer of the process."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

CHECK_S = 1.0  # the wall clock may be set while we sleep: look at it at least so often


class SystemClock:
    """Wall-clock timers that neither fire early nor get lost when the clock is set."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._timers: list[tuple[float, int, Callable[[], None] | None]] = []
        self._cancelled: set[int] = set()
        self._ids = itertools.count()
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back from the clock's thread; ``callback`` must not block."""
        with self._condition:
            id = next(self._ids)
            heapq.heappush(self._timers, (when, id, callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="exoflow-clock", daemon=True)
                self._thread.start()
            self._condition.notify()

        def cancel() -> None:
            with self._condition:
                self._cancelled.add(id)

        return cancel

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._timers or self._timers[0][0] > time.time():
                    wait_s = min(self._timers[0][0] - time.time(), CHECK_S) if self._timers else None
                    self._condition.wait(wait_s)
                _, id, callback = heapq.heappop(self._timers)
                cancelled = id in self._cancelled
                self._cancelled.discard(id)
            if callback is not None and not cancelled:
                callback()


SYSTEM_CLOCK = SystemClock()
