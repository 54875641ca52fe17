"""Dispatches attempts to Dask's workers, one worker for each, and tells what became of them.

All of it happens on the loop of one Dask client, so that nothing here needs a lock. ADR 0020 says what Dask would do by
itself, and why the worker is chosen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Future, as_completed

from exoflow.executors.dask import worker
from exoflow.executors.dask.actors import Actors
from exoflow.executors.dask.cluster import Connection
from exoflow.executors.dask.demand import Demand
from exoflow.executors.dask.ending import Endings, Tell
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.placing import Seat, Waiting, nearest
from exoflow.executors.dask.roster import Roster, until_gone
from exoflow.executors.dask.stopping import Stops
from exoflow.executors.dask.unplaceable import Unplaceable
from exoflow.executors.dask.values import Holdings
from exoflow.executors.pace import Pace
from exoflow.executors.wire import unpack_outcome
from exoflow.protocols import Computed

_LEAVE_S = 5.0
_IDLE_S = 0.3
"""How long a worker idles before it gets what lies unbegun with others: what they do takes longer than was expected."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """Attempts of one executor on one cluster. ``put``, ``cancel``, ``wait_for`` and ``close`` are for other threads.

    Args:
        connection: To the cluster.
        name: The executor's.
        store: Its code, for the workers.
        tell: Is told of outcomes, on the loop; it must not block.
        again: Gets what has not begun when the scheduler is gone; as ``tell``.
    """

    def __init__(
        self, connection: Connection, name: str, store: bytes | None, tell: Tell, again: Callable[[list[Entry]], None]
    ) -> None:
        client = connection.client
        assert client.loop is not None
        self._connection = connection
        self._again = again
        self._client = client
        self._patron = worker.Patron(uuid.uuid4().hex, name, client.id, store, tuple(sys.path))
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        self._inbox: deque[Entry] = deque()
        self._inbox_is_called = False
        self._serials = itertools.count(1)
        self._waiting = Waiting()
        self._pace = Pace()
        self.holdings = Holdings(client, direct=True if connection.is_own else None)
        self._roster = Roster(
            client,
            self._patron,
            self._spawn,
            came=self._place,
            gone=self._worker_gone,
            lost_values=self._values_lost,
            ended=self._scheduler_gone,
        )
        self._endings = Endings(name, self.holdings, tell)
        self._stops = Stops(connection, self._roster, self._endings, self._place)
        self._unplaceable = Unplaceable(self._waiting, self._roster, self._endings, is_own=connection.is_own)
        self._demand = Demand(client, self._patron.id, self._waiting, self._spawn)
        self.actors = Actors(connection, self._roster, self._endings, self._place, self.begin)
        self._ended: list[tuple[Entry, Future[bytes]]] = []
        self._is_collecting = False
        self._is_balancing = False
        self._tasks: set[asyncio.Future[object]] = set()
        self._call(self._open)

    @property
    def is_own(self) -> bool:
        return self._connection.is_own

    @property
    def is_over(self) -> bool:
        return self._roster.is_over or self._connection.is_lost

    def put(self, entry: Entry) -> None:
        """Dispatch it when there is a place."""
        self._inbox.append(entry)
        if not self._inbox_is_called:  # waking the loop costs a system call
            self._inbox_is_called = True
            self._call(self._take_in)

    def cancel(self, entry: Entry, reason: str) -> None:
        self._call(lambda: self._spawn(self._stops.stop(entry, reason)))

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Raises CancelledError (of concurrent.futures): it was closed meanwhile."""

        async def here() -> Any:
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await task

        return asyncio.run_coroutine_threadsafe(here(), self._loop).result()

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        self._call(self._spawn, work)

    def close(self) -> None:
        """What runs is not told of any more, unless the scheduler is gone."""
        with contextlib.suppress(OSError, TimeoutError):
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(self._leave(), _LEAVE_S), self._loop).result()
        self._connection.close()

    async def _leave(self) -> None:
        if self.is_over:
            self._scheduler_gone()
            self._take_in()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if not self.is_over:
            await self._roster.leave()

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work, loop=self._loop)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.is_over:
            _log.error("the Dask executor failed", exc_info=error)

    def _open(self) -> None:
        self._client.subscribe_topic(self._patron.id, self._stops.overdue)
        self._roster.open()
        if self._connection.is_own:
            self._spawn(self._keep_workers())

    async def _keep_workers(self) -> None:
        while not self.is_over:
            self._connection.keep_workers()
            await asyncio.sleep(_IDLE_S)

    def _take_in(self) -> None:
        self._inbox_is_called = False  # before the look: what comes after it calls again
        while self._inbox:
            entry = self._inbox.popleft()
            if entry.state is None or self.actors.has(entry.state):
                self._waiting.put(entry)
            else:
                self._endings.state_lost(entry)
        self._place()

    def _place(self) -> None:
        """Give the waiting to workers that have room."""
        if self.is_over:
            self._scheduler_gone()
            return
        batches: defaultdict[Seat, list[Entry]] = defaultdict(list)
        for entry, seat in self._waiting.take(self._nearest):
            entry.seat, entry.serial = seat, next(self._serials)
            entry.expected_s = self._pace.of(entry.attempt.task)
            seat.take(entry)
            if not all(self.holdings.has(key) for key in entry.held):
                self._endings.vanished([entry], "it was lost while the attempt waited", begun=False)
            elif entry.sent:
                self._spawn(self._send(entry, seat))
            elif entry.attempt.actor is not None:
                self._spawn(self.actors.perform(entry, seat))
            else:
                batches[seat].append(entry)
        for seat, entries in batches.items():
            by_resources: defaultdict[tuple[tuple[str, float], ...], list[Entry]] = defaultdict(list)
            for entry in entries:
                by_resources[seat.dask_resources(entry.needs)].append(entry)
            for resources, alike in by_resources.items():
                self._submit(seat, alike, dict(resources))
        self._unplaceable.tell()
        if not self._connection.is_own:
            self._demand.tell()

    def _nearest(self, entry: Entry) -> Seat | None:
        if entry.attempt.actor is not None:
            return self.actors.seat_for(entry)
        expected_s = self._pace.of(entry.attempt.task)
        return nearest(self._roster.seats.values(), entry, expected_s, self.holdings.lies_at)

    async def _send(self, entry: Entry, seat: Seat) -> None:
        """Bring its large arguments to the worker first."""
        with contextlib.suppress(OSError, TimeoutError):  # the worker has gone; we are told of that, too
            await self.holdings.send(entry.sent, seat.address)
        if entry.settled:
            self._endings.release_sent(entry)
        elif entry.seat is not seat or not all(self.holdings.has(key) for key in entry.sent):
            return
        elif entry.attempt.actor is not None:
            await self.actors.perform(entry, seat)
        else:
            self._submit(seat, [entry], dict(seat.dask_resources(entry.needs)))

    def _submit(self, seat: Seat, entries: list[Entry], resources: dict[str, float]) -> None:
        futures = self._client.map(
            worker.perform,
            [entry.serial for entry in entries],
            [entry.order for entry in entries],
            [entry.attempt.timeout_s for entry in entries],
            [self.holdings.lend([*entry.held, *entry.sent], seat.address) for entry in entries],
            seat=seat.place.seat,
            floor=seat.floor,
            key=[f"{entry.attempt.task}-{self._patron.id}-{entry.serial}" for entry in entries],
            workers=[seat.address],
            allow_other_workers=False,
            retries=0,
            pure=False,
            resources=resources or None,
        )
        for entry, future in zip(entries, futures, strict=True):
            entry.future = future
        self._spawn(self._watch(dict(zip(futures, entries, strict=True))))

    async def _watch(self, entries: dict[Future[bytes], Entry]) -> None:
        async for future in as_completed(list(entries), loop=self._client.loop, raise_errors=False):
            self._ended.append((entries[future], future))
            if not self._is_collecting:
                self._is_collecting = True
                self._spawn(self._collect())

    async def _collect(self) -> None:
        """Take what ended, in as few requests as there can be."""
        try:
            while self._ended:
                ended, self._ended = self._ended, []
                done = {str(future.key): future for _, future in ended if future.status == "finished"}
                packed = await self._client.gather(done, errors="skip") if done else {}
                told = []
                for entry, future in ended:
                    why_lost = self._why_lost(future.status)
                    answer = packed.get(str(future.key))
                    came = None if answer is None else unpack_outcome(answer)
                    outcome = self._endings.outcome_of(entry, future, came, why_lost)
                    if isinstance(outcome, Computed):
                        self._pace.took(entry.attempt.task, outcome.seconds)
                    if outcome is not None:
                        told.append((entry, outcome))
                self._place()
                self._endings.tell(told)
        finally:
            self._is_collecting = False
        if not self._waiting and not self._is_balancing:
            self._is_balancing = True
            self._spawn(self._balance())

    def _why_lost(self, status: str | None) -> str:
        if self.is_over or self._client.status != "running":
            return "the connection to Dask's scheduler was lost"
        if status == "finished":
            return "Dask lost what became of it, and was not let run it again"
        return f"Dask did not run it to its end ({status})"

    async def _balance(self) -> None:
        """Give workers that idle what has not begun with others."""
        await asyncio.sleep(_IDLE_S)
        self._is_balancing = False
        seats = list(self._roster.seats.values())
        if self._waiting or all(seat.placed for seat in seats):
            return
        for seat in seats:
            later = [entry for entry in seat.behind() if entry.future is not None]
            withdrawn = await self._stops.withdraw(seat, later, None) if later else []
            if self._roster.has(seat):  # else what has become of them was decided when it went
                for entry in withdrawn:
                    self._place_again(entry)
        self._place()

    def _place_again(self, entry: Entry) -> None:
        if not entry.settled:
            self._endings.take_off(entry)
            entry.seat = None
            self._waiting.put(entry, first=True)

    def _worker_gone(self, seat: Seat, was_there: set[str], expected: bool) -> None:
        """What it had not been given yet goes to others."""
        self.actors.gone(seat)
        gone: list[Entry] = []
        for entry in list(seat.placed.values()):
            future = entry.future
            if entry.is_acting or entry.state is not None:
                gone.append(entry)
            elif future is not None and future.key in was_there:
                gone.append(entry)
                self._endings.take_off(entry)  # at once: whoever gathers it waits for what nobody has any more
            elif future is None or future.status not in ("finished", "error"):
                self._place_again(entry)
        self._spawn(self._lose(seat, gone, expected))

    async def _lose(self, seat: Seat, entries: list[Entry], expected: bool) -> None:
        is_gone = await until_gone(seat, kill=self._connection.is_own)  # they have ended when they are reported (V10)
        lost: list[Entry] = []
        for entry in entries:
            if is_gone and entry.attempt.actor is None and entry.reason is None and not seat.may_have_begun(entry):
                self._place_again(entry)
            else:
                lost.append(entry)
        how = "left the cluster" if expected else "died"
        where = f"{seat.address} (process {seat.place.pid})"
        if lost:
            _log.warning("the Dask worker %s %s: %d attempts were lost with it", where, how, len(lost))
        self._endings.vanished(lost, f"its worker {where} {how}")
        self._place()

    def _values_lost(self, keys: set[str]) -> None:
        for key in keys:
            self.holdings.release(key)

    def _scheduler_gone(self) -> None:
        """And with it all that it knew of."""
        self.holdings.clear()
        self.actors.clear()
        reason = "the connection to Dask's scheduler was lost"
        self._endings.vanished([e for seat in self._roster.seats.values() for e in seat.placed.values()], reason)
        self._again([entry for needs in self._waiting.needs() for entry in self._waiting.take_all(needs)])
