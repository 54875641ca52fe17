"""The catalogue itself: brought up to date from the journals by whoever reads it."""

from __future__ import annotations

import difflib
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping

from exoflow.catalogue import description, opening, summary
from exoflow.catalogue.description import Description
from exoflow.catalogue.intake import Intake
from exoflow.catalogue.schema import TABLES
from exoflow.catalogue.summary import RunSummary
from exoflow.errors import RunNotFound
from exoflow.journal.catalogue import Reader
from exoflow.journal.takeover import journal_processes
from exoflow.model import Status
from exoflow.protocols import Store

logger = logging.getLogger(__name__)

FILE = "catalogue.sqlite"

_CANDIDATES = 2_000


class Catalogue:
    """An index of a store's runs and calls. One connection, any thread.

    It lies in the store's folder where there is one, so that the next reader need not begin anew; else in memory.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = _path(store)
        self._lock = threading.RLock()
        self._connection = self._opened()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                return opening.open_file(self.path)
            except (OSError, sqlite3.Error) as error:
                logger.info("no catalogue in %s, so it is kept in memory: %s", os.path.dirname(self.path), error)
                self.path = None
        return opening.open_memory()

    def refresh(self) -> int:
        """Take in what was recorded since the last time; how many records that were.

        Two processes at once: one waits for the other, then finds little left to do.
        """
        with self._lock:
            try:
                return self._refresh()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                    raise
                logger.info("the catalogue %s is damaged (%s): it is built again from the journals", self.path, error)
                self._rebuild()
                return self._refresh()

    def _refresh(self) -> int:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            taken = self._take_new()
            if taken is None:
                logger.info("a journal that the catalogue had read is gone: it is built again from what there is")
                for table in TABLES:
                    connection.execute(f"DELETE FROM {table}")
                taken = self._take_new() or 0
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return taken

    def _take_new(self) -> int | None:
        """How many records were new; None: what was read before is there no more."""
        connection = self._connection
        rows = connection.execute("SELECT journal, slot, offset, first_slot FROM positions").fetchall()
        known = {journal: (slot, offset) for journal, slot, offset, _ in rows}
        reader = Reader(self.store, known, self._epochs)
        intake = Intake(connection)
        taken = 0
        for read in reader.read_new():
            intake.take(read)
            taken += 1
        first = reader.first_slots
        if known and (reader.vanished or any(first.get(journal, slot) > slot for journal, _, _, slot in rows)):
            return None
        intake.flush()
        moved = [(name, *at, first.get(name, 0)) for name, at in reader.positions.items() if known.get(name) != at]
        connection.executemany(
            "INSERT OR REPLACE INTO positions (journal, slot, offset, first_slot) VALUES (?, ?, ?, ?)", moved
        )
        return taken

    def _epochs(self, journal: str) -> dict[int, tuple[str, int]]:
        """The runs of a journal that is known already: its newer records name them by number only."""
        rows = self._connection.execute("SELECT run, run_id, epoch FROM epochs WHERE journal = ?", (journal,))
        return {run: (run_id, epoch) for run, run_id, epoch in rows}

    def _rebuild(self) -> None:
        self._connection.close()
        if self.path is not None:
            opening.discard(self.path)
        self._connection = self._opened()

    def runs(
        self, *, status: Status | None = None, flow: str | None = None, labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[RunSummary]:  # fmt: skip
        """Runs, the newest first, as of the last ``refresh``."""
        with self._lock:
            return summary.select(
                self._connection, self._is_alive, status=status, flow=flow, labels=labels, limit=limit
            )

    def count(self) -> int:
        """How many runs there are."""
        with self._lock:
            [(number,)] = self._connection.execute("SELECT count(*) FROM runs WHERE flow IS NOT NULL")
            return int(number)

    def run(self, run_id: str) -> RunSummary:
        """One run.

        Raises:
            RunNotFound: there is none; the message names the nearest id.
        """
        with self._lock:
            found = summary.select(self._connection, self._is_alive, run_id=run_id)
            if found:
                return found[0]
            near = self.nearest(run_id)
        hint = f"; did you mean {near!r}?" if near else "" if self.count() else ": there are none"
        error = RunNotFound(f"no run {run_id!r} in {self.store.url}{hint}")
        error.run_id = run_id
        raise error

    def describe(self, run_id: str) -> Description:
        """One run with all its calls. Raises RunNotFound as ``run``."""
        with self._lock:
            run = self.run(run_id)
            live = run.status in (Status.RUNNING, Status.WAITING)
            processes = journal_processes(self.store, run.journal) if live else ()
            return description.describe(self._connection, run, processes)

    def nearest(self, run_id: str) -> str | None:
        """The known id that looks most like this one; ids that begin alike are looked at first."""
        query = "SELECT run_id FROM runs WHERE run_id >= ? AND run_id < ? ORDER BY run_id LIMIT ?"
        candidates: list[str] = []
        for length in (len(run_id) // 2, 1, 0):
            begin = run_id[:length]
            end = begin[:-1] + chr(ord(begin[-1]) + 1) if begin else "\U0010ffff"
            candidates = [row[0] for row in self._connection.execute(query, (begin, end, _CANDIDATES))]
            longer = [candidate for candidate in candidates if run_id and candidate.startswith(run_id)]
            near = longer or difflib.get_close_matches(run_id, candidates, n=1)
            if near:
                return near[-1]
        return None

    def _is_alive(self, journal: str) -> bool:
        return bool(journal_processes(self.store, journal))


def _path(store: Store) -> str | None:
    """Where the file lies: in the folder of a local store."""
    root = getattr(store, "root", None)
    return os.path.join(root, FILE) if isinstance(root, str) and os.path.isdir(root) else None


def describe(run_id: str, store: Store) -> Description:
    """What became of every call of a run, from an up-to-date catalogue. Raises RunNotFound as ``Catalogue.run``."""
    with Catalogue(store) as catalogue:
        catalogue.refresh()
        return catalogue.describe(run_id)
