"""Runs of other processes: waited for until they have ended there, or are there to be gone on with here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from exoflow.driver.runtime import Runtime
from exoflow.errors import ExoFlowError, StorageError
from exoflow.journal.following import Following, News
from exoflow.journal.numbered import in_bucket
from exoflow.journal.records import OWNERSHIP
from exoflow.journal.remembered import remembered
from exoflow.journal.takeover import Found

PAUSE_S = (0.1, 1.0)
"""Between two looks: at first, and at most."""
REMOTE_PAUSE_S = (0.25, 2.0)
"""The same between two looks at a journal in a bucket."""
REMEMBERED_BYTES = 64 << 20
"""Of the journals in a bucket that somebody waits for."""
_LOOKS, _WORD_S = 100, 0.02
"""How often, and after how long again, to look for the first record of a run that has an owner."""

logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """Somebody who waits for news of a run."""

    journal: str
    run: int
    kinds: Collection[int] | None
    come: asyncio.Future[None]


class Stopping(ExoFlowError):
    """The gateway begins nothing any more, and waits for nothing."""


class NotEnded(ExoFlowError):
    """Another process has the run, and has not ended it in time."""


class Elsewhere:
    """Waits for runs of other processes, on one event loop. One look at a time is made for all who wait for a run.

    In a bucket, where to look is to read the whole journal, that is done only when the journal has got something that
    may concern the run; whether it has, one reader a journal asks, one request each time; and each slot is read once,
    for all who wait.
    """

    def __init__(self, runtime: Runtime, stopping: asyncio.Event) -> None:
        self._runtime = runtime
        self._stopping = stopping
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._asking: Counter[str] = Counter()
        """How many wait for a run: when nobody does any more, nobody looks."""
        self._waiting: dict[str, set[Waiting]] = {}
        """In a bucket: by journal, who waits for something to come."""
        self._readers: set[asyncio.Task[None]] = set()
        self._seen = runtime.store

    async def wait(self, run_id: str, until: float | None) -> None:
        """Wait until no other process has the run, at most until that time of the loop's clock.

        Raises:
            NotEnded: it is not over in time.
            Stopping: so is this process.
        """
        looking = self._looking.get(run_id)
        if looking is None:
            looking = self._looking[run_id] = asyncio.create_task(self._look(run_id))
            looking.add_done_callback(lambda done: self._looked(run_id, done))
        left_s = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        stopping = asyncio.create_task(self._stopping.wait())
        if not self._asking:
            self._seen = remembered(self._runtime.store, REMEMBERED_BYTES)
        self._asking[run_id] += 1
        try:
            await asyncio.wait([looking, stopping], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            self._asking[run_id] -= 1
            if not self._asking[run_id]:
                del self._asking[run_id]
                self._looked(run_id, looking)
                looking.cancel()
                if not self._asking:
                    self._seen = self._runtime.store
        if self._stopping.is_set():
            raise Stopping("this process stops")
        if not looking.done():
            raise NotEnded(run_id)
        looking.result()

    def _looked(self, run_id: str, looking: asyncio.Task[None]) -> None:
        if self._looking.get(run_id) is looking:
            del self._looking[run_id]

    async def _look(self, run_id: str) -> None:
        pause_s, most_s = PAUSE_S
        waiting: Waiting | None = None
        try:
            while not self._stopping.is_set():
                found = await asyncio.to_thread(self._runtime.journal.find, run_id, store=self._seen)
                if found.state != "live" or found.claim is None:
                    return
                if not in_bucket(self._runtime.store):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, most_s)
                    continue
                if waiting is not None and waiting.journal == found.claim.journal:
                    await waiting.come
                waiting = await self.news(found.claim.journal, found.claim.run)  # before the look that it is to follow
        finally:
            if waiting is not None:
                waiting.come.cancel()

    async def news(self, journal: str, run: int, kinds: Collection[int] | None = OWNERSHIP) -> Waiting:
        """Something to wait for: that from now on there comes what may concern the run. In a bucket."""
        waiting = Waiting(journal, run, kinds, asyncio.get_running_loop().create_future())
        known = self._waiting.get(journal)
        if known is not None:
            known.add(waiting)
            return waiting
        following = await asyncio.to_thread(Following, self._seen, journal)
        self._waiting.setdefault(journal, set()).add(waiting)
        if len(self._waiting[journal]) == 1:
            reader = asyncio.create_task(self._read(journal, following))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return waiting

    async def _read(self, journal: str, following: Following) -> None:
        """Tell who waits, until nobody does."""
        pause_s, most_s = REMOTE_PAUSE_S
        while not self._stopping.is_set() and self._still_waiting(journal):
            await asyncio.sleep(pause_s)
            try:
                news = await asyncio.to_thread(following.look)
            except StorageError as error:
                logger.debug("the journal %s could not be read, and is looked at again: %s", journal, error)
                news = News()
            pause_s = REMOTE_PAUSE_S[0] if any(news.kinds) else min(2 * pause_s, most_s)
            for each in self._waiting[journal]:
                if news.concerns(each.run, each.kinds) and not each.come.done():
                    each.come.set_result(None)

    def _still_waiting(self, journal: str) -> bool:
        """Whether anybody waits for news of the journal. If nobody does, whoever comes next begins anew."""
        waiting = {each for each in self._waiting[journal] if not each.come.done()}
        self._waiting[journal] = waiting
        if not waiting:
            del self._waiting[journal]
        return bool(waiting)


def look(runtime: Runtime, run_id: str) -> Found:
    """What the store says of a run; of one that somebody has claimed just now, when its journal has a word of it."""
    found = runtime.journal.find(run_id)
    for _ in range(_LOOKS):
        if found.state != "live" or found.epoch:
            break
        time.sleep(_WORD_S)
        found = runtime.journal.find(run_id)
    return found
