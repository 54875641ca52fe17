"""A local file that grows at its end, locked by its creator for life."""

from __future__ import annotations

import errno
import os

from exoflow.errors import StorageError
from exoflow.hooks import reach
from exoflow.protocols import Buffer
from exoflow.storage.durable import sync_data, write_all
from exoflow.storage.failures import storage_error


class LocalSlot:
    """See ``protocols.Slot``. The lock belongs to the open file: a forked child holds it too."""

    def __init__(self, name: str, path: str, fd: int, size: int) -> None:
        self.name = name
        self.size = size
        self._path = path
        self._fd = fd
        self._failed = False

    def __repr__(self) -> str:
        return f"LocalSlot({self._path!r}, {self.size} bytes)"

    def fileno(self) -> int:
        """The locked descriptor: a worker that inherits it keeps the lock held as long as it lives."""
        return self._fd

    def append(self, data: Buffer) -> None:
        self._check()
        try:
            reach("slot.append.before")
            self.size += write_all(self._fd, [memoryview(data).cast("B")])
            reach("slot.append.after")
        except OSError as error:
            self._failed = True
            raise storage_error("write to", self._path, error) from error

    def sync(self) -> None:
        self._check()
        try:
            reach("slot.sync.before")
            sync_data(self._fd)
            reach("slot.sync.after")
            if os.fstat(self._fd).st_nlink == 0:  # the sync of a deleted file succeeds, and means nothing
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        except OSError as error:
            self._failed = True  # the kernel may have dropped the pages: another sync would prove nothing
            raise storage_error("make durable", self._path, error) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check(self) -> None:
        if self._failed or self._fd < 0:
            raise StorageError(f"{self._path}: this slot is closed or has failed; the journal goes on in the next one")
