"""What an endpoint takes in a minute, shared by all that call it: they wait, and are not refused."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from exoflow.driver.clock import clock_in_use
from exoflow.llm.fair.limits import SlidingMinute
from exoflow.protocols import Clock

_paces: dict[Hashable, Pace] = {}
_holds: dict[Hashable, SlidingMinute] = {}
_lock = threading.Lock()


class Pace:
    """Requests and tokens a minute. Of any thread.

    Args:
        rpm: requests in any 60 seconds; None: as many as there are.
        tpm: tokens in any 60 seconds; what a request may use at most is taken when it goes, and corrected when it ends.
        clock: None: that of the process.

    Raises:
        ValueError: a limit is no whole number from 1.
    """

    def __init__(self, rpm: int | None = None, tpm: int | None = None, clock: Clock | None = None) -> None:
        self._window = SlidingMinute(rpm, tpm)
        self._held = SlidingMinute(None, None)
        self._clock = clock or clock_in_use()
        self._lock = threading.Lock()

    @staticmethod
    def of(endpoint: Hashable, rpm: int | None = None, tpm: int | None = None) -> Pace:
        """The one of this endpoint with these limits in this process; all of an endpoint are held together."""
        with _lock:
            found = _paces.get((endpoint, rpm, tpm))
            if found is None:
                found = _paces[endpoint, rpm, tpm] = Pace(rpm, tpm)
                found._held = _holds.setdefault(endpoint, found._held)
            return found

    def take(self, tokens: int) -> float:
        """Take room for a request: 0. Or take none: the seconds to wait before it is worth another try."""
        with self._lock:
            now_s = self._clock.monotonic()
            return self._held.take(now_s, tokens) or self._window.take(now_s, tokens)

    def correct(self, tokens: int, used: int) -> None:
        """A request that took ``tokens`` has used so many."""
        with self._lock:
            self._window.correct(tokens, used)

    def hold(self, seconds: float) -> None:
        """The endpoint wants no request for so long: what Retry-After said."""
        with _lock:
            self._held.hold(self._clock.monotonic() + seconds)
