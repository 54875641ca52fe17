"""Fault points: named places next to every I/O operation where a test can kill the process or make the disk fail.

Armed by a test through ``armed``, or for a whole process by ``EXOFLOW_FAULT="point:n[:kill|eio|enospc]"``: the n-th
time ``point`` is reached, the process dies by SIGKILL (the default) or the operation fails as the system call would.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_armed: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Say that ``point`` is reached. Costs one comparison where nothing is armed."""
    if _armed is not None:
        _armed(point)


@contextmanager
def armed(callback: Callable[[str], None]) -> Iterator[None]:
    """Call ``callback`` with the name of every point that is reached; what it raises happens there."""
    global _armed
    before, _armed = _armed, callback
    try:
        yield
    finally:
        _armed = before


def fault(spec: str) -> Callable[[str], None]:
    """What ``armed`` takes, from ``"point:n[:action]"``.

    Raises:
        ValueError: the text has another form.
    """
    point, _, rest = spec.partition(":")
    count, _, action = rest.partition(":")
    if not point or not count.isdecimal() or action not in _ACTIONS:
        raise ValueError(f"EXOFLOW_FAULT={spec!r}: write it as point:n or point:n:{'|'.join(filter(None, _ACTIONS))}")
    left = int(count)

    def strike(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if left == 0:
                _ACTIONS[action](point)

    return strike


def _kill(point: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail_with(number: int) -> Callable[[str], None]:
    def fail(point: str) -> None:
        raise OSError(number, f"{os.strerror(number)} (EXOFLOW_FAULT at {point})")

    return fail


_ACTIONS: dict[str, Callable[[str], None]] = {
    "": _kill,
    "kill": _kill,
    "eio": _fail_with(errno.EIO),
    "enospc": _fail_with(errno.ENOSPC),
}

if "EXOFLOW_FAULT" in os.environ:
    _armed = fault(os.environ["EXOFLOW_FAULT"])
