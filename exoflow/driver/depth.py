"""How deep the stack is: the interpreter's limit is not to strike the driver in the middle of a step."""

from __future__ import annotations

import sys

RESERVE = 150
"""Frames that a step of the driver may need, with imports and the pickling of what is passed."""


def leave_room() -> None:
    """Refuse a call from so deep that its steps could not be finished.

    Raises:
        RecursionError: to whoever has recursed, before anything is recorded.
    """
    try:
        sys._getframe(sys.getrecursionlimit() - RESERVE)
    except ValueError:  # the stack is not so deep
        return
    raise RecursionError(f"maximum recursion depth exceeded, less the {RESERVE} frames that a durable call may need")
