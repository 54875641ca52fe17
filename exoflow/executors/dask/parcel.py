"""Values as Dask keeps and moves them. They have no recipe: it may lose one, but cannot make it again (V11)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client, Future, Worker, get_client, rejoin, secede, wait
from distributed.protocol import dask_deserialize, dask_serialize
from distributed.sizeof import safe_sizeof

from exoflow.codec import Encoded, Live
from exoflow.codec.dask_objects import FUTURE
from exoflow.model import CallId

FUTURES = "exoflow-future-"
"""How the keys begin of what a Future in a result stands for: it is no Parcel, but the user's own object."""


class Parcel:
    """An encoded value under the key that it has on the cluster."""

    __slots__ = ("encoded", "key")

    def __init__(self, key: str, encoded: Encoded) -> None:
        self.key = key
        self.encoded = encoded

    def __sizeof__(self) -> int:
        """By which a worker knows when to spill."""
        return self.encoded.size


# Not by pickle: what passes through the scheduler is pickled by an older protocol, which copies every buffer.
@dask_serialize.register(Parcel)
def _sent(parcel: Parcel) -> tuple[dict[str, Any], list[Any]]:
    head, buffers, refs, checksums = parcel.encoded
    if checksums is not None:
        checksums.verify()
    return {"key": parcel.key, "refs": list(refs)}, [head, *buffers]


@dask_deserialize.register(Parcel)
def _arrived(header: dict[str, Any], frames: Sequence[Any]) -> Parcel:
    head, *buffers = (memoryview(frame).cast("B").toreadonly() for frame in frames)
    return Parcel(header["key"], Encoded(head, tuple(buffers), tuple(map(CallId, header["refs"]))))


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
