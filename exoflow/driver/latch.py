"""An event that is set once."""

from __future__ import annotations

import threading
import time

from exoflow.driver.signals import at_a_time

_first = threading.Lock()
"""Held for the first who waits: a thousand runs have a latch each, and most have nobody."""


class Latch:
    """A ``threading.Event`` that cannot be cleared, and costs next to nothing where nobody waits for it."""

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[threading.Lock] | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting = self._waiting
        while waiting:
            waiting.pop().release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it, at most so long; whether it is set."""
        if not self._set:
            turn = threading.Lock()
            turn.acquire()
            with _first:
                if self._waiting is None:
                    self._waiting = []
            self._waiting.append(turn)
            if not self._set:  # or it was set before we stood in the row
                _acquired(turn, timeout_s)
        return self._set


def _acquired(turn: threading.Lock, timeout_s: float | None) -> None:
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
        wait_s = at_a_time(left_s)
        if turn.acquire(timeout=-1 if wait_s is None else wait_s) or wait_s == left_s:
            return
