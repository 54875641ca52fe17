"""What has begun in a process, which another one of the same machine can tell when the first has died."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

_SLOTS = 4096
_SIZE = _SLOTS * 8


class Marks:
    """Memory that both share, with a slot for every 4096th serial, where the highest stands that has begun.

    So a lower one of that slot counts as begun, too.
    """

    def __init__(self, file: int) -> None:
        self._begun = memoryview(mmap.mmap(file, _SIZE)).cast("Q")

    def put(self, serial: int) -> None:
        """It is about to begin."""
        slot = serial % _SLOTS
        self._begun[slot] = max(self._begun[slot], serial)

    def has(self, serial: int) -> bool:
        """If not, it has not begun; nor will it, where the process is gone."""
        return self._begun[serial % _SLOTS] >= serial


def made(name: str) -> tuple[Marks, str] | None:
    """New marks, and where ``found`` finds them; None: this machine has no place for them."""
    path = os.path.join(tempfile.gettempdir(), f"exoflow-{name}")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return None
    try:
        os.write(file, bytes(_SIZE))  # not truncated to it: where the disk is full, touching it would kill
        return Marks(file), path
    except (OSError, ValueError):
        forget(path)
        return None
    finally:
        os.close(file)


def found(path: str) -> Marks | None:
    """Those of another process, and nobody finds them again; None: they are on another machine."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return Marks(file)
    finally:
        os.close(file)
        forget(path)


def forget(path: str) -> None:
    """Nobody is to find them any more. Who has them, keeps them."""
    with contextlib.suppress(OSError):
        os.unlink(path)
