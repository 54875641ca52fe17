"""How many calls of a model are in flight at once, where no scheduler has slots."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary, ref

from exoflow.llm.engine.request import Usage

_FEW = 4
"""Calls that go on in one turn of the loop: more would be sent together, answered together, and wait for each other."""
_AHEAD = 4
"""A quarter as many as may be in flight make themselves ready meanwhile: to be written takes them none of that time."""


class Flights:
    """The calls of one model on one event loop.

    Args:
        most: That may be in flight.
    """

    def __init__(self, most: int) -> None:
        self._loop = ref(asyncio.get_running_loop())
        self._near = asyncio.Semaphore(most + most // _AHEAD)
        self._free = asyncio.Semaphore(most)
        self._landed: deque[Flight] = deque()
        self._called = False

    async def begin(self, make_ready: Callable[[], Awaitable[None]]) -> Flight:
        """Wait for a place, in the order of arrival. ``make_ready`` is awaited first, when the turn is near."""
        await self._near.acquire()
        try:
            await make_ready()
            await self._free.acquire()
        except BaseException:
            self._near.release()
            raise
        return Flight(self)

    def land(self, flight: Flight) -> None:
        """From any thread."""
        loop = self._loop()
        self._landed.append(flight)
        if loop is None or self._called:
            return
        self._called = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            call = loop.call_soon if loop is asyncio._get_running_loop() else loop.call_soon_threadsafe
            call(self._let_some_go_on)

    def _let_some_go_on(self) -> None:
        self._called = False  # before the look: what comes after it calls again
        for _ in range(min(_FEW, len(self._landed))):
            if not self._landed.popleft().is_over():
                self._free.release()
                self._near.release()
        loop = self._loop()
        if self._landed and not self._called and loop is not None:
            self._called = True
            loop.call_soon(self._let_some_go_on)


class Flight:
    """A turn where there is no scheduler: one among the calls in flight."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._over = False

    def charge(self, tokens: int) -> None: ...

    def settle(self, usage: Usage, nano_usd: int, *, keeps_slot: bool) -> None:
        if not keeps_slot:
            self.release()

    def release(self) -> None:
        """From any thread; more than once is once."""
        self._flights.land(self)

    def is_over(self) -> bool:
        """Whether it was before; it is now."""
        before, self._over = self._over, True
        return before


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Flights]] = WeakKeyDictionary()


def flights_of(token: str, most: int) -> Flights:
    """Those of the model with that token, on the running loop."""
    of_loop = _of_loops.setdefault(asyncio.get_running_loop(), {})
    found = of_loop.get(token)
    if found is None:
        found = of_loop[token] = Flights(most)
    return found
