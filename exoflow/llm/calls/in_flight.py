"""How many calls of a model are in flight at once, where no scheduler has slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from exoflow.inlet import Inlet
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
        self._near = asyncio.Semaphore(most + most // _AHEAD)
        self._free = asyncio.Semaphore(most)
        self._landed = Inlet(asyncio.get_running_loop(), self._let_one_go_on, _FEW)

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
        self._landed.put((flight,))

    def _let_one_go_on(self, flight: Flight) -> None:
        if not flight.is_over():
            self._free.release()
            self._near.release()


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
