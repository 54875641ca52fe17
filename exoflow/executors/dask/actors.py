"""The actors of one executor on a cluster: where each lives, and its calls there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from exoflow.codec import Encoded
from exoflow.executors.actors.living import key_of
from exoflow.executors.dask import worker_actors
from exoflow.executors.dask.cluster import Connection
from exoflow.executors.dask.ending import Endings
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.parcel import Parcel
from exoflow.executors.dask.placing import Seat
from exoflow.executors.dask.roster import Roster, until_gone
from exoflow.executors.wire import pack_saving, unpack_outcome, unpack_saved
from exoflow.model import Held, Stored
from exoflow.protocols import Outcome


class Actors:
    """On the client's loop.

    Args:
        connection: To the cluster.
        roster: Its workers.
        endings: Tells of what has ended.
        place: To be called when there is room.
        begin: Has a coroutine run on the loop; from any thread.
    """

    def __init__(
        self,
        connection: Connection,
        roster: Roster,
        endings: Endings,
        place: Callable[[], None],
        begin: Callable[[Coroutine[Any, Any, object]], None],
    ) -> None:
        self._connection = connection
        self._roster = roster
        self._endings = endings
        self._place = place
        self._begin = begin
        self._seats: dict[str, Seat] = {}
        """By the key of the state."""

    def has(self, state: Held) -> bool:
        return key_of(state) in self._seats

    def seat_for(self, entry: Entry) -> Seat | None:
        """Where the state is; for a new actor, the seat with the fewest actors, and of those the least to do."""
        if entry.state is not None:
            return self._seats.get(key_of(entry.state))
        living = list(self._seats.values())
        able = [seat for seat in self._roster.seats.values() if seat.can_ever(entry.needs)]
        return min(able, key=lambda seat: (living.count(seat) + seat.created, seat.load), default=None)

    async def perform(self, entry: Entry, seat: Seat) -> None:
        """A call, to its end."""
        entry.is_acting = True
        attempt = entry.attempt
        keys = [*entry.held, *entry.sent]
        answer = await self._ask(
            seat, worker_actors.act, entry.serial, entry.order, attempt.timeout_s, keys, seat.floor
        )
        came = unpack_outcome(answer) if isinstance(answer, bytes) else None
        if isinstance(answer, BaseException):
            await until_gone(seat, kill=self._connection.is_own)
        elif came is None and not entry.settled and entry.state is not None:
            self._forget(entry.state)  # another process sits there now
            self._endings.state_lost(entry)
        await self._ended(entry, seat, came)

    async def _ended(self, entry: Entry, seat: Seat, came: Outcome | None) -> None:
        why_lost = f"its worker {seat.address} (process {seat.place.pid}) died"
        outcome = self._endings.outcome_of(entry, None, came, why_lost)
        left = None if came is None else came.state
        if entry.state is not None and entry.state != left and (came is not None or outcome is not None):
            self._forget(entry.state)
        if left is not None and self._roster.has(seat):
            self._seats[key_of(left)] = seat
        if outcome is not None:
            self._endings.tell([(entry, outcome)])
        elif left is not None:
            self.release(left)  # its call was given up, and ended after all
        self._place()

    async def save(self, state: Held, name: str, done: Callable[[Stored | Encoded | BaseException], None]) -> None:
        """Have its worker write it to the store, or give it to us for that, if workers cannot."""
        seat = self._seats.get(key_of(state))
        answer: Any = (
            None if seat is None else await self._ask(seat, worker_actors.save_state, pack_saving(state, name))
        )
        match answer:
            case Parcel():
                done(answer.encoded)
            case bytes():
                done(unpack_saved(answer))
            case OSError() | None:
                done(KeyError(f"{state.handle}: the state was released or lost"))
            case _:
                done(answer)

    def release(self, state: Held) -> None:
        """From any thread, and at once: nothing that is put after it runs with the state."""
        seat = self._seats.pop(key_of(state), None)
        if seat is not None:
            self._begin(self._ask(seat, worker_actors.release_state, key_of(state)))

    def gone(self, seat: Seat) -> None:
        """And its actors with it."""
        for key, each in list(self._seats.items()):
            if each is seat:
                self._seats.pop(key, None)  # it may have been released meanwhile

    def clear(self) -> None:
        self._seats.clear()

    def _forget(self, state: Held) -> None:
        self._seats.pop(key_of(state), None)

    async def _ask(self, seat: Seat, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns there, or what came in between."""
        client = self._connection.client
        try:
            answers = await client.run(function, seat.place.seat, *args, workers=[seat.address], on_error="return")
        except OSError as error:  # the scheduler is gone
            return error
        return answers.get(seat.address, OSError("the worker is gone"))
