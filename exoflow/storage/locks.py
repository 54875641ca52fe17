"""Who holds the lock on a file."""

from __future__ import annotations

import fcntl
import os


def lock_holders(path: str) -> tuple[int, ...]:
    """Ids of the processes that hold a flock on the file; empty: nobody does; (-1,): somebody unknown.

    The trial lock is a shared one, so that two that ask at the same time do not take each other for the owner.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(os.fstat(fd)) or (-1,)
        return ()
    finally:
        os.close(fd)


def _named(file: os.stat_result) -> tuple[int, ...]:
    """The processes with an open, locked descriptor of the file, children that inherited it included. Linux only."""
    try:
        processes = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    except FileNotFoundError:  # pragma: no cover  (macOS)
        return ()
    return tuple(pid for pid in sorted(processes) if _holds(pid, file))


def _holds(pid: int, file: os.stat_result) -> bool:
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                opened = os.stat(f"/proc/{pid}/fd/{descriptor}")
                if (opened.st_ino, opened.st_dev) != (file.st_ino, file.st_dev):
                    continue
                with open(f"/proc/{pid}/fdinfo/{descriptor}") as info:
                    if any(line.startswith("lock:") and " WRITE " in line for line in info):
                        return True
            except OSError:
                continue  # closed in the meantime
    except OSError:
        pass  # gone in the meantime, or another user's
    return False
