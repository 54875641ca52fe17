"""The travel agency of examples/travel, served by real gateways, which are killed, as are their workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest
import sqlalchemy as sa

import exoflow

AGENCY = Path(__file__).parents[2] / "examples" / "travel"
sys.path.insert(0, str(AGENCY))

import travel_desk as desk  # noqa: E402
from travel_audit import audit, compare, receipts, summary  # noqa: E402  # they lie with the example
from travel_load import Request, Results, in_line, reservations  # noqa: E402

AT_LEAST = 8
"""Guests who are served between two faults."""
VARIANTS = ("sync", "parallel", "async", "rollback", "transactional")
GATEWAY = [sys.executable, "-c", "from exoflow.cli import main; main()", "serve", str(AGENCY / "travel.py")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class Postgres(Protocol):
    """What the fixture of conftest.py gives."""

    def new_database(self) -> str: ...

    def crash(self) -> None: ...


class Town:
    """A database, a store, and gateways of the agency that share both."""

    def __init__(self, folder: Path, database: str, *, places: int) -> None:
        self.folder = folder
        self.engine = sa.create_engine(database, poolclass=sa.NullPool)
        self.chance = random.Random(7)
        self.gateways: dict[int, subprocess.Popen[bytes]] = {}
        """By port."""
        self.killed: Counter[str] = Counter()
        # Partners are away, so that who is killed has often done something of which nobody heard.
        self._environment = {**os.environ, "TRAVEL_DATABASE": database, "TRAVEL_AWAY_MS": "20"}
        opened = [sys.executable, str(AGENCY / "travel.py"), "open", "--places", str(places)]
        subprocess.run(opened, env=self._environment, check=True, capture_output=True)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.gateways]

    def start_gateway(self, port: int | None = None) -> None:
        """Start one whose tasks run in processes, and wait until it listens."""
        port = port or free_port()
        words = [*GATEWAY, "--port", str(port), "--store", str(self.folder / "store"), "--executor", "processes"]
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(words, env=self._environment, cwd=self.folder, stdout=log, stderr=log)
        self.gateways[port] = process
        while not listens(port):
            assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def kill_something(self) -> None:
        """Kill -9: a worker, or a gateway, in whose place another one starts."""
        self.chance.choice((self.kill_worker, self.kill_gateway))()

    def kill_worker(self) -> None:
        """One of any gateway, if it has one."""
        port = self.chance.choice(list(self.gateways))
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self.chance.choice(psutil.Process(self.gateways[port].pid).children()).kill()
            self.killed["workers"] += 1

    def kill_gateway(self) -> None:
        port = self.chance.choice(list(self.gateways))
        with self.gateways[port] as process:
            process.kill()
        self.killed["gateways"] += 1
        self.start_gateway(port)

    def close(self) -> None:
        """Stop all gateways in good order."""
        for process in self.gateways.values():
            process.terminate()
        for process in self.gateways.values():
            with process:
                assert process.wait(60) in (0, -signal.SIGTERM), "the second: it was still starting"
        self.gateways.clear()


@pytest.fixture
def make_town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def make(database: str = f"sqlite:///{tmp_path}/travel.sqlite", *, gateways: int = 1, places: int = 1000) -> Town:
        towns.append(Town(tmp_path, database, places=places))
        for _ in range(gateways):
            towns[0].start_gateway()
        return towns[0]

    yield make
    for town in towns:
        for process in town.gateways.values():  # a test that failed has left them
            with process:
                process.kill()


@contextlib.contextmanager
def changed(engine: sa.Engine, statement: str) -> Iterator[None]:
    """The database with that change, which is gone after the block."""
    file = Path(str(engine.url.database))
    before = file.read_bytes()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        yield
    finally:
        file.write_bytes(before)


def requests(*variants: str) -> Iterator[Request]:
    """Guests who go to each of these variants in turn."""
    lines = [reservations(f"reserve_{variant}", seed=number) for number, variant in enumerate(variants)]
    while True:
        for line in lines:
            yield next(line)


async def serve(town: Town, guests: Iterator[Request], count: int, faults: Callable[[Results], object]) -> Results:
    """Serve so many guests while faults happen."""
    results = Results()
    happening = asyncio.create_task(faults(results))
    try:
        return await in_line(town.urls, guests, clients=8, count=count, results=results)
    finally:
        happening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await happening


def every(answers: int, fault: Callable[[], None]) -> Callable[[Results], object]:
    """A fault each time that so many guests more were answered."""

    async def happen(results: Results) -> None:
        for number in itertools.count(1):
            while len(results.answers) < number * answers:  # noqa: ASYNC110 -- the load generator knows no events
                await asyncio.sleep(0.01)
            await asyncio.to_thread(fault)

    return happen


def check(town: Town, results: Results, count: int) -> None:
    """Whoever was accepted was served, once, and the books are clean."""
    assert results.lost == []
    assert len(results.answers) == count
    town.close()
    assert audit(town.engine) == []
    assert compare(receipts(town.engine), results.answers) == []
    print(f"audit: clean: {summary(town.engine)}; killed: {dict(town.killed)}; {results}")
    statuses = Counter(str(run.status) for run in exoflow.runs(store=town.folder / "store"))
    assert statuses == {"done": count}


@pytest.mark.big
@pytest.mark.slow
def test_all_variants_keep_clean_books_while_workers_and_gateway_are_killed(make_town: Callable[..., Town]) -> None:
    town = make_town()
    results = asyncio.run(serve(town, requests(*VARIANTS), 100, every(12, town.kill_something)))
    assert town.killed.total() >= 7
    check(town, results, 100)


@pytest.mark.big
@pytest.mark.slow
def test_what_a_dead_worker_has_acquired_is_given_back(make_town: Callable[..., Town]) -> None:
    town = make_town()
    results = asyncio.run(serve(town, requests("rollback"), 80, every(4, town.kill_worker)))
    with town.engine.connect() as connection:
        undone = connection.scalar(sa.text("SELECT count(*) FROM acquisitions WHERE outcome = 'released'"))
    assert undone > 0
    check(town, results, 80)


def test_the_auditor_sees_each_thing_that_can_be_wrong(make_town: Callable[..., Town]) -> None:
    town = make_town()
    results = asyncio.run(in_line(town.urls, requests("rollback"), clients=4, count=10))
    check(town, results, 10)
    for statement in (
        "UPDATE hotels SET free = free + 1 WHERE name = (SELECT item FROM acquisitions WHERE kind = 'room' LIMIT 1)",
        "UPDATE acquisitions SET outcome = 'held' WHERE key = (SELECT acquisition FROM bookings LIMIT 1)",
        "UPDATE acquisitions SET outcome = 'released' WHERE key = (SELECT acquisition FROM bookings LIMIT 1)",
        "UPDATE bookings SET state = 'cancelled' WHERE key = (SELECT room FROM orders LIMIT 1)",
        "UPDATE bookings SET guest = 'nobody' WHERE key = (SELECT seat FROM orders LIMIT 1)",
        "DELETE FROM orders WHERE key = (SELECT key FROM orders LIMIT 1)",
        "INSERT INTO orders SELECT key || '2', guest, room, seat, amount_cents FROM orders LIMIT 1",
        "UPDATE orders SET amount_cents = amount_cents + 1 WHERE key = (SELECT key FROM orders LIMIT 1)",
    ):
        with changed(town.engine, statement):
            assert audit(town.engine), statement
    assert audit(town.engine) == []


def test_the_auditor_compares_the_books_with_what_guests_were_told() -> None:
    booked = {"status": "booked", "receipt": "a/order#0"}
    assert compare({"a/order#0"}, {"1": booked, "2": {"status": "sold out", "receipt": ""}}) == []
    assert compare({"a/order#0"}, {"1": booked, "2": booked}) != []
    assert compare(set(), {"1": booked}) != []
    assert compare({"a/order#0", "b/order#0"}, {"1": booked}) != []


@pytest.mark.big
def test_whoever_comes_when_all_is_sold_out_is_told_so(make_town: Callable[..., Town]) -> None:
    town = make_town(places=1)  # 50 rooms and 50 seats
    results = asyncio.run(in_line(town.urls, requests(*VARIANTS), clients=8, count=100))
    told = Counter(answer["status"] for answer in results.answers.values())
    assert told == {"booked": 50, "sold out": 50}
    check(town, results, 100)


def test_whoever_asks_again_for_the_last_place_has_it_already(tmp_path: Path) -> None:
    town = Town(tmp_path, f"sqlite:///{tmp_path}/travel.sqlite", places=1)
    with town.engine.begin() as connection:
        seats = desk.search(connection, "seat", "Lima")[:1]
        first = desk.acquire(connection, "guest", "seat", seats)
        assert first is not None
        assert desk.acquire(connection, "guest", "seat", seats) == first
        assert desk.acquire(connection, "another", "seat", seats) is None


def now_and_then(*faults: Callable[[], None]) -> Callable[[Results], object]:
    """One of the faults every second or so, if some guests were served meanwhile: machines differ."""

    async def happen(results: Results) -> None:
        chance = random.Random(11)
        while True:
            served = len(results.answers)
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            while len(results.answers) < served + AT_LEAST:  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.01)
            await asyncio.to_thread(chance.choice(faults))

    return happen


@pytest.mark.big
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thousand_reservations_outlive_their_workers_and_gateways(
    make_town: Callable[..., Town], variant: str
) -> None:
    town = make_town(places=18)  # 900 rooms and as many seats
    results = asyncio.run(serve(town, requests(variant), 1000, now_and_then(town.kill_something)))
    check(town, results, 1000)


@pytest.mark.big
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thousand_reservations_at_two_gateways_outlive_the_database_too(
    make_town: Callable[..., Town], postgres: Postgres, variant: str
) -> None:
    town = make_town(postgres.emptied(), gateways=2, places=18)
    faults = now_and_then(town.kill_something, town.kill_something, postgres.crash)
    results = asyncio.run(serve(town, requests(variant), 1000, faults))
    check(town, results, 1000)
