"""A bucket as one takeover sees it, or those who wait: slots that were read are not asked for again.

Slots never change, so what stands in one may be remembered; that one is not there may not. To look whether there is one
is to read it: in a takeover each is needed.
"""

from __future__ import annotations

import math
import threading

from exoflow.journal.numbered import in_bucket
from exoflow.protocols import Buffer, Store, place_of


def remembered(store: Store, most_bytes: float = math.inf) -> Store:
    """The store for the time of one takeover, if it is a bucket; any other one as it is."""
    return Remembered(store, most_bytes) if in_bucket(store) else store


class Remembered:
    """See ``protocols.Store``. Keeps what it has read for as long as it lives, up to so many bytes. Thread-safe."""

    shared = True

    def __init__(self, store: Store, most_bytes: float) -> None:
        self.url, self.place = store.url, place_of(store)
        self._store = store
        self._left_bytes = most_bytes
        self._slots: dict[str, memoryview] = {}
        self._reading: dict[str, threading.Lock] = {}
        self._newest: dict[str, int] = {}

    def read(self, name: str) -> memoryview:
        if not name.startswith("journals/"):
            return self._store.read(name)
        with self._reading.setdefault(name, threading.Lock()):  # who comes at the same time waits for the first
            known = self._slots.get(name)
            return known if known is not None else self._read(name)

    def _read(self, name: str) -> memoryview:
        data = self._store.read(name)
        if self._left_bytes >= data.nbytes:
            self._left_bytes -= data.nbytes
            self._slots[name] = data
        _, journal, number = name.split("/")
        self._newest[journal] = max(int(number), self._newest.get(journal, 0))
        return data

    def newest(self, journal: str) -> int | None:
        """The newest slot that was read."""
        return self._newest.get(journal)

    def exists(self, name: str) -> bool:
        if not name.startswith("journals/"):
            return self._store.exists(name)
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, *parts: Buffer) -> bool:
        return self._store.create(name, *parts)

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        return self._store.read_range(name, start, size)

    def list(self, prefix: str) -> list[str]:
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._store.delete(name)
