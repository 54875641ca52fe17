"""Runs of other processes: waited for until they have ended there, or are there to be gone on with here."""

from __future__ import annotations

import asyncio
import time

from exoflow.errors import ExoFlowError
from exoflow.journal import Journal
from exoflow.journal.takeover import Found

_PAUSE_S = (0.1, 1.0)
"""Between two looks: at first, and at most."""
_LOOKS, _WORD_S = 100, 0.02
"""How often, and after how long again, to look for the first record of a run that has an owner."""


class Stopping(ExoFlowError):
    """The gateway begins nothing any more, and waits for nothing."""


class NotEnded(ExoFlowError):
    """Another process has the run, and has not ended it in time."""


class Elsewhere:
    """Waits for runs of other processes, on one event loop. One look at a time is made for all who wait for a run."""

    def __init__(self, journal: Journal, stopping: asyncio.Event) -> None:
        self._journal = journal
        self._stopping = stopping
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def wait(self, run_id: str, until: float | None) -> None:
        """Wait until no other process has the run, at most until that time of the loop's clock.

        Raises:
            NotEnded: it is not over in time.
            Stopping: so is this process.
        """
        looking = self._looking.get(run_id)
        if looking is None:
            looking = self._looking[run_id] = asyncio.create_task(self._look(run_id))
            looking.add_done_callback(lambda _: self._looking.pop(run_id, None))
        left_s = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([looking, stopping], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._stopping.is_set():
            raise Stopping("this process stops")
        if not looking.done():
            raise NotEnded(run_id)
        looking.result()

    async def _look(self, run_id: str) -> None:
        pause_s, most_s = _PAUSE_S
        while (await asyncio.to_thread(self._journal.find, run_id)).state == "live" and not self._stopping.is_set():
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)


def look(journal: Journal, run_id: str) -> Found:
    """What the store says of a run; of one that somebody has claimed just now, when its journal has a word of it."""
    found = journal.find(run_id)
    for _ in range(_LOOKS):
        if found.state != "live" or found.epoch:
            break
        time.sleep(_WORD_S)
        found = journal.find(run_id)
    return found
