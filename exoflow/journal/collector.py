"""Python's garbage collector, while a long history is read."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 10_000
"""Records; fewer are read before a pass could cost anything."""

_lock = threading.Lock()
_readers = 0
_resumes = False


@contextmanager
def at_rest(records: int) -> Iterator[None]:
    """No automatic pass of the collector in this process while the block runs, if it makes objects of many records.

    All that is made of a history stays. The collector would look at all of it again for every quarter by which it
    grows: a third of the time that a resume took. The block must hold no user code, and end: what other threads leave
    behind meanwhile is collected then. However many threads read, the last one leaves the collector as the first one
    found it.
    """
    global _readers, _resumes
    if records < MANY:
        yield
        return
    with _lock:
        if not _readers:
            _resumes = gc.isenabled()
            gc.disable()
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers and _resumes:
                gc.enable()
