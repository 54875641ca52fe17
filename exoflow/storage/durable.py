"""Make bytes and directory entries survive a power loss."""

from __future__ import annotations

import os
import sys

from exoflow.errors import UnsupportedStore

if sys.platform == "win32":  # pragma: no cover
    raise UnsupportedStore("Windows has no directory fsync and no flock: run ExoFlow in WSL, on Linux or on macOS")

if sys.platform == "darwin":  # pragma: no cover
    import fcntl

    def sync_data(fd: int) -> None:
        """Make the file's data durable. Here fsync leaves it in the drive's cache, and there is no fdatasync."""
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

    sync_file = sync_data
else:
    sync_data = os.fdatasync
    sync_file = os.fsync


def open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    fd = open_directory(path)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def write_all(fd: int, parts: list[memoryview]) -> int:
    """Write every part at the file's position; how many bytes. A part is never copied."""
    total = 0
    parts = [part for part in parts if part.nbytes]
    while parts:
        written = os.writev(fd, parts[:512])
        total += written
        while parts and written >= parts[0].nbytes:
            written -= parts.pop(0).nbytes
        if written:
            parts[0] = parts[0][written:]
    return total
