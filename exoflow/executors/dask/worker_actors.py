"""A Dask worker's end of actors.

What is called here runs on the worker's loop. It is no task of Dask's, which can neither queue it nor repeat it.
"""

from __future__ import annotations

from typing import Any

from distributed import Worker
from distributed.utils_comm import gather_from_workers

from exoflow.executors.dask.lane import Lane
from exoflow.executors.dask.parcel import FUTURES, Parcel
from exoflow.executors.dask.worker import seat_of
from exoflow.executors.living import key_of
from exoflow.executors.wire import pack_outcome, pack_saved, unpack_order, unpack_saving
from exoflow.protocols import Outcome
from exoflow.states import snapshot_of


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
