"""The values that one executor holds on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from distributed import Client, Future

from exoflow.codec import Encoded, Live
from exoflow.codec.dask_objects import FUTURE
from exoflow.executors.dask import worker
from exoflow.executors.dask.parcel import FUTURES, Parcel
from exoflow.model import Stored


class _Holding:
    __slots__ = ("addresses", "future")

    def __init__(self, future: Future[Any], addresses: Iterable[str]) -> None:
        self.future = future
        self.addresses = set(addresses)


class Holdings:
    """Values by their keys. They have no recipe, so that a lost one stays lost, and Dask says so.

    Args:
        client: Whose they are on the cluster.
        direct: Whether values pass between this process and the workers without the scheduler; None: as Dask likes.
    """

    def __init__(self, client: Client, *, direct: bool | None) -> None:
        self._client = client
        self._direct = direct
        self._held: dict[str, _Holding] = {}

    def hold(self, key: str, address: str) -> None:
        """Take over what a worker has put for this client."""
        if key not in self._held:
            self._held[key] = _Holding(Future(key, self._client, state="memory"), [address])

    def release(self, key: str) -> None:
        holding = self._held.pop(key, None)
        if holding is not None:
            holding.future.release()

    def clear(self) -> None:
        self._held.clear()

    def has(self, key: str) -> bool:
        """Whether it is there, as far as Dask has said."""
        holding = self._held.get(key)
        if holding is not None and holding.future.status in ("cancelled", "lost", "error"):
            self.release(key)
            return False
        return holding is not None

    def lend(self, keys: Iterable[str], address: str) -> list[Future[Any]]:
        """The values as inputs of a task; the worker at the address has them then."""
        lent: list[Future[Any]] = []
        for key in keys:
            holding = self._held[key]
            holding.addresses.add(address)
            lent.append(holding.future)
        return lent

    def lies_at(self, key: str, address: str) -> bool:
        holding = self._held.get(key)
        return holding is not None and address in holding.addresses

    async def send(self, values: dict[str, Encoded], address: str) -> None:
        """Bring values of this process to a worker.

        Raises:
            OSError, TimeoutError: the worker is gone.
        """
        parcels = {key: Parcel(key, encoded) for key, encoded in values.items()}
        futures = await self._client.scatter(parcels, workers=[address], direct=self._direct)
        for key, future in futures.items():
            self._held[key] = _Holding(future, [address])

    async def fetch(self, key: str) -> Encoded | Live:
        """Raises KeyError."""
        holding = self._held.get(key)
        found: dict[str, Any] = {}
        if holding is not None and key.startswith(FUTURES):
            return Live(FUTURE, Future(key, self._client, state="memory"))
        if holding is not None:
            found = await self._client.gather({key: holding.future}, errors="skip", direct=self._direct)
        parcel = found.get(key)
        if not isinstance(parcel, Parcel):
            self.release(key)
            raise KeyError(f"{key}: the value was released or lost")
        return parcel.encoded

    async def save(
        self, keys: Sequence[str], store: bytes, name: str, done: Callable[[list[Stored] | BaseException], None]
    ) -> None:
        """Have a worker that has them write them to one object of the store."""
        try:
            held = [self._held[key].future for key in keys]
        except KeyError as error:
            done(KeyError(f"{error.args[0]}: the value was released or lost"))
            return
        future = self._client.submit(worker.save, store, name, held, pure=False)
        try:
            done(await future)
        except asyncio.CancelledError:
            done(KeyError(f"{', '.join(keys)}: the value was lost"))
        except Exception as error:  # noqa: BLE001 -- whatever the store raised there
            done(error)
