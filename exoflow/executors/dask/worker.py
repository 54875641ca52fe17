"""A Dask worker's end. It performs an order that is meant for this very process, and once, whatever Dask does."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import threading
import uuid
from dataclasses import dataclass
from typing import Any

import psutil
from distributed import Worker, get_worker

from exoflow.codec import Encoded, decode, from_bytes
from exoflow.errors import Interruption
from exoflow.executors.dask.parcel import Parcel
from exoflow.executors.performing import Performer
from exoflow.executors.reading import StoredValues
from exoflow.executors.threads import Deadlines
from exoflow.executors.wire import pack_outcome, unpack_order
from exoflow.model import Held
from exoflow.protocols import Outcome, Vanished

GRACE_S = 3.0
"""How long a body that was told to stop may take to end."""

FLOOR_STEP = 1000


class Stopped(Interruption):
    """Thrown into the thread of a body that was cancelled or has timed out."""


@dataclass(frozen=True)
class Patron:
    """An executor, to a worker."""

    id: str
    name: str
    client: str
    """The client that what is held is held for."""
    store: bytes | None


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


def take_seat(patron: Patron, dask_worker: Worker) -> Place:
    """Make this process perform the executor's orders; the same seat, if it does already.

    Raises:
        UnsupportedStore: the store cannot be reached from here.
    """
    seat = next((seat for seat in list(_seats.values()) if seat.patron == patron), None)
    if seat is None:
        performer = _performer(patron.store)
        seat = _Seat(patron, performer)
        _seats[seat.id] = seat
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
    )


def leave(patron: str) -> None:
    """The executor is closed."""
    for seat in list(_seats.values()):
        if seat.patron.id == patron:
            del _seats[seat.id]


def perform(serial: int, order: bytes, timeout_s: float | None, parcels: list[Parcel], seat: str, floor: int) -> Any:
    """The packed outcome; None: it is not for this process, or has begun before, and does not begin.

    Args:
        serial: Of the order, on this seat.
        order: Packed.
        timeout_s: From now on.
        parcels: The held values that the order names.
        seat: The process that it is for.
        floor: Orders with lower serials have been settled.
    """
    here = _seats.get(seat)
    running = None if here is None else here.begin(serial, timeout_s, floor)
    if here is None or running is None:
        return None
    try:
        try:
            outcome = here.perform(order, parcels, running)
        finally:
            running.end()
    except Stopped:
        outcome = Vanished(str(running.reason))
    here.running.pop(serial, None)
    return pack_outcome(outcome)


def stop(seat: str, serial: int, reason: str) -> bool:
    """Stop an order's body; False: it has not begun, and will not."""
    here = _seats.get(seat)
    return here is None or here.stop(serial, reason)


def save(store: bytes, name: str, parcel: Parcel) -> int:
    """Write a held value to the store. Done twice, it is done once: names hold versions."""
    return _stored(store).write(parcel.encoded, name).size


class _Seat:
    """What one executor runs here."""

    def __init__(self, patron: Patron, performer: Performer) -> None:
        self.id = uuid.uuid4().hex
        self.patron = patron
        self.running: dict[int, _Running] = {}
        self._performer = performer
        self._begun: set[int] = set()
        self._floor = 0
        self._lock = threading.Lock()

    def begin(self, serial: int, timeout_s: float | None, floor: int) -> _Running | None:
        """Let an order begin that never has."""
        with self._lock:
            if floor > self._floor + FLOOR_STEP:
                self._floor = floor
                self._begun = {serial for serial in self._begun if serial >= floor}
            if serial < self._floor or serial in self._begun:
                return None
            self._begun.add(serial)
            running = self.running[serial] = _Running(self, serial, timeout_s)
        if timeout_s is not None:
            _deadlines.add(timeout_s, running)
        return running

    def stop(self, serial: int, reason: str) -> bool:
        with self._lock:
            running = self.running.get(serial)
            begun = serial < self._floor or serial in self._begun
            self._begun.add(serial)
        if running is not None:
            running.stop(reason)
        return begun

    def perform(self, packed: bytes, parcels: list[Parcel], running: _Running) -> Outcome:
        order = unpack_order(packed)
        there = {parcel.key: parcel.encoded for parcel in parcels}

        def hold(encoded: Encoded) -> Held:
            running.end()  # the body has returned: what it made counts
            key = f"exoflow-value-{uuid.uuid4().hex}"
            _put(get_worker(), Parcel(key, encoded), self.patron.client)
            return Held(self.patron.name, key, encoded.size)

        outcome = self._performer.perform(order, lambda held: there[str(held.handle)], hold)
        if isinstance(outcome, Vanished) and running.reason is not None:
            return Vanished(running.reason, outcome.seconds)
        return outcome


class _Running:
    """A body and its thread."""

    def __init__(self, seat: _Seat, serial: int, timeout_s: float | None) -> None:
        self.reason: str | None = None
        self.over = False
        self._seat = seat
        self._serial = serial
        self._timeout_s = timeout_s
        self._thread = threading.get_ident()
        self._worker = get_worker()
        self._lock = threading.Lock()

    def stop(self, reason: str) -> None:
        """Throw ``Stopped`` into the body, once. It is noticed when the body is next at Python code."""
        with self._lock:
            if not self.over and self.reason is None:
                self.reason = reason
                _throw(self._thread, ctypes.py_object(Stopped))

    def end(self) -> None:
        """Nothing is thrown from here on.

        Raises:
            Stopped: it was, in this moment.
        """
        with self._lock:
            self.over = True
        if self.reason is not None:
            for _ in range(2):  # what was thrown and has not been noticed yet is noticed at a jump back
                pass

    def expire(self) -> None:
        """Its time is up; or it has not ended for that."""
        if self.reason is None:
            self.stop(f"timed out after {self._timeout_s} s")
            _deadlines.add(GRACE_S, self)
        else:
            self._worker.log_event(self._seat.patron.id, {"seat": self._seat.id, "overdue": self._serial})


def _put(worker: Worker, parcel: Parcel, client: str) -> None:
    """Keep the value on this worker as data without a recipe, so that Dask cannot make it again.

    As ``Client.scatter`` does it within a task, but for the client of the executor.
    """

    async def put() -> None:
        worker.update_data(data={parcel.key: parcel})
        await worker.scheduler.update_data(
            who_has={parcel.key: [worker.address]}, nbytes={parcel.key: parcel.encoded.size}, client=client
        )

    asyncio.run_coroutine_threadsafe(put(), worker.loop.asyncio_loop).result()


def _throw(thread: int, error: Any) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


@functools.lru_cache(maxsize=16)
def _stored(store: bytes | None) -> StoredValues:
    return StoredValues(None if store is None else decode(from_bytes(store)))


@functools.lru_cache(maxsize=16)
def _performer(store: bytes | None) -> Performer:
    return Performer(_stored(store))


_seats: dict[str, _Seat] = {}
_deadlines: Deadlines[_Running] = Deadlines(_Running.expire, lambda running: not running.over, "exoflow-dask-deadlines")
