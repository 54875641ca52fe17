"""One process's hold on a store: the journals it writes, and the runs that are live in it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from exoflow.driver.bells import Bells
from exoflow.driver.execution import Execution
from exoflow.errors import Fenced, StorageError
from exoflow.journal import Journal, Kind
from exoflow.journal.numbered import in_bucket
from exoflow.journal.records import IN_DOUBT
from exoflow.journal.writer import Rested
from exoflow.model import Status
from exoflow.protocols import Store

Turn = threading.RLock
T = TypeVar("T")


class Hold:
    """To be used from any thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._journals = [Journal(store)]
        """The last one is written to; those before it are over."""
        self._closed = False
        self.executions: dict[str, Execution] = {}
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()
        self.bells = Bells(store, lambda: self._journals[-1].name, self.executions)
        self._forgets = self._forget

    @property
    def journal(self) -> Journal:
        """The one that new runs go to.

        In a bucket one ends before its process does: when it had nothing to do for long, when somebody took a run over
        while this process stood still, when the service was out of order. Its runs stay with it.
        """
        journal = self._journals[-1]
        if journal.can_write() or not in_bucket(self.store):
            return journal
        with self._lock:
            if not self._journals[-1].can_write() and not self._closed:
                self._journals.append(Journal(self.store))
            return self._journals[-1]

    def _in_journal(self, begin: Callable[[Journal], T]) -> T:
        """What ``begin`` gives, with a journal that does not rest before it has a run."""
        while True:
            try:
                return begin(self.journal)
            except Rested:
                continue  # between the two looks

    def _turn(self, run_id: str) -> Turn:
        """Held by the thread that begins the run of this id, or goes on with it: others then find it, and join."""
        with self._lock:
            turn = self._turns.get(run_id)
            if turn is None:
                turn = self._turns[run_id] = Turn()
            return turn

    def _live(self, run_id: str) -> Execution | None:
        live = self.executions.get(run_id)
        return None if live is None or live.ended.is_set() else live

    def _keep(self, execution: Execution) -> None:
        with self._lock:
            self.executions[execution.run_id] = execution
        execution.forget = self._forgets
        self.bells.listen()

    def _forget(self, execution: Execution) -> None:
        if self.executions.get(execution.run_id) is execution:
            self.executions.pop(execution.run_id, None)
        if execution.fatal is not None:  # it stopped without an end: this process, too, may go on with it
            with contextlib.suppress(Fenced, StorageError):
                doubt = (IN_DOUBT,) if execution.status is Status.IN_DOUBT else ()
                execution.log.append((Kind.RELEASED, execution.index, *doubt))

    def close(self) -> None:
        """End in good order: runs that have not ended can be taken over at once."""
        for execution in list(self.executions.values()):
            execution.stop(KeyboardInterrupt("the process ends"))
        self.bells.close()
        self._closed = True
        for journal in self._journals:
            journal.close()
