"""Runs that nobody works on: found, and taken over, for as long as this process lives. What a server or worker is."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from exoflow.driver.history import open_doubts
from exoflow.driver.records import Start
from exoflow.driver.runtime import Runtime
from exoflow.driver.spec import FlowSpec
from exoflow.errors import Fenced, RunIsLive, StorageError
from exoflow.hosting import adopt
from exoflow.journal import frames, takeover
from exoflow.journal.ends import emptied
from exoflow.journal.inbox import has_messages, messages_after
from exoflow.journal.numbered import in_bucket
from exoflow.journal.records import OWNERSHIP, Kind, decode
from exoflow.journal.scan import History, ends_with_seal, owned, read_all, slot_numbers
from exoflow.journal.takeover import Found, journal_processes
from exoflow.protocols import SlotStore, Store

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

_AT_ONCE = 16
"""Each waits for the disk, and the journal makes one write of those that wait together."""


class Adoption:
    """Takes over the runs of some flows that dead processes left, for one thread at a time.

    A journal is read once, when its process is seen to be dead. A look while nobody dies costs a listing, and a look
    at the lock of each journal that is not over; in a bucket, where it is made every five seconds, a request for each
    that has grown. Ended runs and failed ones are left alone, and so is one that stopped
    in doubt until somebody has said what happened. Several processes may do this on one store: each run goes to one.

    Args:
        store: Where the runs are.
        flows: Whose runs, by the names that are recorded.
        executor: Instead of the one that a run had.
    """

    def __init__(self, store: Store, flows: Mapping[str, FlowSpec], *, executor: str | None = None) -> None:
        self._store = store
        self._flows = dict(flows)
        self._executor = executor
        self._runtime = Runtime.of(store)
        self._over: set[str] = set()
        self._left: set[str] = set()
        """Runs that somebody has to take."""
        self._doubtful: set[str] = set()
        """Runs that stopped in doubt, and go on when somebody has said what happened."""
        self._heard: dict[str, int] = {}
        """In a bucket: the newest slot of each journal that was not over."""
        self._read_to: dict[str, tuple[int, dict[int, str]]] = {}
        """In a bucket: the first slot that was not read of a journal that was silent, and its runs that were open."""
        self._listed_s = -math.inf

    @property
    def left(self) -> int:
        """How many runs are known to wait for somebody who takes them."""
        return len(self._left)

    def look(self, most: int) -> Iterator[Execution]:
        """Take over what is left, at most so many runs. Each is to be started.

        Raises:
            StorageError: the store failed; look again later.
        """
        for journal, newest in self._silent():
            if in_bucket(self._store):
                self._read_on(journal, newest)
            else:
                self._read(journal)
        self._left |= {run_id for run_id in list(self._doubtful) if self._is_told(run_id)}
        waiting = list(self._left)
        random.shuffle(waiting)  # others look at the same time, and would come to each in the same order
        pool = ThreadPoolExecutor(_AT_ONCE, "exoflow-adopt")
        try:
            for execution in pool.map(self._taken, waiting[:most]):
                if execution is not None and not execution.ended.is_set():
                    logger.info("adopted %s", execution.run_id, extra={"run": execution.run_id})
                    yield execution
        finally:
            pool.shutdown(cancel_futures=True)

    def doubt(self, run_id: str) -> None:
        """A run of this process has stopped in doubt: it is to be gone on with when somebody has said what happened."""
        self._doubtful.add(run_id)

    # -- which journals are over -------------------------------------------------------------------------------------

    def _silent(self) -> list[tuple[str, int]]:
        """Journals whose processes are dead, and that were not read yet; their newest slots."""
        if in_bucket(self._store):
            now_s = time.monotonic()
            if now_s < self._listed_s + takeover.BEAT_S:
                return []
            self._listed_s = now_s
            self._over |= emptied(self._store)
        newest: dict[str, int] = {}
        for name in self._store.list("journals"):
            _, journal, number = name.split("/")
            newest[journal] = max(newest.get(journal, 0), int(number))
        self._over &= newest.keys()
        known = self._over | {self._runtime.journal.name}
        return [
            (name, number) for name, number in newest.items() if name not in known and not self._lives(name, number)
        ]

    def _lives(self, journal: str, newest: int) -> bool:
        if isinstance(self._store, SlotStore) or not self._store.shared:
            return bool(journal_processes(self._store, journal))
        if self._read_to.get(journal, (0, {}))[0] > newest:
            return True  # it was read when it was silent, and nothing has come since
        since_s = takeover.note(self._store, journal, newest)
        if self._heard.get(journal) != newest:
            self._heard[journal] = newest
            try:
                return not ends_with_seal(self._store, journal, newest)
            except FileNotFoundError:
                return True  # gc takes it, and it is not the newest then: the next look tells
        return since_s is None or time.monotonic() - since_s < takeover.SILENT_BEATS * takeover.BEAT_S

    def _read(self, journal: str) -> None:
        try:
            found = read_all(self._store, journal)
        except FileNotFoundError:
            return  # gc takes it: what is left of it is seen at the next look
        for history, _ in found.values():
            start = _start(history)
            if start is not None and start.flow in self._flows and not history.ended:
                self._left.add(start.run_id)
        if slot_numbers(self._store, journal):
            self._over.add(journal)

    def _read_on(self, journal: str, newest: int) -> None:
        """In a bucket: what has come since the last time, if it was silent before."""
        first, begun = self._read_to.get(journal, (0, {}))
        try:
            for _, item in owned(self._store, journal, OWNERSHIP, range(first, newest + 1)):
                if item.kind == Kind.ENDED:
                    begun.pop(item.run, None)
                elif item.kind != Kind.RELEASED:
                    start = _start_in(bytes(item.data), item.kind)
                    if start is not None and start.flow in self._flows:
                        begun[item.run] = start.run_id
            over = ends_with_seal(self._store, journal, newest)
        except FileNotFoundError:
            return  # gc takes it: the next look knows
        self._left |= set(begun.values())
        self._read_to[journal] = newest + 1, begun
        if over:
            self._over.add(journal)
            del self._read_to[journal]

    # -- one run -----------------------------------------------------------------------------------------------------

    def _taken(self, run_id: str) -> Execution | None:
        """Take it, or see that nobody has to any more."""
        if run_id in self._runtime.executions:
            return None  # its journal is over, and it has not noticed yet
        try:
            found = self._runtime.journal.find(run_id)
            if found.state != "broken_off":
                if found.state != "live" or _has_begun(found):
                    self._left.discard(run_id)
                return None
            if found.history.in_doubt and not _is_told(self._store, found):
                self._doubtful.add(run_id)
            else:
                self._doubtful.discard(run_id)
                execution = adopt(run_id, self._code_of, self._store, self._executor)
                self._left.discard(run_id)
                return execution
        except RunIsLive:
            return None  # somebody was faster, or is just about to be: the next look tells
        except (Fenced, StorageError):
            raise
        except Exception as error:  # noqa: BLE001  # its record is broken, say: the others can be taken all the same
            logger.warning("%s cannot be gone on with: %s", run_id, error, extra={"run": run_id})
        self._left.discard(run_id)
        return None

    def _is_told(self, run_id: str) -> bool:
        """A listing, as long as nobody has said a word."""
        if not has_messages(self._store, run_id):
            return False
        found = self._runtime.journal.find(run_id)
        return found.state != "broken_off" or _is_told(self._store, found)

    def _code_of(self, start: Start) -> FlowSpec:
        return self._flows[start.flow]


def _is_told(store: Store, found: Found) -> bool:
    """Whether all that is in doubt has been answered, or the run is to be cancelled."""
    messages = messages_after(store, found.run_id, 0)
    return any(message.what == "cancel" for message in messages) or not open_doubts(found.records, messages)


def _has_begun(found: Found) -> bool:
    """Whether the owner's journal tells of the run. One that has only claimed it may die, and nobody would know."""
    return found.claim is not None and found.epoch == found.claim.epoch


def _start_in(data: bytes, kind: int) -> Start | None:
    """The Start that a record is, or that an Adopted repeats."""
    record = decode(data)
    if kind == Kind.START:
        return Start(*record)
    first = next(frames.unpack_records(record[4]), None)
    return Start(*decode(first.data)) if first is not None and first.good and first.kind == Kind.START else None


def _start(history: History) -> Start | None:
    """A run's Start, also where it was adopted; None where it is damaged."""
    data, _, kind = history.entries[0] if history.entries else (b"", 0, Kind.NOTE)
    return Start(*decode(data)) if data and kind == Kind.START else None
