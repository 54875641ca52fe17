"""Stores: named immutable objects with an atomic create. ``open_store`` turns a url into one."""

from __future__ import annotations

import os

from exoflow.errors import UnsupportedStore
from exoflow.protocols import Store
from exoflow.storage.local import LocalStore
from exoflow.storage.memory import MemoryStore

__all__ = ["LocalStore", "MemoryStore", "open_store"]

_REFUSED = {
    "s3": "it comes in a later version",
    "gs": "its conditional create has not been seen to hold yet",
    "gcs": "its conditional create has not been seen to hold yet",
    "az": "its conditional create has not been seen to hold yet",
    "abfs": "its conditional create has not been seen to hold yet",
    "http": "nothing can be created there",
    "https": "nothing can be created there",
}


def open_store(url: str | os.PathLike[str] | Store) -> Store:
    """The store at a url (``file://``, ``memory://``) or a plain path; a ``Store`` as it is. Writes nothing.

    Raises:
        UnsupportedStore: no atomic create has been shown to hold there.
    """
    if isinstance(url, str):
        return _open_url(url)
    if isinstance(url, os.PathLike):
        return LocalStore(os.fspath(url))
    return url


def _open_url(url: str) -> Store:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStore(url)
    if scheme == "memory":
        return MemoryStore.named(rest)
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost", "."):
            raise UnsupportedStore(
                f"{url}: a file:// url cannot name a host ({host!r}); write file:///absolute/path, or a plain path"
            )
        return LocalStore(f"./{path}" if host == "." else slash + path)
    why = _REFUSED.get(scheme, "ExoFlow does not know it")
    raise UnsupportedStore(
        f"{url}: {scheme}:// cannot be a store: {why}. A store must create an object atomically (of any number of"
        " racing creators exactly one wins) and this was proven only for local files: use a path or file:///path,"
        " or pass an object that passes exoflow.testing.stores.StoreConformance"
    )
