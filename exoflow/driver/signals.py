"""Signals: Python handles them in the main thread, once that is awake."""

from __future__ import annotations

import asyncio
import threading

LOOK_S = 1.0
"""So often the main thread looks up from what it waits for. A signal does not wake it that comes between Python's last
look and the system call that waits, or that the system gave to another thread."""


def at_a_time(timeout_s: float | None) -> float | None:
    """How long this thread may wait at a time, of so long in all; None: for ever."""
    if threading.current_thread() is not threading.main_thread():
        return timeout_s
    return LOOK_S if timeout_s is None else min(timeout_s, LOOK_S)


def look_on(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop in the main thread look up as often, as long as it runs."""
    loop.call_later(LOOK_S, look_on, loop)
