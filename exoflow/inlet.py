"""The way into an event loop from other threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class Inlet(Generic[T]):
    """Things for one loop, which handles them in its thread, in their order and in no context of who put them there.

    To wake a loop is a system call: one is made for all that wait. The loop is held weakly, and what comes for a
    closed one is dropped: nobody waits there any more.

    Args:
        at_once: That many in one turn of the loop; the others in the next ones.
    """

    __slots__ = ("_at_once", "_called", "_handle", "_loop", "_things")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, handle: Callable[[T], object], at_once: int = sys.maxsize
    ) -> None:
        self._loop = ref(loop)
        self._handle = handle
        self._at_once = at_once
        self._things: deque[T] = deque()
        self._called = False

    def put(self, things: Iterable[T]) -> None:
        """From any thread, that of the loop among them."""
        self._things.extend(things)
        if not self._called:
            self._call()

    def _call(self) -> None:
        loop = self._loop()
        if loop is None:
            return
        self._called = True
        call = loop.call_soon if loop is asyncio._get_running_loop() else loop.call_soon_threadsafe
        with contextlib.suppress(RuntimeError):  # it is closed
            call(self._open, context=contextvars.Context())

    def _open(self) -> None:
        self._called = False  # before the look: what comes after it calls again
        try:
            for _ in range(min(len(self._things), self._at_once)):
                self._handle(self._things.popleft())
        finally:
            if self._things and not self._called:
                self._call()
