"""Places for calls in flight: so many, in order, and the next ones make themselves ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from exoflow.llm.calls.in_flight import Flight, Flights


class Calls:
    """Each makes itself ready, begins, and ends when it is told."""

    def __init__(self, flights: Flights) -> None:
        self.flights = flights
        self.ready: list[int] = []
        self.begun: dict[int, Flight] = {}

    def start(self, number: int) -> asyncio.Task[None]:
        async def call() -> None:
            self.begun[number] = await self.flights.begin(self._ready(number))

        return asyncio.create_task(call())

    def _ready(self, number: int) -> Callable[[], Awaitable[None]]:
        async def ready() -> None:
            self.ready.append(number)

        return ready


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_so_many_are_in_flight_and_a_quarter_as_many_are_ready() -> None:
    calls = Calls(Flights(8))
    tasks = [calls.start(number) for number in range(20)]
    await settled()
    assert list(calls.begun) == [*range(8)]
    assert calls.ready == [*range(10)]
    for number in range(20):
        calls.begun[number].release()
        await settled()
        assert list(calls.begun) == [*range(min(20, 9 + number))]
    await asyncio.gather(*tasks)


async def test_where_few_may_be_in_flight_nobody_is_ready_before() -> None:
    calls = Calls(Flights(1))
    tasks = [calls.start(number) for number in range(3)]
    await settled()
    assert (list(calls.begun), calls.ready) == ([0], [0])
    for number in range(3):
        calls.begun[number].release()
        await settled()
    await asyncio.gather(*tasks)


async def test_those_that_end_together_let_the_next_ones_go_on_a_few_at_a_turn() -> None:
    calls = Calls(Flights(64))
    tasks = [calls.start(number) for number in range(128)]
    await settled()
    turns = []
    for number in range(64):
        calls.begun[number].release()
    while len(calls.begun) < 128:
        before = len(calls.begun)
        await asyncio.sleep(0)
        turns.append(len(calls.begun) - before)
    assert max(turns) <= 8, turns
    await asyncio.gather(*tasks)


async def test_a_place_is_given_back_from_any_thread_and_once() -> None:
    calls = Calls(Flights(1))
    tasks = [calls.start(number) for number in range(4)]
    await settled()
    for _ in range(3):
        await asyncio.to_thread(calls.begun[0].release)
    await settled()
    assert list(calls.begun) == [0, 1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("waits", ["for its place", "until it is ready"])
async def test_who_gives_up_takes_no_place(waits: str) -> None:
    flights = Flights(4)
    calls = Calls(flights)
    tasks = [calls.start(number) for number in range(4)]
    await settled()
    never = asyncio.get_running_loop().create_future()
    gives_up = calls.start(4) if waits == "for its place" else asyncio.ensure_future(flights.begin(lambda: never))
    await settled()
    gives_up.cancel()
    tasks.append(calls.start(5))
    await settled()
    assert 5 in calls.ready
    calls.begun[0].release()
    await settled()
    assert 5 in calls.begun
    await asyncio.gather(*tasks)


async def test_an_error_on_the_way_is_the_callers_and_takes_no_place() -> None:
    flights = Flights(1)

    async def fails() -> None:
        raise RuntimeError("no")

    for _ in range(5):
        with pytest.raises(RuntimeError, match="no"):
            await flights.begin(fails)
    calls = Calls(flights)
    await calls.start(0)
    assert 0 in calls.begun


def test_what_ends_after_its_loop_has_ended_disturbs_nobody() -> None:
    async def left() -> Flight:
        calls = Calls(Flights(1))
        await calls.start(0)
        return calls.begun[0]

    asyncio.run(left()).release()
