"""Guests: they come at a rate, or one waits for the other, and whoever is not answered asks again with the same key."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from travel_tables import CITIES

PATIENCE_S = 60.0
"""After which a guest who was never answered counts as lost."""
PAUSE_S = 0.05
"""Before asking again, at first."""
AGAIN = (429, 502, 503, 504)
"""Nothing was decided: ask again."""


@dataclass(frozen=True, slots=True)
class Request:
    flow: str
    arguments: dict[str, str]
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Results:
    """What became of all requests."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By key."""
    latencies_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Keys that were never answered, and why not."""
    tries: int = 0
    seconds: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")

    def __str__(self) -> str:
        rate = len(self.answers) / self.seconds
        return (
            f"{len(self.answers)} answers in {self.tries} tries and {self.seconds:.1f} s, {rate:.0f} a second; "
            f"p50 {self.percentile_ms(50):.1f} ms, p99 {self.percentile_ms(99):.1f} ms; {len(self.lost)} lost"
        )


def reservations(flow: str, guests: int = 100, seed: int = 0) -> Iterator[Request]:
    """Guests who want a trip, without end."""
    chance = random.Random(seed)
    while True:
        name = f"guest{chance.randrange(guests)}"
        yield Request(flow, {"guest": name, "password": name, "city": chance.choice(CITIES)})


def visits(flow: str, guests: int = 100, seed: int = 0) -> Iterator[Request]:
    """The paper's mix: most only look. 60 in 100 search, 39 ask for advice, one reserves."""
    chance = random.Random(seed)
    trips = reservations(flow, guests, seed)
    while True:
        place = {"kind": chance.choice(("room", "seat")), "city": chance.choice(CITIES)}
        drawn = chance.random()
        if drawn < 0.60:
            yield Request("search", place)
        elif drawn < 0.99:
            yield Request("recommend", place | {"by": chance.choice(("price", "rating"))})
        else:
            yield next(trips)


class Refused(Exception):
    """The service will never answer this request in another way."""


class Agency:
    """The service, as its guests see it: one or several gateways, any of which may be gone at any time."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], results: Results) -> None:
        self._session = session
        self._urls = itertools.cycle(urls)
        self._results = results

    async def ask(self, request: Request, intended_s: float) -> None:
        """Ask until there is an answer, one gateway and then the next. The time runs from when the guest meant to."""
        pause_s, why = PAUSE_S, ""
        while time.perf_counter() < intended_s + PATIENCE_S:
            self._results.tries += 1
            try:
                answer, why = await self._once(next(self._urls), request)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                answer, why = None, repr(error)
            except Refused as error:
                why = str(error)
                break
            if answer is not None:
                self._results.answers[request.key] = answer
                self._results.latencies_s.append(time.perf_counter() - intended_s)
                return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(1.0, 2 * pause_s)
        self._results.lost.append(f"{request.key}: {why}")

    async def _once(self, url: str, request: Request) -> tuple[Any, str]:
        headers = {"Idempotency-Key": request.key}
        async with self._session.post(f"{url}/flows/{request.flow}", json=request.arguments, headers=headers) as reply:
            if reply.status == 200:
                return await reply.json(), ""
            why = f"{reply.status}: {await reply.text()}"
            if reply.status not in AGAIN:
                raise Refused(f"{request.flow}: {why}")
            return None, why


@asynccontextmanager
async def visitors(urls: Sequence[str], results: Results) -> AsyncIterator[Agency]:
    """The way to the agency, as long as the block runs; how long that is stands in the results."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        started = time.perf_counter()
        yield Agency(session, urls, results)
        results.seconds = time.perf_counter() - started


async def at_rate(urls: Sequence[str], requests: Iterator[Request], rate: float, count: int) -> Results:
    """Open loop: guests come when they come (a Poisson process), whether those before are served or not."""
    chance, results = random.Random(1), Results()
    async with visitors(urls, results) as agency, asyncio.TaskGroup() as guests:
        intended_s = time.perf_counter()
        for request in itertools.islice(requests, count):
            intended_s += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, intended_s - time.perf_counter()))
            guests.create_task(agency.ask(request, intended_s))
    return results


async def in_line(
    urls: Sequence[str], requests: Iterator[Request], clients: int, count: int, results: Results | None = None
) -> Results:
    """Closed loop: so many guests at a time, each asks when the one before it in the line is served.

    Args:
        results: Where to write down what becomes of them, if somebody wants to look on.
    """
    line, results = itertools.islice(requests, count), results or Results()

    async def serve(agency: Agency) -> None:
        for request in line:
            await agency.ask(request, time.perf_counter())

    async with visitors(urls, results) as agency, asyncio.TaskGroup() as guests:
        for _ in range(clients):
            guests.create_task(serve(agency))
    return results
