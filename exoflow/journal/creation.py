"""Create an object of the journal, and know who won when the answer was lost."""

from __future__ import annotations

from exoflow.errors import StorageError
from exoflow.protocols import Store


def created(store: Store, name: str, data: bytes, tries: int = 1) -> bool:
    """Whether the object is ours: made now, or by a try whose answer was lost. ``data`` must be unlike anybody else's.

    Raises:
        StorageError: the store failed in every try, and nobody's object stands there.
    """
    while True:
        tries -= 1
        try:
            if store.create(name, data):
                return True
            return _content(store, name) == data
        except StorageError:
            content = _content(store, name)
            if content is not None:
                return content == data
            if tries <= 0:
                raise


def _content(store: Store, name: str) -> bytes | None:
    try:
        return bytes(store.read(name))
    except FileNotFoundError:
        return None  # never made, or gc took it
