"""Values of the store, read once for several consumers."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from exoflow.codec import Encoded, Live, as_encoded, from_object, to_parts
from exoflow.errors import ExecutorError, StorageError
from exoflow.model import Stored
from exoflow.protocols import Store

_LIMIT_BYTES = 256 << 20
_log = logging.getLogger(__name__)


class StoredValues:
    """Reads and writes values; the newest, up to 256 MiB, stay open: mapped, and their checksums verified once."""

    def __init__(self, store: Store | None) -> None:
        self.store = store
        self._open: OrderedDict[str, Encoded] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def read(self, value: Stored) -> Encoded:
        """Raises FileNotFoundError, Corrupt, StorageError."""
        with self._lock:
            encoded = self._open.get(value.name)
            if encoded is not None:
                self._open.move_to_end(value.name)
                return encoded
        encoded = from_object(self._needed().read(value.name), value.name)
        self._remember(value.name, encoded)
        return encoded

    def write(self, made: Encoded | Live, name: str) -> Stored:
        """Raises StorageError, or KeyError: what an engine's object stands for is lost.

        An object that exists under the name is this value: names hold versions.
        """
        encoded = as_encoded(made)
        self._needed().create(name, *to_parts(encoded))
        return Stored(name, encoded.size)

    def try_write(self, made: Encoded | Live, name: str) -> Stored | None:
        """``write``; None where the store fails: no fault of the attempt, and the value can be saved later."""
        if self.store is None:
            return None
        try:
            return self.write(made, name)
        except StorageError as error:
            _log.warning("cannot save %s (%s); the value is kept in memory until it is saved or lost", name, error)
            return None

    def _remember(self, name: str, encoded: Encoded) -> None:
        with self._lock:
            if name in self._open:
                return
            self._open[name] = encoded
            self._size += encoded.size
            while self._size > _LIMIT_BYTES and len(self._open) > 1:
                _, oldest = self._open.popitem(last=False)
                self._size -= oldest.size

    def _needed(self) -> Store:
        if self.store is None:
            raise ExecutorError("this executor was made without a store: open_executor(spec, store=...)")
        return self.store
