"""Make bytes and directory entries survive a power loss."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

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


_STRIDE_BYTES = 4 << 20
_WINDOW_BYTES = 32 << 20
"""Behind the end of what is written; pages that are clean by then leave the cache."""


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


def write_through(fd: int, parts: list[memoryview]) -> int:
    """``write_all`` to a new file, of which few pages stay in the cache.

    While the next 4 MiB are written, the disk already works on the last: the sync that follows has little left to do.
    The pages that it is done with are used again at once: to ask a hypervisor for others can cost more than the write.
    """
    total = 0
    for batch in _batches(parts):
        total += write_all(fd, batch)
        if total >= _STRIDE_BYTES:
            _hurry(fd, max(0, total - _WINDOW_BYTES), total)
    return total


def _batches(parts: list[memoryview]) -> Iterator[list[memoryview]]:
    """The parts, cut and gathered into lists of 4 MiB."""
    batch: list[memoryview] = []
    room = _STRIDE_BYTES
    for part in parts:
        while part.nbytes > room:
            yield [*batch, part[:room]]
            batch, part, room = [], part[room:], _STRIDE_BYTES
        batch.append(part)
        room -= part.nbytes
    yield batch


if hasattr(os, "posix_fadvise"):

    def _hurry(fd: int, start: int, end: int) -> None:
        """Begin to write back the dirty pages of a range, and drop the clean ones. Advice: nothing depends on it."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)

else:  # pragma: no cover

    def _hurry(fd: int, start: int, end: int) -> None: ...
