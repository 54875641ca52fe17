"""A body in a thread of a Dask worker, and how it is stopped there: by what is thrown into it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from exoflow.errors import Interruption
from exoflow.executors.actors.living import WorkerActors
from exoflow.executors.threads import Deadlines
from exoflow.model import Held
from exoflow.protocols import Attempt

if TYPE_CHECKING:
    from exoflow.executors.dask.worker import Seat

GRACE_S = 3.0
"""How long a body that was told to stop may take to end."""


class Stopped(Interruption):
    """Thrown into the thread of a body that was cancelled or has timed out."""


class Running:
    """A body and its thread."""

    def __init__(self, seat: Seat, serial: int, timeout_s: float | None) -> None:
        self.reason: str | None = None
        self.over = False
        self._seat = seat
        self._serial = serial
        self._timeout_s = timeout_s
        self._thread = threading.get_ident()
        self._worker = get_worker()
        self._lock = threading.Lock()

    def begin(self) -> None:
        if self._timeout_s is not None:
            _deadlines.add(self._timeout_s, self)

    def stop(self, reason: str) -> None:
        """Throw ``Stopped`` into the body, once. It is noticed when the body is next at Python code."""
        with self._lock:
            if not self.over and self.reason is None:
                self.reason = reason
                _throw(self._thread, ctypes.py_object(Stopped))

    def end(self) -> None:
        """Nothing is thrown from here on.

        Raises:
            Stopped: it was, in this moment.
        """
        with self._lock:
            self.over = True
        if self.reason is not None:
            for _ in range(2):  # what was thrown and has not been noticed yet is noticed at a jump back
                pass

    def expire(self) -> None:
        """Its time is up; or it has not ended for that."""
        if self.reason is None:
            self.stop(f"timed out after {self._timeout_s} s")
            _deadlines.add(GRACE_S, self)
        else:
            self._worker.log_event(self._seat.patron.id, {"seat": self._seat.id, "overdue": self._serial})


class Leaving(WorkerActors):
    """The actors of a seat, as one body has them: it ends before it leaves its state."""

    def __init__(self, actors: WorkerActors, end: Callable[[], None]) -> None:
        self.__dict__.update(actors.__dict__)
        self._end = end

    def keep(self, actor: object, attempt: Attempt) -> Held:
        self._end()
        return super().keep(actor, attempt)


def _throw(thread: int, error: Any) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


_deadlines: Deadlines[Running] = Deadlines(Running.expire, lambda running: not running.over, "exoflow-dask-deadlines")
