"""A value as Dask keeps and moves it."""

from __future__ import annotations

import pickle
from typing import Any, SupportsIndex

from exoflow.codec import Encoded
from exoflow.model import CallId


class Parcel:
    """An encoded value under the key that it has on the cluster. Its buffers travel without being copied."""

    __slots__ = ("encoded", "key")

    def __init__(self, key: str, encoded: Encoded) -> None:
        self.key = key
        self.encoded = encoded

    def __sizeof__(self) -> int:
        """By which a worker knows when to spill."""
        return self.encoded.size

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        head, buffers, refs, checksums = self.encoded
        if checksums is not None:
            checksums.verify()
        return _arrived, (self.key, bytes(head), refs, [pickle.PickleBuffer(buffer) for buffer in buffers])


def _arrived(key: str, head: bytes, refs: tuple[CallId, ...], buffers: list[Any]) -> Parcel:
    views = tuple(memoryview(buffer).cast("B").toreadonly() for buffer in buffers)
    return Parcel(key, Encoded(head, views, refs))
