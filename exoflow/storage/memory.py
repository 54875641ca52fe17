"""A store in this process's memory, for tests and for flows that need no second life."""

from __future__ import annotations

import threading
from typing import ClassVar

from exoflow.hooks import reach
from exoflow.protocols import Buffer
from exoflow.storage.names import checked


class MemoryStore:
    """Objects in a dict. Two opens of ``memory://x`` in one process are the same store; no other process sees it."""

    shared = False
    _named: ClassVar[dict[str, MemoryStore]] = {}
    _naming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """This process's store of that name."""
        with cls._naming:
            if name not in cls._named:
                cls._named[name] = cls(f"memory://{name}")
            return cls._named[name]

    def __repr__(self) -> str:
        return f"MemoryStore({self.url!r})"

    def create(self, name: str, *parts: Buffer) -> bool:
        checked(name)
        reach("store.create.before_link")
        data = b"".join(parts)
        with self._lock:
            if name in self._objects:
                return False
            self._objects[name] = data
        reach("store.create.after")
        return True

    def read(self, name: str) -> memoryview:
        return memoryview(self._bytes(name))

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        return self._bytes(name)[start : None if size is None else start + size]

    def _bytes(self, name: str) -> bytes:
        try:
            return self._objects[checked(name)]
        except KeyError:
            raise FileNotFoundError(f"{self.url}: there is no object {name!r}") from None

    def exists(self, name: str) -> bool:
        return checked(name) in self._objects

    def list(self, prefix: str) -> list[str]:
        with self._lock:
            if not prefix:
                return sorted(self._objects)
            folder = checked(prefix.rstrip("/")) + "/"
            return sorted(name for name in self._objects if name.startswith(folder))

    def delete(self, name: str) -> None:
        checked(name)
        reach("store.delete.before")
        with self._lock:
            self._objects.pop(name, None)
