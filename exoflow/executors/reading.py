"""Values of the store, read once for several consumers."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from exoflow.codec import Encoded, Live, as_encoded, read_stored, sharing, to_parts, to_shared
from exoflow.errors import ExecutorError, StorageError
from exoflow.model import Held, Stored, Value
from exoflow.protocols import Store

_LIMIT_BYTES = 256 << 20
_log = logging.getLogger(__name__)


class StoredValues:
    """Reads and writes values; the newest, up to 256 MiB, stay open: mapped, and their checksums verified once."""

    def __init__(self, store: Store | None) -> None:
        self.store = store
        self._open: OrderedDict[Stored, Encoded] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def read(self, value: Stored) -> Encoded:
        """Raises FileNotFoundError, Corrupt, StorageError."""
        with self._lock:
            encoded = self._open.get(value)
            if encoded is not None:
                self._open.move_to_end(value)
                return encoded
        encoded = read_stored(self._needed(), value)
        self._remember(value, encoded)
        return encoded

    def write(self, made: Encoded | Live, name: str) -> Stored:
        """Raises StorageError, or KeyError: what an engine's object stands for is lost.

        An object that exists under the name is this value: names hold versions.
        """
        encoded = as_encoded(made)
        self._needed().create(name, *to_parts(encoded))
        return Stored(name, encoded.size)

    def write_together(self, made: Sequence[Encoded | Live], name: str) -> list[Stored]:
        """Values as one object, which waits for the disk once; a single one has it alone. Raises as ``write``."""
        if len(made) == 1:
            return [self.write(made[0], name)]
        several = [as_encoded(one) for one in made]
        parts, places = to_shared(several)
        self._needed().create(name, *parts)
        return [Stored(name, encoded.size, at) for encoded, at in zip(several, places, strict=True)]

    def try_write(self, made: Encoded | Live, name: str) -> Stored | None:
        """``write``; None where the store fails, or an engine has lost the value: no fault of the attempt.

        It can be saved later, or is found to be lost then.
        """
        return self._try_together([made], name)[0]

    def kept(
        self, made: Sequence[Encoded | Live], name: str | None, hold: Callable[[Encoded | Live], Held]
    ) -> list[Value]:
        """What an attempt has made, in the store if there is a name, small ones together; else where ``hold`` puts it.

        Names begin with ``name``, and none but that itself is one that the driver gives: it may group them otherwise.
        """
        if name is None:
            return [hold(one) for one in made]
        stored: dict[int, Stored | None] = {}
        for group in sharing([one.size for one in made]):
            own = name if group == [0] else f"{name}.part{group[0]}"
            stored.update(zip(group, self._try_together([made[n] for n in group], own), strict=True))
        return [stored[n] or hold(one) for n, one in enumerate(made)]

    def _try_together(self, made: Sequence[Encoded | Live], name: str) -> Sequence[Stored | None]:
        if self.store is not None:
            try:
                return self.write_together(made, name)
            except (StorageError, KeyError) as error:
                _log.warning("cannot save %s (%s); it is kept in memory until it is saved or lost", name, error)
        return [None] * len(made)

    def _remember(self, value: Stored, encoded: Encoded) -> None:
        with self._lock:
            if value in self._open:
                return
            self._open[value] = encoded
            self._size += encoded.size
            while self._size > _LIMIT_BYTES and len(self._open) > 1:
                _, oldest = self._open.popitem(last=False)
                self._size -= oldest.size

    def _needed(self) -> Store:
        if self.store is None:
            raise ExecutorError("this executor was made without a store: open_executor(spec, store=...)")
        return self.store
