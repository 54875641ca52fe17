"""The adapters that an engine knows: names, their versions, and where the weights of a version are had."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable, Container
from pathlib import Path

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters.entries import AdapterInfo, Entry, Meaning, Place, Reading
from exoflow.llm.engine.adapters.format import AdapterSpec
from exoflow.llm.engine.adapters.host import HostAdapter, HostCache
from exoflow.llm.engine.adapters.reading import AdapterReader
from exoflow.llm.engine.naming import same_model
from exoflow.llm.engine.request import AdapterRef
from exoflow.llm.engine.residency import AdapterCost

logger = logging.getLogger(__name__)


class AdapterStore:
    """Names, versions and host memory; all methods from any thread.

    A version is known as long as a name means it or somebody holds it: whoever does keeps it, whatever the name means
    later.

    Args:
        host_bytes: what is kept in host memory. Pinned names, and versions whose directories have other content by
            now, are kept beyond it.
        base_model: the base's name, to warn of adapters that were trained on another.
        bytes_per_s: from host memory into the pool.
        forgotten: told of each version that nobody needs any more, in the thread that gave it up.
    """

    def __init__(
        self,
        reader: AdapterReader,
        *,
        host_bytes: int,
        base_model: str | None = None,
        bytes_per_s: float = 10e9,
        forgotten: Callable[[str], None] = lambda version: None,
    ) -> None:
        self.disk_reads = 0
        """How often weights were read from a directory."""
        self._reader, self._base_model, self._bytes_per_s = reader, base_model, bytes_per_s
        self._forgotten = forgotten
        self._lock = threading.Lock()
        self._names: dict[str, Meaning] = {}
        self._readings = itertools.count()
        self._entries: dict[str, Entry] = {}
        self._seen_at: dict[Path, Meaning] = {}
        self._pinned: set[str] = set()
        self._other_bases: set[str] = set()
        self._host = HostCache(host_bytes, self._stays)

    # Names.

    def register(self, name: str, path: str | os.PathLike[str]) -> AdapterRef:
        """Read the directory; from now on the name means what it holds.

        Raises:
            AdapterError: it is broken, not for this base, or not supported; the name means what it meant before.
        """
        reading = self.read(name, path)
        try:
            self.give(reading)
        finally:
            self.let_go(reading.ref)
        return reading.ref

    def read(self, name: str, path: str | os.PathLike[str]) -> Reading:
        """Read the directory for this name, which means what it meant until ``give``. Held until ``let_go``.

        Raises:
            AdapterError: as of ``register``.
        """
        if not name:
            raise AdapterError("an adapter needs a name")
        number, path = next(self._readings), Path(path).absolute()
        spec, adapter = self._read(path)
        self._warn_of_base(name, spec)
        with self._lock:
            entry = self._entries.setdefault(spec.version, self._new_entry(spec, adapter))
            entry.holders += 1
            self._see(entry, Meaning(spec.version, path, number))
            self._host.put(spec.version, adapter)
        return Reading(AdapterRef(name, spec.version), path, number, adapter)

    def is_newest(self, reading: Reading) -> bool:
        """``give`` would do something: the name does not mean what was begun later."""
        meaning = self._names.get(reading.ref.name)
        return meaning is None or meaning.number < reading.number

    def give(self, reading: Reading) -> None:
        """The name means it from now on, unless it means what was begun later."""
        name, version = reading.ref.name, reading.ref.version
        with self._lock:
            if not self.is_newest(reading):
                return
            before = self._names.get(name)
            self._names[name] = Meaning(version, reading.path, reading.number)
            if before is not None:
                self._entries[before.version].names.discard(name)
            self._entries[version].names.add(name)
            gone = self._forget(before.version) if before is not None else None
            self._host.put(version, reading.adapter)
        self._tell(gone)
        logger.debug("adapter loaded", extra={"adapter": name, "version": version})

    def unregister(self, name: str) -> AdapterRef:
        """The name is unknown from now on. Requests that have begun keep the version that they have."""
        with self._lock:
            version = self._known(name).version
            del self._names[name]
            self._pinned.discard(name)
            self._entries[version].names.discard(name)
            gone = self._forget(version)
        self._tell(gone)
        logger.debug("adapter unloaded", extra={"adapter": name, "version": version})
        return AdapterRef(name, version)

    def resolve(self, name: str) -> AdapterRef:
        """What the name means now. Never the base: an unknown name is an AdapterError."""
        return AdapterRef(name, self._known(name).version)

    def hold(self, name: str) -> AdapterRef:
        """``resolve``, and keep that version until ``let_go``, whatever the name means later."""
        with self._lock:
            version = self._known(name).version
            self._entries[version].holders += 1
        return AdapterRef(name, version)

    def let_go(self, ref: AdapterRef) -> None:
        """Once for each ``hold`` and each ``read``."""
        with self._lock:
            entry = self._entry(ref.version)
            assert entry.holders > 0, f"nobody holds {ref}"
            entry.holders -= 1
            gone = self._forget(ref.version)
        self._tell(gone)

    def pin(self, name: str) -> None:
        """Keep what the name means in host memory once it is there."""
        with self._lock:
            self._known(name)
            self._pinned.add(name)

    def unpin(self, name: str) -> None:
        with self._lock:
            self._pinned.discard(name)
            self._host.shrink()

    def adapters(self, in_pool: Container[str] = ()) -> list[AdapterInfo]:
        """All names in order; ``in_pool``: the versions that are in the pool."""
        with self._lock:
            return [self._info(name, in_pool) for name in sorted(self._names)]

    # Versions.

    def spec(self, version: str) -> AdapterSpec:
        with self._lock:
            return self._entry(version).spec

    def cost(self, version: str) -> AdapterCost:
        with self._lock:
            return self._entry(version).cost

    def in_host(self, version: str) -> bool:
        """``host`` would not read."""
        with self._lock:
            return version in self._host

    def host(self, version: str) -> HostAdapter:
        """From host memory, else from its directory; blocks meanwhile.

        Raises:
            AdapterError: its directory cannot be read, or has other content than it had.
        """
        with self._lock:
            entry = self._entry(version)
            entry.loads += 1
        with entry.reading:  # who comes second finds it in host memory
            with self._lock:
                adapter, paths = self._host.get(version), list(entry.paths)
            if adapter is None:
                adapter = self._read_again(version, paths)
                with self._lock:
                    if version in self._entries:
                        self._host.put(version, adapter)
        return adapter

    @property
    def host_bytes(self) -> int:
        """In use."""
        return self._host.bytes

    # Reading.

    def _read(self, path: Path) -> tuple[AdapterSpec, HostAdapter]:
        with self._lock:
            self.disk_reads += 1
        return self._reader.read(path)

    def _read_again(self, version: str, paths: list[Path]) -> HostAdapter:
        why = "other content was saved over it"
        for path in paths:
            try:
                spec, adapter = self._read(path)
            except AdapterError as error:
                why = str(error)
                continue
            if spec.version == version:
                return adapter
            why = f"{path} has other content"
        raise AdapterError(f"the adapter has changed since it was loaded; load it again ({why})")

    def _see(self, entry: Entry, meaning: Meaning) -> None:
        """This reading has found the entry's content there."""
        seen = self._seen_at.get(meaning.path)
        if seen is not None and seen.number > meaning.number:
            return
        if seen is not None and seen.version in self._entries:
            self._entries[seen.version].paths.pop(meaning.path, None)
        self._seen_at[meaning.path] = meaning
        entry.paths[meaning.path] = None

    # Under the lock.

    def _known(self, name: str) -> Meaning:
        meaning = self._names.get(name)
        if meaning is None:
            some = ", ".join(heapq.nsmallest(5, list(self._names)))
            known = f"known are {some}{' and others' if len(self._names) > 5 else ''}" if some else "none is loaded"
            raise AdapterError(f"there is no adapter {name!r}: {known}")
        return meaning

    def _entry(self, version: str) -> Entry:
        entry = self._entries.get(version)
        if entry is None:
            raise AdapterError(f"there is no adapter of version {version} any more: it was unloaded")
        return entry

    def _new_entry(self, spec: AdapterSpec, adapter: HostAdapter) -> Entry:
        cost = AdapterCost(adapter.pages.shape[1], adapter.bytes / self._bytes_per_s)
        return Entry(spec, cost, adapter.bytes)

    def _forget(self, version: str) -> str | None:
        """The version, if nobody needs it any more."""
        entry = self._entries[version]
        if entry.names or entry.holders:
            return None
        del self._entries[version]
        self._host.drop(version)
        for path in entry.paths:
            del self._seen_at[path]
        return version

    def _stays(self, version: str) -> bool:
        entry = self._entries[version]
        return not entry.paths or not self._pinned.isdisjoint(entry.names)

    def _info(self, name: str, in_pool: Container[str]) -> AdapterInfo:
        meaning = self._names[name]
        version, entry = meaning.version, self._entries[meaning.version]
        place: Place = "pool" if version in in_pool else "host" if version in self._host else "disk"
        rank = max(entry.spec.ranks)
        path, pinned = str(meaning.path), name in self._pinned
        return AdapterInfo(name, version, rank, entry.bytes, place, path, pinned, entry.loads)

    # Without it.

    def _tell(self, version: str | None) -> None:
        if version is not None:
            self._forgotten(version)

    def _warn_of_base(self, name: str, spec: AdapterSpec) -> None:
        """Names differ with where a model lies; shapes are what counts. Once for each name, not for each adapter."""
        theirs, ours = spec.base_model, self._base_model
        if theirs is None or ours is None or theirs in self._other_bases or same_model(theirs, ours):
            return
        self._other_bases.add(theirs)
        logger.warning("adapter %s was trained on %s, and the base is %s", name, theirs, ours)
