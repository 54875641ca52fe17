"""Open a catalogue's file, or make a new one where it is missing, damaged or of another format."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from exoflow.catalogue.schema import create, is_sound

logger = logging.getLogger(__name__)

BUSY_S = 60.0
"""How long one process waits for another that brings the catalogue up to date: an import takes seconds."""


def open_file(path: str) -> sqlite3.Connection:
    """The catalogue at ``path``, ready to use.

    Raises:
        sqlite3.Error, OSError: there can be no such file here: a read-only folder, a full disk.
    """
    with _alone(path):
        connection = _connect(path)
        try:
            if is_sound(connection):
                return connection
            fresh = not any(connection.execute("SELECT 1 FROM sqlite_master"))
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError as error:
            logger.debug("%s: %s", path, error)
            fresh = False
        if not fresh:
            logger.info("the catalogue %s is damaged or of another format: it is built again from the journals", path)
            connection.close()
            discard(path)
            connection = _connect(path)
        create(connection)
        return connection


def open_memory() -> sqlite3.Connection:
    """A catalogue that lasts as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    create(connection)
    return connection


def discard(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """One process at a time looks whether the file is sound: two that rebuild it would delete each other's."""
    folder, name = os.path.split(path)
    fd = os.open(os.path.join(folder, f".{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # it is derived: losing its last seconds costs nothing
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError:
        pass  # not a database; whoever asks next is told
    return connection
