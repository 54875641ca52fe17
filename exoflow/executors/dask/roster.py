"""Which workers there are: their coming and going, as the scheduler tells it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
from distributed import Client, Future

from exoflow.executors.dask import marks, worker
from exoflow.executors.dask.placing import Seat

_POLL_S = 0.02
_LOOK_S = 0.5
_GONE_S = 30.0
"""How long a process that has left the cluster may take to end, before its attempts are reported all the same."""

_log = logging.getLogger(__name__)

Gone = Callable[[Seat, set[str], bool], None]
"""Told of a worker that has gone, the keys that were there, and whether that was intended."""


class Roster:
    """The workers that perform for one executor. On the client's loop.

    Args:
        client: Of its own: a client has one handler for a topic.
        patron: The executor.
        spawn: Starts a coroutine on the loop.
        came: Called when there is a new worker.
        gone: Called when one has gone, after all that it had reported.
        lost_values: Told the keys of held values that were lost with a worker.
        ended: Called when the scheduler is gone.
    """

    def __init__(
        self,
        client: Client,
        patron: worker.Patron,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        *,
        came: Callable[[], None],
        gone: Gone,
        lost_values: Callable[[set[str]], None],
        ended: Callable[[], None],
    ) -> None:
        self._client = client
        self._patron = patron
        self._spawn = spawn
        self._came, self._gone, self._lost_values, self._ended = came, gone, lost_values, ended
        self._left_meanwhile: list[set[str]] = []
        """For each greeting under way, who has left: an answer of theirs may come behind that."""
        self._token: Future[int] | None = None
        """By which the workers know that the executor is there."""
        self.seats: dict[str, Seat] = {}
        self.unusable: dict[str, BaseException] = {}
        """Workers that cannot perform for this executor, and why."""
        self.is_known = False
        """Whether the first workers have answered."""
        self.is_over = False
        """The scheduler is gone. One that comes back in its place knows nothing of us."""

    def open(self) -> None:
        token = worker.token_of(self._patron.id)
        self._token = self._client.submit(int, key=token, resources={token: 1})  # which no worker has
        self._client.subscribe_topic("all", self._hear)
        self._spawn(self._greet_all())
        self._spawn(self._watch_scheduler())

    def has(self, seat: Seat) -> bool:
        return self.seats.get(seat.address) is seat

    async def leave(self) -> None:
        self._client.unsubscribe_topic("all")
        await self._client.run(worker.leave, self._patron.id, workers=list(self.seats), on_error="ignore")

    def _hear(self, event: tuple[float, Any]) -> None:
        message = event[1]
        action = message.get("action") if isinstance(message, dict) else None
        if action == "add-worker":
            self._spawn(self._greet([message["worker"]]))
        elif action == "remove-worker":
            for left in self._left_meanwhile:
                left.add(message["worker"])
            self.unusable.pop(message["worker"], None)
            self._lost_values(set(message["lost-scattered-tasks"]))
            seat = self.seats.pop(message["worker"], None)
            if seat is not None:
                was_there = {*message["processing-tasks"], *message["lost-computed-tasks"]}
                self._gone(seat, was_there, message["expected"])

    async def _greet_all(self) -> None:
        """Once the scheduler tells us of workers, so that none comes or goes unseen."""
        topic, heard = f"{self._patron.id}-hears", asyncio.Event()
        self._client.subscribe_topic(topic, lambda _: heard.set())  # behind the other, and so taken up behind it
        while not heard.is_set():
            await self._client.log_event(topic, "heard")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), _POLL_S)
        self._client.unsubscribe_topic(topic)
        await self._greet(None)

    async def _greet(self, addresses: list[str] | None) -> None:
        """Make workers known, all of them for None; those that cannot be reached, until they can or are gone."""
        left: set[str] = set()
        self._left_meanwhile.append(left)
        try:
            while addresses is None or addresses:
                places = await self._client.run(worker.take_seat, self._patron, workers=addresses, on_error="return")
                addresses = self._take({address: place for address, place in places.items() if address not in left})
                if addresses:
                    await asyncio.sleep(_LOOK_S)
        except OSError:  # the scheduler is gone, which is noticed elsewhere
            return
        finally:
            self._left_meanwhile = [each for each in self._left_meanwhile if each is not left]

    def _take(self, places: dict[str, Any]) -> list[str]:
        """Give seats to those that answered; which of them could not be reached."""
        unreached = []
        for address, place in places.items():
            if isinstance(place, worker.Place):
                self._seat(address, place)
            elif isinstance(place, OSError):
                unreached.append(address)
            else:
                self.unusable[address] = place
                _log.warning("the Dask worker %s cannot be used: %s: %s", address, type(place).__name__, place)
        self.is_known = True
        self._came()
        return unreached

    def _seat(self, address: str, place: worker.Place) -> None:
        known = self.seats.get(address)
        if known is not None and known.place.seat == place.seat:
            return
        seat = self.seats[address] = Seat(address, place)
        if process_of(seat) is not None:
            seat.marks = marks.found(place.marks)
        if known is not None:  # another process under its address, before we were told that it has gone
            keys = {str(entry.future.key) for entry in known.placed.values() if entry.future is not None}
            self._gone(known, keys, False)

    async def _watch_scheduler(self) -> None:
        # A client connects again by itself, without a word, to whatever scheduler is there then.
        comm = self._client.scheduler_comm
        while self._client.scheduler_comm is comm and not comm.closed():  # noqa: ASYNC110 -- it has no event for that
            await asyncio.sleep(_LOOK_S)
        self.is_over = True
        self._ended()
        await self._client.close()


def process_of(seat: Seat) -> psutil.Process | None:
    """The process of a worker, if it runs on this machine."""
    try:
        process = psutil.Process(seat.place.pid)
        return process if process.create_time() == seat.place.began else None
    except psutil.NoSuchProcess:
        return None


async def until_gone(seat: Seat, *, kill: bool) -> bool:
    """Wait for the end of a worker's process, where it can be seen from here; whether it is not seen any more."""
    process = process_of(seat)
    waited_s = 0.0
    while process is not None and _runs(process) and waited_s < _GONE_S:
        if kill:
            process.kill()
        await asyncio.sleep(_POLL_S)
        waited_s += _POLL_S
    return process is None or not _runs(process)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
