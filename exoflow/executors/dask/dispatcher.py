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
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from distributed import Future, as_completed

from exoflow.attempts import raised
from exoflow.errors import ExecutorError, UnsupportedStore
from exoflow.executors.dask import worker
from exoflow.executors.dask.connection import Connection
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.holdings import Holdings
from exoflow.executors.dask.placing import Pace, Seat, Waiting, nearest, show_needs
from exoflow.executors.dask.roster import Roster, process_of, until_gone
from exoflow.executors.wire import unpack_outcome
from exoflow.model import Held
from exoflow.protocols import Computed, Outcome, Vanished

_LEAVE_S = 5.0
_IDLE_S = 0.3
"""How long a worker idles before it gets what lies unbegun with others: what they do takes longer than was expected."""

_log = logging.getLogger(__name__)

Tell = Callable[[Sequence[tuple[Entry, Outcome]]], None]


class Dispatcher:
    """Attempts of one executor on one cluster. ``put``, ``cancel``, ``wait_for`` and ``close`` are for other threads.

    Args:
        connection: To the cluster.
        name: The executor's.
        store: Its code, for the workers.
        tell: Is told of outcomes, on the loop; it must not block.
    """

    def __init__(self, connection: Connection, name: str, store: bytes | None, tell: Tell) -> None:
        client = connection.client
        assert client.loop is not None
        self._connection = connection
        self._client = client
        self._name = name
        self._tell = tell
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
        self._ended: list[tuple[Entry, Future[bytes]]] = []
        self._is_collecting = False
        self._is_balancing = False
        self._tasks: set[asyncio.Future[None]] = set()
        self._said: set[str] = set()
        self._call(self._open)

    @property
    def is_over(self) -> bool:
        return self._roster.is_over

    def put(self, entry: Entry) -> None:
        """Dispatch it when there is a place."""
        self._inbox.append(entry)
        if not self._inbox_is_called:  # waking the loop costs a system call
            self._inbox_is_called = True
            self._call(self._take_in)

    def cancel(self, entry: Entry, reason: str) -> None:
        self._call(self._cancel, entry, reason)

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._call(self._spawn, work)

    def close(self) -> None:
        if self._client.status == "running":
            with contextlib.suppress(OSError, TimeoutError):
                self.wait_for(asyncio.wait_for(self._leave(), _LEAVE_S))
        self._connection.close()

    async def _leave(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await self._roster.leave()

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work, loop=self._loop)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.is_over:
            _log.error("the Dask executor failed", exc_info=error)

    def _open(self) -> None:
        self._client.subscribe_topic(self._patron.id, self._overdue)
        self._roster.open()

    def _take_in(self) -> None:
        self._inbox_is_called = False  # before the look: what comes after it calls again
        while self._inbox:
            self._waiting.put(self._inbox.popleft())
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
                self._tell_vanished([entry], "it was lost while the attempt waited")
            elif entry.sent:
                self._spawn(self._send(entry, seat))
            else:
                batches[seat].append(entry)
        for seat, entries in batches.items():
            by_resources: defaultdict[tuple[tuple[str, float], ...], list[Entry]] = defaultdict(list)
            for entry in entries:
                by_resources[seat.dask_resources(entry.needs)].append(entry)
            for resources, alike in by_resources.items():
                self._submit(seat, alike, dict(resources))
        if self._roster.is_known:
            for needs in self._waiting.needs():
                if not any(seat.can_ever(needs) for seat in self._roster.seats.values()):
                    self._no_place_for(needs)

    def _nearest(self, entry: Entry) -> Seat | None:
        expected_s = self._pace.of(entry.attempt.task)
        return nearest(self._roster.seats.values(), entry, expected_s, self.holdings.lies_at)

    def _no_place_for(self, needs: dict[str, float]) -> None:
        """No worker can ever have them: an error, where there will be no others."""
        error: BaseException | None = None
        if not self._roster.seats and self._roster.unusable:
            error = _unusable(next(iter(self._roster.unusable.values())))
        elif self._roster.seats and self._connection.is_own:
            error = ExecutorError(f"no worker of the cluster on this machine has {show_needs(needs)}")
        if error is not None:
            entries = [entry for entry in self._waiting.take_all(needs) if self._close_entry(entry)]
            self._tell([(entry, raised(error, 0.0, rolled_back=True)) for entry in entries])
        elif (text := show_needs(needs)) not in self._said:
            self._said.add(text)
            _log.warning("attempts wait for a Dask worker that has %s: there is none now", text)

    async def _send(self, entry: Entry, seat: Seat) -> None:
        """Bring its large arguments to the worker first."""
        with contextlib.suppress(OSError, TimeoutError):  # the worker has gone; we are told of that, too
            await self.holdings.send(entry.sent, seat.address)
        if entry.settled:
            self._release_sent(entry)
        elif entry.seat is seat and all(self.holdings.has(key) for key in entry.sent):
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
                    outcome = self._take_out(entry, future, packed.get(str(future.key)))
                    if outcome is not None:
                        told.append((entry, outcome))
                self._place()
                self._tell(told)
        finally:
            self._is_collecting = False
        if not self._waiting and not self._is_balancing:
            self._is_balancing = True
            self._spawn(self._balance())

    def _take_out(self, entry: Entry, future: Future[bytes], packed: bytes | None) -> Outcome | None:
        """What became of an entry whose future has ended; None: it has been reported, or was placed again."""
        outcome = None if packed is None else unpack_outcome(packed)
        wanted = entry.future is future and not entry.settled
        kept = _held_keys(outcome) if isinstance(outcome, Computed) else []
        for key in kept:
            self.holdings.hold(key, "" if entry.seat is None else entry.seat.address)
            if not wanted:
                self.holdings.release(key)
        if not wanted:
            return None
        status = future.status
        self._close_entry(entry)
        if outcome is None:
            return self._vanished(entry, entry.reason or self._why_lost(status))
        if isinstance(outcome, Computed):
            self._pace.took(entry.attempt.task, outcome.seconds)
        return outcome

    def _why_lost(self, status: str | None) -> str:
        if self.is_over or self._client.status != "running":
            return "the connection to Dask's scheduler was lost"
        if status == "finished":
            return "Dask lost what became of it, and was not let run it again"
        return f"Dask did not run it to its end ({status})"

    def _close_entry(self, entry: Entry) -> bool:
        """It is not on the cluster any more; whether nobody has been told of it yet."""
        if entry.future is not None:
            entry.future.release()
            entry.future = None
        if entry.seat is not None:
            entry.seat.give_back(entry)
        self._release_sent(entry)
        settled, entry.settled = entry.settled, True
        return not settled

    def _release_sent(self, entry: Entry) -> None:
        for key in entry.sent:
            self.holdings.release(key)

    def _tell_vanished(self, entries: list[Entry], reason: str) -> None:
        told = [(entry, self._vanished(entry, entry.reason or reason)) for entry in entries if not entry.settled]
        for entry, _ in told:
            self._close_entry(entry)
        self._tell(told)

    def _vanished(self, entry: Entry, reason: str) -> Vanished:
        """With the inputs that are gone, if that is why."""
        lost = tuple(
            call
            for call, value in entry.attempt.inputs.items()
            if isinstance(value, Held) and value.executor == self._name and not self.holdings.has(str(value.handle))
        )
        return Vanished(f"its input {lost[0]} is lost: {reason}", lost=lost) if lost else Vanished(reason)

    def _cancel(self, entry: Entry, reason: str) -> None:
        if entry.settled:
            return
        if entry.future is None:
            entry.reason = reason
            self._tell_vanished([entry], reason)
        else:
            self._spawn(self._stop(entry, reason))

    async def _stop(self, entry: Entry, reason: str) -> None:
        """Have its worker stop it; where the body does not end in time, end the worker."""
        if await self._withdraw(entry.seat, [entry], reason):
            entry.reason = reason
            self._tell_vanished([entry], reason)
            self._place()
            return
        await asyncio.sleep(worker.GRACE_S)
        self._end(entry, reason)

    async def _withdraw(self, seat: Seat | None, entries: list[Entry], reason: str | None) -> list[Entry]:
        """Those that have not begun, and now never will; the others are stopped, if there is a reason."""
        assert seat is not None
        serials = [entry.serial for entry in entries]
        work = self._client.run(
            worker.withdraw, seat.place.seat, serials, reason, workers=[seat.address], on_error="return"
        )
        try:
            unbegun = (await asyncio.wait_for(work, worker.GRACE_S)).get(seat.address)
        except (OSError, TimeoutError):
            unbegun = None
        return [e for e in entries if e.serial in unbegun] if isinstance(unbegun, list) else []

    def _overdue(self, event: tuple[float, Any]) -> None:
        """A worker tells of a body that has not ended when its time was up."""
        place, serial = event[1]["seat"], event[1]["overdue"]
        for seat in self._roster.seats.values():
            if seat.place.seat == place and serial in seat.placed:
                entry = seat.placed[serial]
                self._end(entry, f"timed out after {entry.attempt.timeout_s} s")

    def _end(self, entry: Entry, reason: str) -> None:
        """Its body has not ended when it was told to."""
        if entry.settled or entry.seat is None:
            return
        if not self._connection.is_own:
            self._tell_vanished([entry], f"{reason}; its thread cannot be ended and may still run")
            self._place()
            return
        entry.reason = reason if reason == "cancelled" else f"{reason}; its worker was killed"
        process = process_of(entry.seat)
        if process is not None:
            process.kill()

    async def _balance(self) -> None:
        """Give workers that idle what has not begun with others."""
        await asyncio.sleep(_IDLE_S)
        self._is_balancing = False
        seats = list(self._roster.seats.values())
        if self._waiting or all(seat.placed for seat in seats):
            return
        for seat in seats:
            later = [entry for entry in seat.behind() if entry.future is not None]
            for entry in await self._withdraw(seat, later, None) if later else []:
                self._place_again(entry)
        self._place()

    def _place_again(self, entry: Entry) -> None:
        if entry.settled or entry.seat is None:
            return
        entry.seat.give_back(entry)
        entry.seat = None
        if entry.future is not None:
            entry.future.release()
            entry.future = None
        self._waiting.put(entry, first=True)

    def _worker_gone(self, seat: Seat, was_there: set[str], expected: bool) -> None:
        """What it had not been given yet goes to others."""
        gone: list[Entry] = []
        for entry in list(seat.placed.values()):
            future = entry.future
            if future is not None and future.status in ("finished", "error"):
                continue  # somebody may still have what became of it
            if future is not None and future.key in was_there:
                gone.append(entry)
            else:
                self._place_again(entry)
        self._spawn(self._lose(seat, gone, expected))

    async def _lose(self, seat: Seat, entries: list[Entry], expected: bool) -> None:
        await until_gone(seat, kill=self._connection.is_own)  # first: they have ended when they are reported (V10)
        how = "left the cluster" if expected else "died"
        self._tell_vanished(entries, f"its worker {seat.address} (process {seat.place.pid}) {how}")
        self._place()

    def _values_lost(self, keys: set[str]) -> None:
        for key in keys:
            self.holdings.release(key)

    def _scheduler_gone(self) -> None:
        """And with it all that it knew of."""
        self.holdings.clear()
        reason = "the connection to Dask's scheduler was lost"
        self._tell_vanished([e for seat in self._roster.seats.values() for e in seat.placed.values()], reason)
        waiting = [entry for needs in self._waiting.needs() for entry in self._waiting.take_all(needs)]
        error = raised(ExecutorError(reason), 0.0, rolled_back=True)
        self._tell([(entry, error) for entry in waiting if self._close_entry(entry)])


def _held_keys(outcome: Computed) -> list[str]:
    values = [outcome.value, *(value for _, value in outcome.puts)]
    return [str(value.handle) for value in values if isinstance(value, Held)]


def _unusable(error: BaseException) -> BaseException:
    if isinstance(error, UnsupportedStore):
        return error
    return ExecutorError(f"no Dask worker can be used; the first says: {type(error).__name__}: {error}")
