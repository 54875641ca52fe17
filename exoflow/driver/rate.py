"""How fast a store takes values: what a deterministic result is judged by, which is saved or computed again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from exoflow.kernel.state import SECONDS_PER_BYTE

PRIOR_BYTES = 16 << 20
"""The rate that is assumed counts as if so much had been written at it."""
HALF_LIFE_S = 60.0
"""What was measured so long ago counts half: a store that was slow for a moment is not thought slow for ever."""
MEASURED_MIN_BYTES = 1 << 20
"""A smaller object takes as long as the disk, or the request, whatever its size."""
FASTEST, SLOWEST = 1 / 10e9, 1 / 1e6
"""Seconds a byte; nobody's clock, and no pause of a machine, makes it more or less."""


class Rate:
    """Of one store, measured where this process asks for values to be saved. Shared by its runs.

    Args:
        now_s: The time that writing takes is nobody's to skip, so it is not the clock of a run.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.now_s = now_s
        self._bytes = 0.0
        self._seconds = 0.0
        self._at_s = 0.0
        """Up to when the sums above are aged, and time is counted."""
        self._lock = threading.Lock()

    def wrote(self, size: int, began_s: float) -> None:
        """So many bytes have been written since they were to be; where writes overlap, their time counts once."""
        if size < MEASURED_MIN_BYTES:
            return
        ended_s = self.now_s()
        with self._lock:
            weight = self._weight(ended_s)
            self._bytes = self._bytes * weight + size
            self._seconds = self._seconds * weight + max(0.0, ended_s - max(began_s, self._at_s))
            self._at_s = max(ended_s, self._at_s)

    def seconds_per_byte(self) -> float:
        """What writing takes, by what was written lately; the assumed rate while that is little."""
        with self._lock:
            weight = self._weight(self.now_s())
            seconds = PRIOR_BYTES * SECONDS_PER_BYTE + self._seconds * weight
            found = seconds / (PRIOR_BYTES + self._bytes * weight)
        return min(max(found, FASTEST), SLOWEST)

    def _weight(self, now_s: float) -> float:
        weight: float = 0.5 ** (max(0.0, now_s - self._at_s) / HALF_LIFE_S)
        return weight
