"""Large values between the processes of one machine: files in shared memory, mapped by whoever reads them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence

from exoflow.codec import Encoded, from_object, to_parts

EXECUTOR = "processes"
"""The executor that holds what lies in spools."""

_LOCK = "lock"
_SHARED_MEMORY = "/dev/shm"
_numbers = itertools.count()


def write_spool(folders: Sequence[str], encoded: Encoded) -> str:
    """Write the value into the first folder with room for it; the file's path.

    Raises:
        OSError: there is no room anywhere.
    """
    parts = to_parts(encoded, checksums=False)
    for folder in folders:
        path = os.path.join(folder, f"{os.getpid()}-{next(_numbers)}")
        try:
            with open(path, "xb", buffering=0) as file:
                for part in parts:
                    _write_all(file.fileno(), memoryview(part))
        except OSError as error:
            if os.path.exists(path):
                os.unlink(path)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or folder == folders[-1]:
                raise
        else:
            return path
    raise ValueError("no folder was given")


def read_spool(path: str) -> Encoded:
    """The value, mapped. It stays readable when the file is deleted.

    Raises:
        FileNotFoundError: it was released, or is lost.
    """
    with open(path, "rb") as file:
        return from_object(memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)), path)


def delete_spool(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Spool:
    """Private folders for the spool files of one executor, gone when it is closed or its process has died."""

    def __init__(self) -> None:
        self._locks: list[int] = []
        self.folders: list[str] = []
        for place in (_SHARED_MEMORY, tempfile.gettempdir()):
            if os.path.isdir(place) and os.access(place, os.W_OK):
                self._add_folder(place)
        # A shell that waits for the end of its input, which comes even if this process is killed.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read line; rm -rf -- "$@"', "exoflow-janitor", *self.folders],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _add_folder(self, place: str) -> None:
        home = os.path.join(place, f"exoflow-{os.getuid()}")
        if not _is_private(home):
            home = tempfile.mkdtemp(prefix="exoflow-", dir=place)
        _sweep(home)
        # Locked before it has its name, so that nobody else's sweep takes it for a dead one's.
        folder = tempfile.mkdtemp(prefix="new-", dir=home)
        lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        named = os.path.join(home, f"{os.getpid()}-{os.path.basename(folder)[4:]}")
        os.rename(folder, named)
        self._locks.append(lock)
        self.folders.append(named)


def _is_private(home: str) -> bool:
    """Make the folder; whether it is ours alone: where all can write, anybody may have made one of that name."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(home, 0o700)
    status = os.lstat(home)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _sweep(home: str) -> None:
    """Delete the folders of dead processes: those that nobody holds the lock of."""
    for name in os.listdir(home):
        if name.startswith("new-"):
            continue
        folder = os.path.join(home, name)
        try:
            lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # somebody else is just deleting it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _write_all(file: int, view: memoryview) -> None:
    view = view.cast("B") if view.format != "B" or view.ndim != 1 else view
    while view.nbytes:
        view = view[os.write(file, view) :]
