"""What an endpoint takes in a minute, shared by all that call it: they wait, and are not refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from functools import cache

from exoflow.llm.fair.limits import Window


class Pace:
    """Requests and tokens a minute. Of any thread.

    Args:
        rpm: requests in any 60 seconds; None: as many as there are.
        tpm: tokens in any 60 seconds.
    """

    def __init__(self, rpm: int | None = None, tpm: int | None = None, clock: Callable[[], float] = time.monotonic):
        self._window = Window(rpm, tpm)
        self._clock = clock
        self._lock = threading.Lock()

    @staticmethod
    @cache
    def of(endpoint: Hashable, rpm: int | None = None, tpm: int | None = None) -> Pace:
        """The one of this endpoint in this process."""
        return Pace(rpm, tpm)

    def take(self, tokens: int) -> float:
        """Take room for a request now: 0. Else seconds to wait before it is asked again, and nothing is taken."""
        with self._lock:
            return self._window.take(self._clock(), tokens)

    def correct(self, tokens: int, used: int) -> None:
        """A request that took room for ``tokens`` has used this many."""
        with self._lock:
            self._window.correct(used - tokens)

    def hold(self, seconds: float) -> None:
        """The endpoint wants no request for so long: what Retry-After said."""
        with self._lock:
            self._window.hold(self._clock() + seconds)
