"""The crc32 of large buffers, each computed once: the store, the record of a call and a reader ask for the same one.

A value's bytes are fixed before anyone may use it (L8), so that their sums hold as long as the value is held.
"""

from __future__ import annotations

import sys
import threading
import weakref
import zlib
from typing import Any

from exoflow.model import INLINE_MAX_BYTES


class _Sum:
    """Of the memory that a view keeps alive; computed by the first thread that asks, while others wait for it."""

    __slots__ = ("crc", "lock", "view")

    def __init__(self, key: tuple[int, int], view: memoryview) -> None:
        self.crc: int | None = None
        self.lock = threading.Lock()
        self.view = weakref.ref(view, lambda _: self._forget(key))

    def of(self, view: memoryview) -> int:
        with self.lock:
            if self.crc is None:
                self.crc = zlib.crc32(view)
            return self.crc

    def _forget(self, key: tuple[int, int]) -> None:
        """The memory may be somebody else's from now on."""
        if _sums.get(key) is self:
            del _sums[key]


_sums: dict[tuple[int, int], _Sum] = {}
"""By address and size. An entry dies with its view, before the memory can have another use."""


def fix(view: memoryview) -> None:
    """From now on the bytes of this read-only view are what they are, whatever was known of this memory before."""
    key = _key(view)
    if key is not None and not _is_known(key, view.obj):
        _sums[key] = _Sum(key, view)


def crc32(part: bytes | bytearray | memoryview) -> int:
    """``zlib.crc32``, without another pass over what was fixed and is known."""
    key = _key(part) if type(part) is memoryview else None
    known = None if key is None else _sums.get(key)
    return zlib.crc32(part) if known is None else known.of(memoryview(part))


def is_fixed(view: memoryview) -> bool:
    """Whether this is memory of a decoded value: it was fixed, and has been read-only since."""
    key = _key(view)
    return key is not None and _is_known(key, view.obj)


def crc32_of_array(array: Any) -> int | None:
    """The crc32 of a NumPy array, if it is a decoded value, read-only and whole; None: nothing is known of it."""
    if array.nbytes <= INLINE_MAX_BYTES or not array.flags.c_contiguous:
        return None
    key = (array.__array_interface__["data"][0], array.nbytes)
    known = _sums.get(key)
    return known.of(array.reshape(-1).view("u1")) if known is not None and _is_known(key, array) else None


def _key(view: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Address and size of a large view; None: too small, or no NumPy here, which alone tells addresses."""
    numpy = sys.modules.get("numpy")
    size = memoryview(view).nbytes
    if numpy is None or size <= INLINE_MAX_BYTES:
        return None
    return numpy.frombuffer(view, numpy.uint8).__array_interface__["data"][0], size


def _is_known(key: tuple[int, int], owner: Any) -> bool:
    """Whether the owner of this memory is a read-only array that was decoded from the very view that was fixed.

    Any other array could have been changed since, by whoever made it.
    """
    known = _sums.get(key)
    view = None if known is None else known.view()
    numpy = sys.modules.get("numpy")
    if view is None or numpy is None or not isinstance(owner, numpy.ndarray) or owner.flags.writeable:
        return False
    base = owner.base
    while isinstance(base, numpy.ndarray):
        base = base.base
    return type(base) is memoryview and base.obj is view.obj
