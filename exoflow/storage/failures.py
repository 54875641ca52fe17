"""What an operating system's error means for a store, and what to do about it."""

from __future__ import annotations

import errno

from exoflow.errors import StorageError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space (`exoflow gc` deletes what is not needed), then resume",
    errno.EDQUOT: "the disk quota is used up: free some space (`exoflow gc` deletes what is not needed), then resume",
    errno.EROFS: "the file system is read-only: remount it or use a store elsewhere",
    errno.EACCES: "permission is missing: give this user write access or use a store elsewhere",
    errno.EPERM: "the operation is not permitted: give this user write access or use a store elsewhere",
    errno.EIO: "the device reported an I/O error: look into the system's log and check the disk before you resume",
    errno.ENOENT: "the directory is not there: put it back if it has vanished, or use a store elsewhere",
    errno.ENOTDIR: "a part of the path is a file: use a store elsewhere",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files",
    errno.ENOTSUP: "the file system lacks hard links or locks: use a store on a local disk",
    errno.EMLINK: "the file system lacks hard links: use a store on a local disk",
}


_NEVER_MADE = "the store's directory cannot be made there: use a store elsewhere"


def storage_error(what: str, path: str, error: OSError, *, made: bool = True) -> StorageError:
    """The error to raise from ``error``: what was tried, where, why it failed and what to do.

    Args:
        what: Was tried.
        path: Where.
        error: The system's.
        made: Whether the store's directory has been seen, so that it can have vanished.
    """
    number = error.errno or 0
    if number == errno.ENOENT and not made:
        return StorageError(f"cannot {what} {path}: {error.strerror}; {_NEVER_MADE}")
    advice = _ADVICE.get(number, "look into the system's log, and whether the store can be written to")
    return StorageError(f"cannot {what} {path}: {error.strerror or error}; {advice}")
