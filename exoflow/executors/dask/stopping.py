"""Stops attempts: those that have not begun never will, and bodies are told to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from exoflow.executors.dask import worker
from exoflow.executors.dask.body import GRACE_S
from exoflow.executors.dask.cluster import Connection
from exoflow.executors.dask.ending import Endings
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.placing import Seat
from exoflow.executors.dask.roster import Roster, process_of


class Stops:
    """On the client's loop.

    Args:
        connection: To the cluster.
        roster: Its workers.
        endings: Tells of what was stopped.
        place: To be called when there is room.
    """

    def __init__(self, connection: Connection, roster: Roster, endings: Endings, place: Callable[[], None]) -> None:
        self._connection = connection
        self._roster = roster
        self._endings = endings
        self._place = place

    async def stop(self, entry: Entry, reason: str) -> None:
        """Have its worker stop it; where the body does not end in time, end the worker."""
        if entry.settled:
            return
        if entry.seat is None or not entry.is_sent or await self.withdraw(entry.seat, [entry], reason):
            entry.reason = reason
            self._endings.vanished([entry], reason, begun=False)
            self._place()
            return
        await asyncio.sleep(GRACE_S)
        self._end(entry, reason)

    async def withdraw(self, seat: Seat, entries: list[Entry], reason: str | None) -> list[Entry]:
        """Those that have not begun, and now never will; the others are stopped, if there is a reason."""
        serials = [entry.serial for entry in entries]
        work = self._connection.client.run(
            worker.withdraw, seat.place.seat, serials, reason, workers=[seat.address], on_error="return"
        )
        try:
            unbegun = (await asyncio.wait_for(work, GRACE_S)).get(seat.address)
        except (OSError, TimeoutError):
            unbegun = None
        return [entry for entry in entries if entry.serial in unbegun] if isinstance(unbegun, list) else []

    def overdue(self, event: tuple[float, Any]) -> None:
        """A worker tells of a body that has not ended when its time was up."""
        place, serial = event[1]["seat"], event[1]["overdue"]
        for seat in self._roster.seats.values():
            if seat.place.seat == place and serial in seat.placed:
                entry = seat.placed[serial]
                self._end(entry, f"timed out after {entry.attempt.timeout_s} s")

    def _end(self, entry: Entry, reason: str) -> None:
        """Its body has not ended when it was told to."""
        if entry.settled or entry.seat is None:
            return
        if not self._connection.is_own:
            entry.reason = f"{reason}; its thread cannot be ended and may still run"
            self._endings.vanished([entry], entry.reason)
            self._place()
            return
        entry.reason = reason if reason == "cancelled" else f"{reason}; its worker was killed"
        process = process_of(entry.seat)
        if process is not None:
            process.kill()
