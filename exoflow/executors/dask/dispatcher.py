"""Dispatches attempts to Dask's workers, one worker for each, and tells what became of them.

All of it happens on the loop of one Dask client, so that nothing here needs a lock. ADR 0020 says what Dask would do by
itself, and why the worker is chosen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
from distributed import Future, as_completed

from exoflow.attempts import raised
from exoflow.errors import ExecutorError, UnsupportedStore
from exoflow.executors.dask import worker
from exoflow.executors.dask.connection import Connection
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.parcel import Parcel
from exoflow.executors.dask.placing import Pace, Seat, Waiting, nearest
from exoflow.executors.wire import unpack_outcome
from exoflow.model import Held
from exoflow.protocols import Computed, Outcome, Vanished

_POLL_S = 0.02
_GONE_S = 30.0
"""How long a process that has left the cluster may take to end, before its attempts are reported all the same."""

_LEAVE_S = 5.0

_log = logging.getLogger(__name__)

Tell = Callable[[list[tuple[Entry, Outcome]]], None]


class Dispatcher:
    """Attempts of one executor on one cluster.

    Args:
        connection: To the cluster.
        name: The executor's.
        store: Its code, for the workers.
        tell: Is told of outcomes, from the loop; it must not block.
    """

    def __init__(self, connection: Connection, name: str, store: bytes | None, tell: Tell) -> None:
        self.connection = connection
        self._client = connection.client
        self._name = name
        self._tell = tell
        self._patron = worker.Patron(uuid.uuid4().hex, name, self._client.id, store)
        self._loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        self._inbox: deque[Entry] = deque()
        self._inbox_is_called = False
        self._serials = itertools.count(1)
        self._waiting = Waiting()
        self._seats: dict[str, Seat] = {}
        self._pace = Pace()
        self._held: dict[str, Future] = {}
        self._ended: list[Entry] = []
        self._is_collecting = False
        self._tasks: set[asyncio.Future[None]] = set()
        self._said_that_none_can: set[str] = set()
        self._unusable: dict[str, BaseException] = {}
        self._knows_workers = False
        self._call(self._open)

    def put(self, entry: Entry) -> None:
        """Dispatch it when there is a place. From any thread."""
        self._inbox.append(entry)
        if not self._inbox_is_called:  # waking the loop costs a system call
            self._inbox_is_called = True
            self._call(self._take_in)

    def cancel(self, entry: Entry, reason: str) -> None:
        """From any thread."""
        self._call(self._cancel, entry, reason)

    def has(self, key: str) -> bool:
        return key in self._held

    def hold(self, key: str) -> None:
        """Hold on to a value that a worker has put. From any thread."""
        if key not in self._held:
            self._held[key] = Future(key, self._client, state="memory")

    def release(self, key: str) -> None:
        """From any thread."""
        future = self._held.pop(key, None)
        if future is not None:
            future.release()

    def fetch(self, key: str) -> Parcel:
        """The value, here. Not from the loop.

        Raises:
            KeyError: it is lost.
        """
        future = self._held.get(key)
        found = None if future is None else self.wait_for(self._gathered(future))
        if found is None:
            self.release(key)
            raise KeyError(f"{key}: the value was released or lost")
        return found

    def save(self, key: str, name: str, done: Callable[[int | BaseException], None]) -> None:
        """Have a worker that has the value write it to the store; tells its size."""
        self._call(self._spawn, self._save(key, name, done))

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Tell the workers, and leave."""
        with contextlib.suppress(OSError, TimeoutError):
            self.wait_for(asyncio.wait_for(self._leave(), _LEAVE_S))
        self.connection.close()

    # What happens on the loop

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work, loop=self._loop)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the Dask executor failed", exc_info=error)

    def _open(self) -> None:
        self._client.subscribe_topic("all", self._hear)
        self._client.subscribe_topic(self._patron.id, self._hear_worker)
        self._spawn(self._seat(None))

    async def _leave(self) -> None:
        self._client.unsubscribe_topic("all")
        for task in self._tasks:
            task.cancel()
        await self._client.run(worker.leave, self._patron.id, workers=list(self._seats), on_error="ignore")

    def _hear(self, event: tuple[float, Any]) -> None:
        """An event of the scheduler. It comes after all that the worker in question had reported."""
        message = event[1]
        match message.get("action") if isinstance(message, dict) else None:
            case "add-worker":
                self._spawn(self._seat([message["worker"]]))
            case "remove-worker":
                self._unusable.pop(message["worker"], None)
                seat = self._seats.pop(message["worker"], None)
                for key in message["lost-scattered-tasks"]:
                    self.release(key)
                if seat is not None:
                    was_there = {*message["processing-tasks"], *message["lost-computed-tasks"]}
                    self._spawn(self._lose(seat, was_there, expected=message["expected"]))

    def _hear_worker(self, event: tuple[float, Any]) -> None:
        message = event[1]
        for seat in self._seats.values():
            if seat.place.seat == message["seat"] and message["overdue"] in seat.placed:
                entry = seat.placed[message["overdue"]]
                self._end(entry, f"timed out after {entry.attempt.timeout_s} s")

    async def _seat(self, addresses: list[str] | None) -> None:
        """Make workers known; all of them for None."""
        places = await self._client.run(worker.take_seat, self._patron, workers=addresses, on_error="return")
        for address, place in places.items():
            if isinstance(place, worker.Place):
                known = self._seats.get(address)
                if known is None or known.place.seat != place.seat:
                    self._seats[address] = Seat(address, place)
                    if known is not None:  # another process under the same address
                        self._spawn(self._lose(known, {entry.future.key for entry in known.placed.values()}))
            elif not isinstance(place, OSError):  # it has left again
                self._unusable[address] = place
                _log.warning("the Dask worker %s cannot be used: %s: %s", address, type(place).__name__, place)
        self._knows_workers = True
        self._place()

    def _take_in(self) -> None:
        self._inbox_is_called = False  # before the look: what comes after it calls again
        while self._inbox:
            self._waiting.put(self._inbox.popleft())
        self._place()

    def _place(self) -> None:
        if not self._waiting:
            return
        if not self.connection.alive:
            self._spawn(self._lose_all())
            return
        batches: defaultdict[tuple[Seat, tuple[tuple[str, float], ...]], list[Entry]] = defaultdict(list)
        for entry, seat in self._waiting.take(lambda entry: nearest(self._seats.values(), entry, self._pace)):
            entry.seat, entry.serial = seat, next(self._serials)
            entry.expected_s = self._pace.of(entry.attempt.task)
            seat.take(entry)
            if not all(key in self._held for key in entry.held):
                self._settle_lost(entry, "it was lost while the attempt waited")
            elif entry.sent:
                self._spawn(self._send(entry, seat))
            else:
                batches[seat, tuple(seat.dask_resources(entry.needs).items())].append(entry)
        for (seat, resources), entries in batches.items():
            self._submit(seat, entries, dict(resources))
        if self._knows_workers:
            self._complain()

    def _complain(self) -> None:
        for entry in list(self._waiting):
            if any(seat.can_ever(entry.needs) for seat in self._seats.values()):
                continue
            if not self._seats and self._unusable:
                error = next(iter(self._unusable.values()))
                self._settle(entry, raised(_unusable(error), 0.0))
            elif self.connection.cluster is not None and self._seats:
                needs = ", ".join(f"{name}: {amount:g}" for name, amount in sorted(entry.needs.items()))
                text = f"no worker of the cluster on this machine ever has what {entry.attempt.task} needs ({needs})"
                self._settle(entry, raised(ExecutorError(text), 0.0))
            elif entry.attempt.task not in self._said_that_none_can:
                self._said_that_none_can.add(entry.attempt.task)
                _log.warning(
                    "%s waits: no Dask worker has what it needs (%s)",
                    entry.attempt.task,
                    ", ".join(f"{name}: {amount:g}" for name, amount in sorted(entry.needs.items())),
                )

    async def _send(self, entry: Entry, seat: Seat) -> None:
        """Bring the large arguments to the worker first."""
        sent = {key: Parcel(key, encoded) for key, encoded in entry.sent.items()}
        try:
            futures = await self._client.scatter(sent, workers=[seat.address], direct=self._reaches_workers())
        except (OSError, TimeoutError):  # the worker is gone, or will be told to be
            seat.give_back(entry)
            self._waiting.put(entry, first=True)
            return
        self._held.update(futures)
        entry.held |= {key: encoded.size for key, encoded in entry.sent.items()}
        if not entry.settled and entry.serial in seat.placed:
            self._submit(seat, [entry], seat.dask_resources(entry.needs))

    def _reaches_workers(self) -> bool | None:
        return True if self.connection.cluster is not None else None

    def _submit(self, seat: Seat, entries: list[Entry], resources: dict[str, float]) -> None:
        futures = self._client.map(
            worker.perform,
            [entry.serial for entry in entries],
            [entry.order for entry in entries],
            [entry.attempt.timeout_s for entry in entries],
            [[self._held[key] for key in entry.held] for entry in entries],
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
            seat.holds.update(entry.held)
        self._spawn(self._watch(dict(zip(futures, entries, strict=True))))

    async def _watch(self, entries: dict[Future, Entry]) -> None:
        async for future in as_completed(list(entries), loop=self._client.loop, raise_errors=False):
            self._ended.append(entries[future])
            if not self._is_collecting:
                self._is_collecting = True
                self._spawn(self._collect())

    async def _collect(self) -> None:
        """Take what ended, in as few requests as there can be."""
        try:
            while self._ended:
                ended, self._ended = self._ended, []
                done = {
                    str(e.serial): e.future for e in ended if e.future is not None and e.future.status == "finished"
                }
                packed = await self._client.gather(done, errors="skip") if done else {}
                told = [(entry, outcome) for entry in ended if (outcome := self._outcome(entry, packed)) is not None]
                self._place()
                self._tell(told)
        finally:
            self._is_collecting = False

    def _outcome(self, entry: Entry, packed: dict[str, Any]) -> Outcome | None:
        """What became of an entry whose future has ended; None: it was reported before."""
        data = packed.get(str(entry.serial))
        outcome = None if data is None else unpack_outcome(data)
        if isinstance(outcome, Computed):
            for key in held_keys(outcome):
                self.hold(key)
                if entry.seat is not None:
                    entry.seat.holds.add(key)
            if entry.settled:
                for key in held_keys(outcome):
                    self.release(key)
        future = entry.future
        if not self._close_entry(entry):
            return None
        if outcome is None:
            why = "it was cancelled" if future is None else f"{future.status}"
            return self._lost(entry, f"Dask lost what became of it ({why})")
        if isinstance(outcome, Computed):
            self._pace.took(entry.attempt.task, outcome.seconds)
        return outcome

    def _close_entry(self, entry: Entry) -> bool:
        """It is not on the cluster any more; whether nobody has been told of it yet."""
        if entry.future is not None:
            entry.future.release()
            entry.future = None
        if entry.seat is not None:
            entry.seat.give_back(entry)
        for key in entry.sent:
            self.release(key)
        settled, entry.settled = entry.settled, True
        return not settled

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if self._close_entry(entry):
            self._tell([(entry, outcome)])

    def _settle_lost(self, entry: Entry, reason: str) -> None:
        if self._close_entry(entry):
            self._tell([(entry, self._lost(entry, reason))])

    def _lost(self, entry: Entry, reason: str) -> Vanished:
        """With the inputs that are gone, if that is why."""
        lost = tuple(
            call
            for call, value in entry.attempt.inputs.items()
            if isinstance(value, Held) and value.executor == self._name and not self._is_there(str(value.handle))
        )
        if lost:
            return Vanished(f"its input {lost[0]} is lost: {reason}", lost=lost)
        return Vanished(reason)

    def _is_there(self, key: str) -> bool:
        future = self._held.get(key)
        if future is not None and future.status in ("cancelled", "lost", "error"):
            self.release(key)
            return False
        return future is not None

    def _cancel(self, entry: Entry, reason: str) -> None:
        if entry.settled:
            return
        entry.reason = reason
        if entry.seat is None or entry.future is None:
            self._settle(entry, Vanished(reason))
        else:
            self._spawn(self._stop(entry, reason))

    async def _stop(self, entry: Entry, reason: str) -> None:
        """Have its worker stop it; where the body does not end in time, end the worker."""
        seat = entry.seat
        assert seat is not None
        answers = await self._client.run(
            worker.stop, seat.place.seat, entry.serial, reason, workers=[seat.address], on_error="return"
        )
        if answers.get(seat.address) is False:
            self._settle(entry, Vanished(reason))
            self._place()
            return
        await asyncio.sleep(worker.GRACE_S)
        self._end(entry, reason)

    def _end(self, entry: Entry, reason: str) -> None:
        """Its body has not ended when it was told to."""
        if entry.settled or entry.seat is None:
            return
        if self.connection.cluster is None:
            self._settle(entry, Vanished(f"{reason}; its thread cannot be ended and may still run"))
            self._place()
            return
        entry.reason = reason if reason == "cancelled" else f"{reason}; its worker was killed"
        process = _process(entry.seat)
        if process is not None:
            process.kill()

    async def _lose(self, seat: Seat, was_there: set[str], *, expected: bool = False) -> None:
        """A worker has gone. What it had not been given yet goes to others."""
        gone: list[Entry] = []
        for entry in list(seat.placed.values()):
            future = entry.future
            if future is None or future.status in ("finished", "error"):
                continue  # it is about to be sent; or it has ended, and somebody has what became of it
            if future.key in was_there:
                gone.append(entry)
            else:
                entry.future = None
                entry.seat = None
                seat.give_back(entry)
                future.release()
                self._waiting.put(entry, first=True)
        self._place()
        if gone:
            await self._until_gone(seat)
            how = "left the cluster" if expected else "died"
            reason = f"its worker {seat.address} (process {seat.place.pid}) {how}"
            told = [(entry, self._lost(entry, entry.reason or reason)) for entry in gone if self._close_entry(entry)]
            self._tell(told)

    async def _until_gone(self, seat: Seat) -> None:
        """What an attempt did has ended when it is reported, where we can see the process (V10)."""
        process = _process(seat)
        waited = 0.0
        while process is not None and _runs(process) and waited < _GONE_S:
            if self.connection.cluster is not None:
                process.kill()
            await asyncio.sleep(_POLL_S)
            waited += _POLL_S

    async def _lose_all(self) -> None:
        """The scheduler is gone, and with it all that it knew of."""
        seats, self._seats = self._seats, {}
        self._held.clear()
        entries = [entry for seat in seats.values() for entry in seat.placed.values()]
        reason = "the connection to Dask's scheduler is lost"
        told = [(entry, self._lost(entry, reason)) for entry in entries if self._close_entry(entry)]
        error = raised(ExecutorError(reason), 0.0)
        told += [(entry, error) for entry in list(self._waiting) if self._close_entry(entry)]  # type: ignore[misc]
        self._tell(told)

    async def _gathered(self, future: Future) -> Any:
        found = await self._client.gather({"value": future}, errors="skip", direct=self._reaches_workers())
        return found.get("value")

    async def _save(self, key: str, name: str, done: Callable[[int | BaseException], None]) -> None:
        held = self._held.get(key)
        if held is None or self._patron.store is None:
            done(KeyError(f"{key}: the value was released or lost"))
            return
        future = self._client.submit(worker.save, self._patron.store, name, held, pure=False, retries=0)
        try:
            done(await future)
        except asyncio.CancelledError:
            done(KeyError(f"{key}: the value was lost"))
        except Exception as error:  # noqa: BLE001 -- whatever the store raised there
            done(error)


def held_keys(outcome: Computed) -> list[str]:
    values = [outcome.value, *(value for _, value in outcome.puts)]
    return [str(value.handle) for value in values if isinstance(value, Held)]


def _unusable(error: BaseException) -> BaseException:
    if isinstance(error, UnsupportedStore):
        return error
    return ExecutorError(f"no Dask worker can be used; the first says: {type(error).__name__}: {error}")


def _process(seat: Seat) -> psutil.Process | None:
    """The process of a worker, if it runs on this machine."""
    try:
        process = psutil.Process(seat.place.pid)
        return process if process.create_time() == seat.place.began else None
    except psutil.NoSuchProcess:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
