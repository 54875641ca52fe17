"""A Dask worker's end of actors.

What is called here runs on the worker's loop. It is no task of Dask's, which can neither queue it nor repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from distributed import Worker
from distributed.utils_comm import gather_from_workers
from distributed.worker import _worker_cvar

from exoflow.attempts.actors import snapshot_of
from exoflow.executors.actors.living import key_of
from exoflow.executors.dask.parcel import FUTURES, Parcel
from exoflow.executors.dask.worker import seat_of
from exoflow.executors.threads import Threads, run_all
from exoflow.executors.wire import pack_outcome, pack_saved, unpack_order, unpack_saving
from exoflow.protocols import Outcome

R = TypeVar("R")


class Lane:
    """An actor's thread, beside Dask's: it waits for nobody, and what a library keeps by thread is found again."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._threads: Threads[Callable[[], None]] = Threads(1, run_all, "exoflow-dask-actor")

    def run(self, work: Callable[[], R]) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def there() -> None:
            _worker_cvar.set(self._worker)  # by which get_worker() and get_client() find it, as in a task
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 -- whoever awaits it gets it
                loop.call_soon_threadsafe(_settle, future, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(_settle, future, future.set_result, result)

        self._threads.put(there)
        return future

    def close(self) -> None:
        self._threads.close()


async def act(
    seat: str, serial: int, packed: bytes, timeout_s: float | None, keys: list[str], floor: int, dask_worker: Worker
) -> bytes | None:
    """``worker.perform`` for the call of an actor; ``keys`` are those of the held values that the order names."""
    here = seat_of(seat)
    if here is None:
        return None
    parcels = await _brought([key for key in keys if not key.startswith(FUTURES)], dask_worker)
    order = unpack_order(packed)
    assert order.actor is not None
    state = order.actor.state
    lane = here.lanes.pop(key_of(state), None) if state is not None else None
    lane = lane or Lane(dask_worker)

    def body() -> Outcome | None:
        return here.attempt(serial, timeout_s, floor, lambda running: here.perform(order, parcels, running))

    outcome = await lane.run(body)
    left = state if outcome is None else outcome.state
    if left is None:
        lane.close()
    else:
        here.lanes[key_of(left)] = lane
        if seat_of(seat) is None:  # its executor has left meanwhile
            here.release(key_of(left))
    return None if outcome is None else pack_outcome(outcome)


async def save_state(seat: str, saving: bytes) -> bytes | Parcel:
    """What came of it, packed; or the snapshot, where this process cannot write it to the store."""
    unpacked = unpack_saving(saving)
    assert unpacked is not None
    state, name = unpacked
    here = seat_of(seat)
    lane = None if here is None else here.lanes.get(key_of(state))
    if here is None or lane is None:
        return pack_saved(None)
    if here.patron.store is None:
        return await lane.run(lambda: Parcel(name, snapshot_of(here.actors.look_at(state))))
    return pack_saved(await lane.run(lambda: here.performer.save_state(state, name, here.actors)))


async def release_state(seat: str, key: str) -> None:
    """Nobody will ask for it again."""
    here = seat_of(seat)
    if here is not None:
        here.release(key)


async def _brought(keys: list[str], worker: Worker) -> list[Parcel]:
    """Those of the values that are not lost, wherever they lie. Nothing is kept here for others."""
    found: dict[Any, Any] = {key: worker.data[key] for key in keys if key in worker.data}
    missing = [key for key in keys if key not in found]
    if missing:
        who_has = await worker.scheduler.who_has(keys=missing)
        brought, *_ = await gather_from_workers(who_has, rpc=worker.rpc, who=worker.address)
        found |= brought
    return [parcel for parcel in found.values() if isinstance(parcel, Parcel)]


def _settle(future: asyncio.Future[Any], how: Callable[[Any], None], what: object) -> None:
    if not future.done():  # nobody awaits it any more
        how(what)
