"""Hears, for all runs of a process, that messages have come for them from other processes; and says which only wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from exoflow.driver import waiting
from exoflow.errors import Corrupt, Interruption, StorageError
from exoflow.journal import inbox
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import hashed
from exoflow.protocols import SlotStore, Store

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

LOCAL_S, REMOTE_S = 0.1, 2.0
"""How often bells are looked for: in a folder of this machine, a system call; in a bucket, a request."""

LOOK_S = 60.0
"""A bell is a hint, and can be lost with whoever was to ring it: so often the inboxes of all runs are looked at."""


class Bells:
    """One thread a store, from the first run on.

    Args:
        journal: Gives the name of the journal that runs are in now.
    """

    def __init__(self, store: Store, journal: Callable[[], str], executions: Mapping[str, Execution]) -> None:
        self._store = store
        self._journal = journal
        self._executions = executions
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._looked_s = self._noted_s = time.monotonic()
        self._heard = "", 0
        """The journal and its last bell, in a bucket: none is deleted there."""

    def listen(self) -> None:
        """There is a run from now on that somebody may have something to say to."""
        if self._thread is None and self._store.shared:  # else only this process could, and that tells the run itself
            self._thread = threading.Thread(target=self._serve, name="exoflow-bells", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()

    def _serve(self) -> None:
        pause_s = LOCAL_S if isinstance(self._store, SlotStore) else REMOTE_S
        while not self._over.wait(pause_s):
            if not self._executions:
                continue
            try:
                self.note_waiting()
                self.hear()
            except (StorageError, Interruption) as error:  # Fenced: the runs find out themselves
                logger.debug("bells were not heard: %s", error)
            except Exception:
                logger.exception("bells of %s were not heard, and are listened for again", self._store.url)

    def hear(self) -> None:
        """Bring the runs what has come for them: those for which somebody rang; every now and then, all."""
        journal = self._journal()
        if in_bucket(self._store):
            known, last = self._heard
            run_ids, last = inbox.hear_on(self._store, journal, last if known == journal else 0)
            self._heard = journal, last
        else:
            run_ids = inbox.hear(self._store, journal)
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            run_ids |= self._told()
        for run_id in run_ids:
            execution = self._executions.get(run_id)
            if execution is not None:
                look(execution)

    def note_waiting(self) -> None:
        """Every now and then, have the runs that only wait say so."""
        now_s = time.monotonic()
        if now_s - self._noted_s < waiting.LOOK_S:
            return
        self._noted_s = now_s
        for execution in list(self._executions.values()):
            waiting.look(execution)

    def _told(self) -> set[str]:
        """The runs that have an inbox, at least."""
        live = set(self._executions)
        if isinstance(self._store, SlotStore):
            return live
        told = inbox.told(self._store)  # one request for a thousand messages, and not one for each run
        return {run_id for run_id in live if hashed(run_id) in told}


def look(execution: Execution) -> None:
    """Bring the run the messages that have come for it. From any thread; not under the lock."""
    box = execution.inbox
    with box.reading:
        try:
            messages = inbox.messages_after(execution.values.store, execution.run_id, box.seen)
        except Corrupt as error:
            execution.stop(error)
            return
        except StorageError as error:
            logger.warning("the inbox of %s could not be read, and is looked at again: %s", execution.run_id, error)
            return
        if messages:
            execution.receive(messages)
