"""Stores: named immutable objects with an atomic create. ``open_store`` turns a url into one."""

from __future__ import annotations

import os

from exoflow.errors import UnsupportedStore
from exoflow.protocols import Store
from exoflow.storage.local import LocalStore
from exoflow.storage.memory import MemoryStore
from exoflow.storage.s3 import S3Store

__all__ = ["LocalStore", "MemoryStore", "S3Store", "open_store"]

_UNPROVEN = "its conditional create has to be run against the real thing first, and has not been yet"
_REFUSED = {
    "gs": _UNPROVEN,
    "gcs": _UNPROVEN,
    "az": _UNPROVEN,
    "abfs": _UNPROVEN,
    "abfss": _UNPROVEN,
    "http": "nothing can be created there",
    "https": "nothing can be created there",
}
_SCHEMES = ("s3", "s3a", "memory", "file", *_REFUSED)


def open_store(url: str | os.PathLike[str] | Store) -> Store:
    """The store at a url (``file://``, ``memory://``, ``s3://``) or a plain path; a ``Store`` as it is. Writes nothing.

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
        scheme, colon, rest = url.partition(":")
        if colon and scheme in _SCHEMES:
            meant = f"{scheme}://{'/' if scheme == 'file' else ''}{rest.lstrip('/')}"
            raise UnsupportedStore(f"{url!r} is no url: write {meant}; or ./{url}, if a folder of that name is meant")
        return LocalStore(url)
    if scheme in ("s3", "s3a"):
        return S3Store(url)
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
        " racing creators exactly one wins) and this was proven only for local files and S3: use a path,"
        " file:///path or s3://bucket/prefix, or pass an object that passes exoflow.testing.stores.StoreConformance"
    )
