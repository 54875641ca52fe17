"""A Dask worker's end. It performs an order that is meant for this very process, and once, whatever Dask does."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from distributed import Worker, get_worker

from exoflow.codec import Encoded, Live, as_encoded, decode, encode, from_bytes
from exoflow.errors import StorageError
from exoflow.executors.actors.living import WorkerActors
from exoflow.executors.dask import marks
from exoflow.executors.dask.body import Leaving, Running, Stopped
from exoflow.executors.dask.parcel import FUTURES, Parcel, future_of, pin, put
from exoflow.executors.performing import Performer
from exoflow.executors.reading import StoredValues
from exoflow.executors.wire import Order, pack_outcome, unpack_order
from exoflow.model import Held, Stored
from exoflow.protocols import Computed, Outcome, Vanished

if TYPE_CHECKING:
    from exoflow.executors.dask.worker_actors import Lane

_FLOOR_STEP = 1000
_LOOK_S = 5.0


@dataclass(frozen=True)
class Patron:
    """An executor, to a worker."""

    id: str
    name: str
    client: str
    """The client that what is held is held for."""
    store: bytes | None
    path: tuple[str, ...]
    """Where its process finds modules."""


@dataclass(frozen=True)
class Place:
    """A worker process, to an executor."""

    seat: str
    pid: int
    began: float
    """When the process did, which tells it from one of another machine, or a later one, of that id."""
    threads: int
    memory: float
    resources: dict[str, float]
    marks: str
    """Where those are found of what has begun; empty: there are none."""


async def take_seat(patron: Patron, dask_worker: Worker) -> Place:
    """Make this process perform the executor's orders; the same seat, if it does already.

    Raises:
        UnsupportedStore: the store cannot be reached from here.
    """
    seat = next((seat for seat in list(_seats.values()) if seat.patron == patron), None)
    if seat is None:
        seat = Seat(patron)
        _look_for_modules_in(patron.path)
        _seats[seat.id] = seat
        gone = functools.partial(leave, patron.id)
        seat.watching = asyncio.create_task(_watch(dask_worker, patron.id, gone))
    memory = dask_worker.memory_manager.memory_limit
    resources = dict(dask_worker.state.total_resources)
    process = psutil.Process()
    return Place(
        seat=seat.id,
        pid=process.pid,
        began=process.create_time(),
        threads=dask_worker.state.nthreads,
        memory=float(memory or float("inf")),
        resources=resources,
        marks=seat.marks_at,
    )


def token_of(patron: str) -> str:
    """A task that no worker can run: no data that could be lost, and the scheduler forgets it with its client."""
    return f"exoflow-{patron}"


async def _watch(worker: Worker, patron: str, gone: Callable[[], None]) -> None:
    """Tell when the scheduler has forgotten the executor's client: what that has left, nobody else would clear away."""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            known = await worker.scheduler.get_task_status(keys=[token_of(patron)])
        except OSError:  # the scheduler cannot be reached, and may be again; without one this process ends
            continue
        if known[token_of(patron)] is None:
            gone()
            return


def _look_for_modules_in(path: Iterable[str]) -> None:
    sys.path += [place for place in path if place not in sys.path and os.path.exists(place)]


def leave(patron: str) -> None:
    """The executor is closed."""
    for seat in list(_seats.values()):
        if seat.patron.id == patron:
            del _seats[seat.id]
            seat.close()


def perform(serial: int, order: bytes, timeout_s: float | None, parcels: list[Parcel], seat: str, floor: int) -> Any:
    """The packed outcome; None: it is not for this process, or has begun before, and does not begin.

    Args:
        serial: Of the order, on this seat.
        order: Packed.
        timeout_s: Of the body.
        parcels: The held values that the order names.
        seat: The process that it is for.
        floor: Orders with lower serials have been settled.
    """
    here = seat_of(seat)
    if here is None:
        return None
    outcome = here.attempt(
        serial, timeout_s, floor, lambda running: here.perform(unpack_order(order), parcels, running)
    )
    return None if outcome is None else pack_outcome(outcome)


def withdraw(seat: str, serials: list[int], reason: str | None) -> list[int]:
    """Those of the orders that have not begun: they will not. The bodies of the others are stopped, for a reason."""
    here = seat_of(seat)
    return [] if here is None else [serial for serial in serials if here.withdraw(serial, reason)]


def save(store: bytes, name: str, held: list[object]) -> list[Stored] | StorageError:
    """Write held values to one object of the store. Done twice, it is done once: names hold versions."""
    made = [one.encoded if isinstance(one, Parcel) else encode(one, what=name, own=True) for one in held]
    try:
        return _stored(store).write_together(made, name)
    except StorageError as error:  # told, not raised: Dask would print it once more
        return error


def seat_of(id: str) -> Seat | None:
    """None: it is another process's, or its executor has left."""
    return _seats.get(id)


class Seat:
    """What one executor runs here."""

    def __init__(self, patron: Patron) -> None:
        self.id = uuid.uuid4().hex
        self.patron = patron
        self.running: dict[int, Running] = {}
        self.performer = _performer(patron.store)
        self.actors = WorkerActors(patron.name, self.id, _stored(patron.store))
        self.lanes: dict[str, Lane] = {}
        """Threads of actors, by the key of the state. Of the worker's loop."""
        self.watching: asyncio.Task[None] | None = None
        self._begun: set[int] = set()
        made = marks.made(self.id)
        self._marks = None if made is None else made[0]
        self.marks_at = "" if made is None else made[1]
        self._floor = 0
        self._lock = threading.Lock()

    def begin(self, serial: int, timeout_s: float | None, floor: int) -> Running | None:
        """Let an order begin that never has."""
        with self._lock:
            if floor > self._floor + _FLOOR_STEP:
                self._floor = floor
                self._begun = {serial for serial in self._begun if serial >= floor}
            if serial < self._floor or serial in self._begun:
                return None
            if not self._begun:  # whoever sends an order has found them, if it can
                marks.forget(self.marks_at)
            self._begun.add(serial)
            if self._marks is not None:
                self._marks.put(serial)
            running = self.running[serial] = Running(self, serial, timeout_s)
        return running

    def withdraw(self, serial: int, reason: str | None) -> bool:
        with self._lock:
            running = self.running.get(serial)
            begun = serial < self._floor or serial in self._begun
            self._begun.add(serial)
        if running is not None and reason is not None:
            running.stop(reason)
        return not begun

    def attempt(
        self, serial: int, timeout_s: float | None, floor: int, body: Callable[[Running], Outcome]
    ) -> Outcome | None:
        """Run a body in this thread; None: it has begun before, or was withdrawn, and does not begin."""
        running = self.begin(serial, timeout_s, floor)
        if running is None:
            return None
        outcome: Outcome
        try:
            try:
                outcome = body(running)
            finally:
                running.end()
        except Stopped:
            outcome = Vanished(str(running.reason))
        self.running.pop(serial, None)
        return outcome

    def close(self) -> None:
        """Its bodies are stopped, its actors freed. On the worker's loop."""
        if self.watching is not None and self.watching is not asyncio.current_task():
            self.watching.cancel()
        marks.forget(self.marks_at)
        for running in list(self.running.values()):
            running.stop("its executor is gone")
        for key in list(self.lanes):
            self.release(key)

    def release(self, key: str) -> None:
        """Free an actor, in its own thread: what it does then may be slow. On the worker's loop."""
        lane = self.lanes.pop(key, None)
        if lane is not None:
            lane.run(functools.partial(self.actors.release, Held(self.patron.name, (self.id, key), 0)))
            lane.close()

    def perform(self, order: Order, parcels: list[Parcel], running: Running) -> Outcome:
        there = {parcel.key: parcel.encoded for parcel in parcels}
        made_here: dict[str, Parcel] = {}

        def read(held: Held) -> Encoded | Live:
            key = str(held.handle)
            return future_of(key) if key.startswith(FUTURES) else there[key]

        def hold(made: Encoded | Live) -> Held:
            running.end()  # the body has returned: what it made counts
            if seat_of(self.id) is not self:
                raise Stopped("the executor has left: nobody would ever release the value")
            if isinstance(made, Live) and made.engine == "distributed":
                return Held(self.patron.name, pin(made.thing, self.patron.client), 0)
            encoded = as_encoded(made)
            key = f"exoflow-value-{uuid.uuid4().hex}"
            made_here[key] = Parcel(key, encoded)
            return Held(self.patron.name, key, encoded.size)

        states = Leaving(self.actors, running.end)
        outcome = self.performer.perform(order, read, hold, begins=running.begin, states=states)
        if isinstance(outcome, Vanished) and running.reason is not None:
            return Vanished(running.reason, outcome.seconds)
        if made_here and isinstance(outcome, Computed):  # else nobody would ever release them
            put(get_worker(), made_here, self.patron.client)
        return outcome


@functools.lru_cache(maxsize=16)
def _stored(store: bytes | None) -> StoredValues:
    return StoredValues(None if store is None else decode(from_bytes(store)))


@functools.lru_cache(maxsize=16)
def _performer(store: bytes | None) -> Performer:
    return Performer(_stored(store))


_seats: dict[str, Seat] = {}
