"""A folder as a store. Written on system calls: fsspec's generic create checks and then writes, so two can win."""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import secrets
import stat
from collections.abc import Callable

from exoflow.errors import UnsupportedStore
from exoflow.hooks import reach
from exoflow.protocols import Buffer
from exoflow.storage.durable import open_directory, sync_directory, sync_file, write_through
from exoflow.storage.failures import storage_error
from exoflow.storage.locks import lock_holders
from exoflow.storage.machine import this_machine
from exoflow.storage.names import checked
from exoflow.storage.slot import LocalSlot

_TEMPORARY = ".tmp"
_MAP_FROM_BYTES = 64 * 1024
_TRIES = 20


class LocalStore:
    """Objects as files below ``root``, which the first create makes.

    A create is temp + fsync + link + directory fsync. Temporary files live in ``.tmp``, where no listing sees them;
    what a crash leaves there is harmless.
    """

    shared = True

    def __init__(self, root: str) -> None:
        if not root:
            raise UnsupportedStore("'' names no directory: write '.' if the current one is to be the store")
        self.root = os.path.abspath(os.path.expanduser(root))
        self.url = f"file://{self.root}"
        self._prefix = self.root + "/"
        self._seen_root = os.path.isdir(self.root)
        self._durable_inodes: dict[str, int] = {}
        self._serials = itertools.count()
        self._unique = secrets.token_hex(6)

    def __repr__(self) -> str:
        return f"LocalStore({self.root!r})"

    def __reduce__(self) -> tuple[Callable[[str, str], LocalStore], tuple[str, str]]:
        return _opened_again, (self.root, this_machine())  # its temporary names are each process's own

    def create(self, name: str, *parts: Buffer) -> bool:
        path = self._prefix + checked(name)
        if os.path.lexists(path):
            return False
        try:
            fd = self._publish(path, parts, "store.create", lock=False)
        except OSError as error:
            raise storage_error("create", path, error, made=self._seen_root) from error
        if fd is None:
            return False
        os.close(fd)
        reach("store.create.after")
        return True

    def create_slot(self, name: str, first: Buffer) -> LocalSlot | None:
        path = self._prefix + checked(name)
        try:
            fd = self._publish(path, (first,), "slot.create", lock=True)
        except OSError as error:
            raise storage_error("create", path, error, made=self._seen_root) from error
        if fd is None:
            return None
        reach("slot.create.after")
        return LocalSlot(name, path, fd, memoryview(first).nbytes)

    def read(self, name: str) -> memoryview:
        path = self._prefix + checked(name)
        fd = self._open(path)
        try:
            reach("store.read.before")
            size = os.fstat(fd).st_size
            if size < _MAP_FROM_BYTES:  # a system call is cheaper than a mapping and its page faults
                return memoryview(_pread(fd, size, 0))
            return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))
        except OSError as error:
            raise storage_error("read", path, error) from error
        finally:
            os.close(fd)

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        path = self._prefix + checked(name)
        fd = self._open(path)
        try:
            reach("store.read.before")
            rest = max(0, os.fstat(fd).st_size - start)
            return _pread(fd, rest if size is None else min(size, rest), start)
        except OSError as error:
            raise storage_error("read", path, error) from error
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, "there is no such object", path) from None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def exists(self, name: str) -> bool:
        try:
            return not stat.S_ISDIR(os.lstat(self._prefix + checked(name)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise storage_error("look at", self._prefix + name, error) from error

    def list(self, prefix: str) -> list[str]:
        folder = self._prefix + checked(prefix.rstrip("/")) if prefix else self.root
        found: list[str] = []
        try:
            _collect(folder, len(self._prefix), found)
        except OSError as error:
            raise storage_error("list", folder, error) from error
        return sorted(found)

    def delete(self, name: str) -> None:
        path = self._prefix + checked(name)
        try:
            reach("store.delete.before")
            os.unlink(path)
            self._prune(os.path.dirname(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise storage_error("delete", path, error) from error

    def lock_holders(self, name: str) -> tuple[int, ...]:
        path = self._prefix + checked(name)
        try:
            return lock_holders(path)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise storage_error("ask for the lock of", path, error) from error

    def _publish(self, path: str, parts: tuple[Buffer, ...], point: str, *, lock: bool) -> int | None:
        """Create the file whole; its descriptor, or None where the name is taken. Nothing stays after an error."""
        temporary = self._new_temporary()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        linked = False
        try:
            if lock:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before anybody can see the file
            reach(f"{point}.before_write")
            write_through(fd, [memoryview(part).cast("B") for part in parts])
            reach(f"{point}.before_fsync")
            sync_file(fd)
            reach(f"{point}.before_link")
            linked = self._link(temporary, path)
            if linked:
                reach(f"{point}.before_dir_fsync")
                self._sync_entry(os.path.dirname(path))
        except BaseException:
            os.close(fd)
            if linked:
                os.unlink(path)
            raise
        finally:
            os.unlink(temporary)
        if linked:
            return fd
        os.close(fd)
        return None

    def _new_temporary(self) -> str:
        name = f"{self.root}/{_TEMPORARY}/{os.getpid()}-{self._unique}-{next(self._serials)}"
        if not os.path.isdir(f"{self.root}/{_TEMPORARY}"):
            if self._seen_root and not os.path.isdir(self.root):
                raise FileNotFoundError(errno.ENOENT, "the store's directory is gone", self.root)
            os.makedirs(f"{self.root}/{_TEMPORARY}", exist_ok=True)
            for folder in _ancestors(self.root):
                sync_directory(folder)
            self._seen_root = True
        return name

    def _link(self, temporary: str, path: str) -> bool:
        """Give the file its name; whether it was free. Its folder may be pruned by a gc between any two steps."""
        for _ in range(_TRIES):
            try:
                os.link(temporary, path)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:
                if not os.path.isdir(self.root):
                    raise
                self._make_folder(os.path.dirname(path))
        raise FileNotFoundError(errno.ENOENT, "the folder vanishes as often as it is made", os.path.dirname(path))

    def _make_folder(self, folder: str) -> None:
        """Make it where it is missing. It may get the inode number of one that was pruned: forget that one."""
        above = folder
        while above.startswith(self._prefix) and not os.path.isdir(above):
            self._durable_inodes.pop(above, None)
            above = os.path.dirname(above)
        os.makedirs(folder, exist_ok=True)

    def _sync_entry(self, folder: str) -> None:
        """Make the entries of a folder durable, and the folder itself.

        Whoever made the folder may not have synced its parent yet, so each process does it once for each inode.
        """
        fd = open_directory(folder)
        try:
            inode = os.fstat(fd).st_ino
            sync_file(fd)
        finally:
            os.close(fd)
        if self._durable_inodes.get(folder) != inode:
            if folder != self.root:
                self._sync_entry(os.path.dirname(folder))
            self._durable_inodes[folder] = inode

    def _prune(self, folder: str) -> None:
        """Remove the folders that a delete left empty: every process leaves some behind."""
        while folder.startswith(self._prefix):
            try:
                os.rmdir(folder)
                self._durable_inodes.pop(folder, None)
            except OSError:
                return  # not empty, or somebody else was faster
            folder = os.path.dirname(folder)


def _opened_again(root: str, machine: str) -> LocalStore:
    """A store that has come from another process.

    Raises:
        UnsupportedStore: from another machine.
    """
    if machine != this_machine():
        raise UnsupportedStore(
            f"file://{root} is a folder of the machine {machine}, and this is {this_machine()}: with workers "
            "on other machines the store has to be one that all can reach, as s3://bucket/prefix"
        )
    return LocalStore(root)


def _ancestors(folder: str) -> list[str]:
    found = [folder]
    while (parent := os.path.dirname(found[-1])) != found[-1] and os.access(parent, os.R_OK):
        found.append(parent)
    return found


def _pread(fd: int, size: int, start: int) -> bytes:
    data = os.pread(fd, size, start)
    while len(data) < size:  # one call reads at most 2 GiB
        more = os.pread(fd, size - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def _collect(folder: str, cut: int, found: list[str]) -> None:
    """Add the names of all objects below ``folder``; folders may come and go meanwhile."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    _collect(entry.path, cut, found)
                else:
                    found.append(entry.path[cut:])
    except (FileNotFoundError, NotADirectoryError):
        return
