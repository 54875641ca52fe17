"""Data without a recipe: Dask keeps it, moves it and loses it, but cannot make it again (V11)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from distributed import Client, Future, Worker, get_client, rejoin, secede, wait
from distributed.sizeof import safe_sizeof

from exoflow.codec import Live
from exoflow.codec.dask_objects import FUTURE
from exoflow.executors.dask.parcel import FUTURES, Parcel


def put(worker: Worker, parcels: dict[str, Parcel], client: str) -> None:
    """Keep them on this worker, for a client, as ``Client.scatter`` does it within a task. Not on the worker's loop."""
    sizes = {key: parcel.encoded.size for key, parcel in parcels.items()}
    asyncio.run_coroutine_threadsafe(_put(worker, parcels, sizes, client), worker.loop.asyncio_loop).result()


def pin(future: Future, client: str) -> str:
    """Have what a future stands for kept without its recipe, where it lies; the key that it has now.

    Raises:
        Exception: of the future.
    """
    if not future.done():
        secede()  # what makes it may need this thread
        wait([future])
        rejoin()
    if future.status != "finished":
        future.result()  # raises
    key = f"{FUTURES}{uuid.uuid4().hex}"
    holders = [worker for workers in future.client.who_has([future]).values() for worker in workers]
    for holder in holders:
        found = future.client.run(_pin_here, future.key, key, client, workers=[holder], on_error="ignore")
        if found.get(holder):
            return key
    raise KeyError(f"what the future {future.key} stands for is lost")


def future_of(key: str) -> Live:
    """What was pinned, as a future of this worker's client."""
    client = get_client()
    return Live(FUTURE, client.sync(_future, key, client))


async def _future(key: str, client: Client) -> Future:
    return Future(key, client, state="memory")  # it is: the executor holds it for as long as the attempt runs


async def _pin_here(key: Any, pinned: str, client: str, dask_worker: Worker) -> bool:
    found: Any = dask_worker.data.get(key)
    if key not in dask_worker.data:
        return False
    await _put(dask_worker, {pinned: found}, {pinned: safe_sizeof(found)}, client)
    return True


async def _put(worker: Worker, things: Mapping[str, object], sizes: dict[str, int], client: str) -> None:
    worker.update_data(data=dict(things))
    who_has = {key: [worker.address] for key in things}
    await worker.scheduler.update_data(who_has=who_has, nbytes=sizes, client=client)
