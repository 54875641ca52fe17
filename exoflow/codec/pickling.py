"""What is no scalar, as pickle protocol 5, buffers out of band."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

from exoflow.codec.encoded import OUT_OF_BAND_MIN_BYTES
from exoflow.codec.engines import ContentLost, reduce_engine_object
from exoflow.codec.explain import WatchedPickler, refusal, run_deep
from exoflow.codec.mainfile import MainUnpickler, main_stem, reduce_by_name
from exoflow.codec.references import session
from exoflow.errors import CodecError

_PASSING = (MemoryError, CodecError, ContentLost)
"""Errors that another pickler would meet too."""


def pickled(value: object, what: str) -> tuple[bytes, list[memoryview]]:
    """By name where that can be done, else by value, else in pure Python, which is slow, goes deep, and tells where."""
    views: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_MIN_BYTES:
            return True
        views.append(raw)
        return False

    file = io.BytesIO()
    try:
        _PlainPickler(file, 5, buffer_callback=in_band).dump(value)
        return file.getvalue(), views
    except _PASSING:
        raise
    except Exception:  # noqa: BLE001 -- __reduce__ and the like are the user's code: anything can come
        return _pickled_by_value(value, what, views, in_band)


def _pickled_by_value(
    value: object, what: str, views: list[memoryview], in_band: Callable[[pickle.PickleBuffer], bool]
) -> tuple[bytes, list[memoryview]]:
    from exoflow.codec.byvalue import ByValuePickler  # cloudpickle costs 10 ms to import, and is rarely needed

    _start_again(views)
    file = io.BytesIO()
    by_value = ByValuePickler(file, 5, buffer_callback=in_band)
    try:
        by_value.dump(value)
        return file.getvalue(), views
    except _PASSING:
        raise
    except Exception:  # noqa: BLE001 -- the user's code again; the next pickler says where
        _start_again(views)
    file = io.BytesIO()
    watched = WatchedPickler(
        file, buffer_callback=in_band, reduce=by_value.reducer_override, dispatch_table=ByValuePickler.dispatch_table
    )
    try:
        run_deep(lambda: watched.dump(value))
    except _PASSING:
        raise
    except Exception as error:
        raise refusal(watched.chain, error, what) from error
    return file.getvalue(), views


def _start_again(views: list[memoryview]) -> None:
    views.clear()
    if session.met is not None:
        session.met.clear()


class _PlainPickler(pickle.Pickler):
    """Pickles by reference only. Called back for instances, classes and functions; not for containers and scalars."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType | type):
            by_name = reduce_by_name(obj)
            if by_name is not None:
                return by_name
            return NotImplemented
        reduced = reduce_engine_object(obj)
        return NotImplemented if reduced is None else reduced


def unpickled(head: bytes | memoryview, buffers: tuple[memoryview, ...]) -> object:
    stem = main_stem()
    # A find_class in Python costs 0.5 us, and matters only where the file of __main__ is named by another name.
    if stem and (isinstance(head, memoryview) or stem.encode() in head):
        return MainUnpickler(io.BytesIO(head), buffers=buffers).load()
    return pickle.loads(head, buffers=buffers)
